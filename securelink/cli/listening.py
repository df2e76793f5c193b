"""The port that this node listens on, for the commands that ask the router about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.errors import UsageError

if TYPE_CHECKING:
    from securelink.node import Node


async def listening_port(node: Node) -> int:
    """Return the port on which this node listens, or would.

    Raises:
        UsageError: it takes a free one when it starts.
    """
    running = await node.serving()
    port = running.port if running else node.config.server.port
    if not port:
        raise UsageError(
            "this node's port is not known before `securelink serve` runs",
            hint="start it first, or configure [server] port",
        )
    return port
