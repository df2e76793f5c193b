"""Which of a peer's endpoints may be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink import endpoints
from securelink.endpoints import Endpoint, Kind
from securelink.errors import UsageError

if TYPE_CHECKING:
    from securelink.directory import KnownPeer


def choose(peer: KnownPeer, choice: str) -> tuple[Endpoint, ...]:
    """The endpoints of a peer that `--endpoint` allows.

    Args:
        choice: `auto`, `loopback`, `lan`, `public`, or HOST:PORT.

    Raises:
        UsageError: none of that kind is known, or the choice means nothing.
    """
    if choice == "auto":
        return peer.endpoints
    if choice in set(Kind):
        chosen = tuple(each for each in peer.endpoints if each.kind == choice)
        if not chosen:
            known = ", ".join(f"{each} ({each.kind})" for each in peer.endpoints)
            raise UsageError(
                f"no {choice} endpoint of {peer.name} is known",
                hint=f"known: {known}" if known else "none at all is known",
            )
        return chosen
    host, port = endpoints.parse(choice)
    return (Endpoint(endpoints.kind_of(host), host, port),)
