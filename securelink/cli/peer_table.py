"""`[peers.NAME]`, the table by which a configuration pins and authorises a peer."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securelink.endpoints import Endpoint
    from securelink.identity import PublicKey


def peer_table(name: str, key: PublicKey, endpoints: Sequence[Endpoint]) -> str:
    """Return the TOML table, without a newline at its end, fit to be pasted into a file."""
    from securelink.endpoints import Kind

    # A dot in a bare key would begin a table of its own (TOML 1.0, "Keys").
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", name)
    lines = [f"[peers.{name if bare else json.dumps(name)}]", f'id = "{key.peer_id}"']
    for kind in Kind:
        addresses = [str(endpoint) for endpoint in endpoints if endpoint.kind is kind]
        if addresses:
            lines.append(f"{kind} = {json.dumps(addresses)}")
    return "\n".join(lines)
