"""`securelink inbox --partial`: the files of which only a part has arrived."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from securelink import unfinished
from securelink.cli.formats import clock, size
from securelink.cli.output import Style, Styled
from securelink.cli.text import escape_line
from securelink.errors import ExitCode
from securelink.events import rfc3339
from securelink.identity import PublicKey
from securelink.ids import to_text
from securelink.store import lookup, partials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securelink.cli.opened import OpenedNode
    from securelink.cli.output import Output
    from securelink.unfinished import Unfinished


def show(output: Output, node: OpenedNode, peer: bytes | None) -> None:
    """List them, the one that began first first; only those from *peer* unless it is None."""
    found = _found(node, peer)
    name_of = node.names()
    for each in found:
        name = name_of(each.partial.peer)
        if output.json:
            output.result(_as_json(each, name))
            continue
        head = f"{clock(each.touched_at)} {name} "
        if output.verbose:
            output.line(head, Styled(to_text(each.partial.id), Style.DIM))
            head = "      "
        output.line(f"{head}{escape_line(_text(each))}")
    if not (found or output.json):
        output.note("nothing unfinished")


def delete(
    output: Output,
    node: OpenedNode,
    typed: Sequence[str],
    peer: bytes | None,
    before: int | None,
) -> ExitCode:
    """Delete parts, by the beginnings of their IDs or all that nothing was added to since *before*.

    Raises:
        UsageError: if *typed* does not tell which are meant; then none is deleted.
        TransferError: if one can't be deleted.
    """
    found = _found(node, peer)
    if before is None:
        with node.database.snapshot() as conn:
            chosen = {lookup.partial(conn, each, peer) for each in typed}
        found = [each for each in found if (each.partial.peer, each.partial.id) in chosen]
    else:
        found = [each for each in found if each.touched_at < before]
    name_of = node.names()
    count = 0
    for each in found:
        if unfinished.remove(node.database, each):
            count += 1
        else:
            name = escape_line(each.partial.name)
            output.warn(f"{name} from {name_of(each.partial.peer)} is being received: not deleted")
    in_use = len(found) - count
    if output.json:
        output.result({"status": "deleted", "count": count, "in_use": in_use})
    else:
        output.note(f"deleted {count} unfinished {'file' if count == 1 else 'files'}")
    return ExitCode.ERROR if in_use and before is None else ExitCode.OK


def _found(node: OpenedNode, peer: bytes | None) -> list[Unfinished]:
    root = node.home.files_folder(node.config.files.folder)
    with node.database.snapshot() as conn:
        rows = partials.list_all(conn)
    return [unfinished.look(row, root) for row in rows if peer in {None, row.peer}]


def _text(found: Unfinished) -> str:
    partial = found.partial
    return f"{partial.name} ({size(found.received)} of {size(partial.size)})"


def _as_json(found: Unfinished, name: str) -> dict[str, Any]:
    partial = found.partial
    return {
        "id": to_text(partial.id),
        "peer": name,
        "peer_id": PublicKey(partial.peer).peer_id,
        "name": partial.name,
        "size": partial.size,
        "received": found.received,
        "began_at": rfc3339(partial.began_at),
        "touched_at": rfc3339(found.touched_at),
        "path": os.fsencode(found.part).decode(errors="backslashreplace"),
    }
