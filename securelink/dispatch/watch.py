"""What a dispatch tells of the files that it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from securelink.answers import Settled
    from securelink.store.outbox_files import FileRow


class Watch(Protocol):
    """Whoever wants to know how far the files are. Nothing here may wait."""

    def compares(self, row: FileRow) -> None:
        """Both sides look how much of it is there already, which may take a while."""

    def resumed(self, row: FileRow, offset: int) -> None:
        """It goes from `offset` on, in bytes; what was told as sent before does not count."""

    def sent(self, row: FileRow, count: int) -> None:
        """So many more bytes of it have gone."""

    def settled(self, settled: Settled) -> None:
        """It has come to an end, or was refused for now."""

    def nothing_left(self) -> None:
        """No row is on its way: those of which no end was told were ended by somebody else."""


class _Nobody:
    """Does not watch."""

    def compares(self, row: FileRow) -> None: ...

    def resumed(self, row: FileRow, offset: int) -> None: ...

    def sent(self, row: FileRow, count: int) -> None: ...

    def settled(self, settled: Settled) -> None: ...

    def nothing_left(self) -> None: ...


NOBODY: Watch = _Nobody()
