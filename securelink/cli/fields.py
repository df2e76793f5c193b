"""One thing's properties, one a line: for `id`, `peers show` and `inbox show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securelink.cli.output import Output


def write_fields(output: Output, fields: Sequence[tuple[str, str]]) -> None:
    """Write each label with its value; values stand below each other and are never cut."""
    from securelink.cli.output import Style, Styled
    from securelink.cli.text import escape_line

    room = max(len(label) for label, _ in fields) + 2
    for label, value in fields:
        output.line(Styled(f"{label:<{room}}", Style.DIM), escape_line(value))
