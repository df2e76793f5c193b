"""What one `send` sends: the items that a person gave, and the tally of each for one recipient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securelink.errors import SecurelinkError
    from securelink.lines import Lines
    from securelink.sources import Argument, Skipped
    from securelink.store.outbox_list import QueuedRow


class TextItem(msgspec.Struct, frozen=True):
    """A text; `id` is its 16 bytes."""

    id: bytes
    text: str


class FilesItem(msgspec.Struct, frozen=True):
    """A file or folder; `given` is what the person wrote."""

    given: str
    argument: Argument


class StreamItem(msgspec.Struct, frozen=True):
    """What a descriptor gives until its end, under a name."""

    name: str
    descriptor: int


class LinesItem(msgspec.Struct, frozen=True):
    """Texts that come as the lines of a pipe do."""

    lines: Lines
    longest: int
    """The most bytes of one."""


class QueuedItem(msgspec.Struct, frozen=True):
    """What was put into the outbox earlier, and is queued: a text, or what one argument led to.

    Its rows stay queued meanwhile, for whichever process has a link.
    """

    id: bytes
    """16 bytes: the text's, the single file's, or the group's."""
    name: str
    """Of the file or folder; empty for a text."""
    excerpt: str
    """How the text begins."""
    rows: tuple[QueuedRow, ...]


Item: TypeAlias = TextItem | FilesItem | StreamItem | LinesItem | QueuedItem


def has_files(item: Item) -> bool:
    """Whether a link that takes files is needed for it."""
    match item:
        case FilesItem() | StreamItem():
            return True
        case QueuedItem():
            return bool(item.name)
        case _:
            return False


def queued_items(rows: Iterable[QueuedRow]) -> list[QueuedItem]:
    """Return queued rows as the items that they came from, in order."""
    groups: dict[bytes, list[QueuedRow]] = {}
    for row in rows:
        groups.setdefault(row.group or row.id, []).append(row)
    items = []
    for group, found in groups.items():
        first = found[0]
        if len(found) > 1 or first.kind == "folder" or "/" in first.name:
            name = first.name.partition("/")[0]
            items.append(QueuedItem(group, name, "", tuple(found)))
        else:
            items.append(QueuedItem(first.id, first.name, first.excerpt, (first,)))
    return items


MOST_LEFT_OUT = 1000
"""Of what is left out of an item so many are kept by name: a folder may have a million of them."""


@dataclass(slots=True)
class LeftOut:
    """What is left out of an item."""

    named: list[Skipped] = field(default_factory=list)
    """The first of them, `MOST_LEFT_OUT` at most."""
    count: int = 0
    """All of them."""
    missed: int = 0
    """Those that were to go, and could not be read or named: no links, for one."""

    def add(self, skipped: Skipped) -> None:
        """It is not sent."""
        self.count += 1
        self.missed += skipped.is_missed
        if len(self.named) < MOST_LEFT_OUT:
            self.named.append(skipped)


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
    left_out: LeftOut = field(default_factory=LeftOut)
    rows: int = 0
    delivered: int = 0
    linked: bool = False
    """Our own link has delivered of it."""
    open: set[int] = field(default_factory=set)
    """The rows that have not come to an end, by their `seq`."""
    refused: dict[int, SecurelinkError] = field(default_factory=dict)
    """Why the peer does not take others at present: those are not waited for."""
    put_off: dict[int, SecurelinkError] = field(default_factory=dict)
    """Why the peer has not taken some of the open ones yet: they are queued, and go again."""
    failed: list[SecurelinkError] = field(default_factory=list)
    """Why others will never be delivered."""
    complete: bool = False
    """All its rows are put."""

    @property
    def undone(self) -> int:
        """How much of it is not delivered: texts and files, and folders where there is no file."""
        if self.files:
            return self.files - self.files_done
        return self.rows - self.delivered

    @property
    def errors(self) -> list[SecurelinkError]:
        """All that is known to have gone wrong, the final before the passing."""
        return [*self.failed, *self.refused.values()]

    @property
    def is_done(self) -> bool:
        """Whether nothing of it is waited for any more.

        One text that is not taken for now stands for all behind it, as they go to the same store;
        of files another may be taken all the same.
        """
        is_told = bool(self.refused) and not has_files(self.item)
        return self.complete and (not self.open or is_told)
