"""What one `send` sends: the items that a person gave, and the tally of each for one recipient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from securelink.errors import SecurelinkError
    from securelink.lines import Lines
    from securelink.sources import Argument


@dataclass(frozen=True, slots=True)
class TextItem:
    """A text; `id` is its 16 bytes."""

    id: bytes
    text: str


@dataclass(frozen=True, slots=True)
class FilesItem:
    """A file or folder; `given` is what the person wrote."""

    given: str
    argument: Argument


@dataclass(frozen=True, slots=True)
class StreamItem:
    """What a descriptor gives until its end, under a name."""

    name: str
    descriptor: int


@dataclass(frozen=True, slots=True)
class LinesItem:
    """Texts that come as the lines of a pipe do."""

    lines: Lines
    longest: int
    """The most bytes of one."""


Item: TypeAlias = TextItem | FilesItem | StreamItem | LinesItem


@dataclass(slots=True)
class Tally:
    """How far an item is; sizes in bytes."""

    item: Item
    id: bytes
    """The text's, the single file's, or the folder's group."""
    total: int | None = 0
    """Of all its files; None for a stream."""
    files: int = 0
    files_done: int = 0
    done: int = 0
    resumed: int = 0
    changed: set[str] = field(default_factory=set)
    """What started over because it is another file than at an earlier attempt."""
    rows: int = 0
    delivered: int = 0
    linked: bool = False
    """Our own link has delivered of it."""
    open: set[int] = field(default_factory=set)
    """The rows that have not come to an end, by their `seq`."""
    refused: dict[int, SecurelinkError] = field(default_factory=dict)
    """Those of them that the peer does not take at present: the others are not waited for."""
    failed: list[SecurelinkError] = field(default_factory=list)
    """Why others will never be delivered."""
    complete: bool = False
    """All its rows are put."""

    @property
    def errors(self) -> list[SecurelinkError]:
        """All that is known to have gone wrong, the final before the passing."""
        return [*self.failed, *self.refused.values()]

    @property
    def is_done(self) -> bool:
        """Whether nothing of it is waited for any more."""
        return self.complete and (not self.open or bool(self.refused))
