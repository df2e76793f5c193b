"""The port that this node listens on, for the commands that ask the router about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.errors import UsageError

if TYPE_CHECKING:
    from securelink.node import Node
    from securelink.store.serving import Serving


async def running_serve(node: Node) -> Serving | None:
    """Return what the `serve` of this node that runs now says of itself, if one does."""
    from securelink.locks import is_held
    from securelink.store import serving

    # What a killed process wrote is still there; its lock is not.
    return await node.store.read(serving.get) if is_held(node.home.serve_lock) else None


async def listening_port(node: Node) -> int:
    """Return the port on which this node listens, or would.

    Raises:
        UsageError: it takes a free one when it starts.
    """
    running = await running_serve(node)
    port = running.port if running else node.config.server.port
    if not port:
        raise UsageError(
            "this node's port is not known before `securelink serve` runs",
            hint="start it first, or configure [server] port",
        )
    return port
