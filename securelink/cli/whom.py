"""Who is meant when a command names nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.errors import UsageError

if TYPE_CHECKING:
    from securelink.config import Config
    from securelink.directory import Directory


def default_peer(config: Config, directory: Directory, *, say: str) -> str | None:
    """Return the name of the peer of the configuration, else of the only one; None: there is none.

    Args:
        config, directory: this node's.
        say: how a person names one instead, such as `--to`.

    Raises:
        UsageError: there are several.
    """
    if config.client.peer:
        return config.client.peer
    if len(directory.peers) > 1:
        names = ", ".join(peer.name for peer in directory.peers)
        raise UsageError(f"several peers are known: say which with {say}", hint=f"one of: {names}")
    return directory.peers[0].name if directory.peers else None
