"""Which other external ports to try when the wanted one is taken."""

from __future__ import annotations

import hashlib

MOST_OTHERS = 5

_LOWEST, _HIGHEST = 20_000, 49_151  # RFC 6335: above stand the ephemeral ports


def others(local: str, port: int) -> tuple[int, ...]:
    """Return up to `MOST_OTHERS` ports for *port* at the address *local*, always the same.

    The same ones each time, so that after a restart a peer's knowledge is still right; others on
    each machine, so that two in one network do not meet again.
    """
    found: list[int] = []
    number = 0
    while len(found) < MOST_OTHERS:
        digest = hashlib.sha256(f"{local}:{port}:{number}".encode()).digest()
        candidate = _LOWEST + int.from_bytes(digest[:4], "big") % (_HIGHEST - _LOWEST + 1)
        if candidate != port and candidate not in found:
            found.append(candidate)
        number += 1
    return tuple(found)
