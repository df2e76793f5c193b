"""How a whole part gets its name: in one step, and never that of another file by accident.

A second, hard link takes a name only if it is free, and leaves the part as a witness until the
file is committed. A file system without hard links has no such step: there an empty file takes
the name, and the part replaces it. What then tells of it is a note beside the part, from before
the empty file until the commit.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from securelink.errors import BadPlace, FileExists
from securelink.filenames import numbered
from securelink.landing.folder import Kind, look
from securelink.landing.part import MODE, SUFFIX, remove
from securelink.landing.terms import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securelink.landing.part import Part

NOTE_SUFFIX: Final = ".place"
BETWEEN_SUFFIX: Final = ".new"

MOST_NUMBERS = 10_000
"""So many names with a number are tried."""

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS})


class Namer:
    """Gives parts their names, in folders of one file system."""

    def __init__(self) -> None:
        self._has_links = True

    def name(
        self, part: Part, folder: int, components: tuple[str, ...], conflict: Conflict
    ) -> tuple[str, bool]:
        """Give a part a name.

        Args:
            part: a whole one.
            folder: where it is to lie.
            components: where that is below the peer's folder, and the name that it is to have.
            conflict: what happens if that is taken.

        Returns:
            The name that it has got, and whether it has replaced another file.

        Raises:
            FileExists: the name is taken, and it is to be left alone, or is no file.
            BadPlace: the part has lost its own name, and what has that now need not be whole.
            OSError: the disk fails, or nothing may be put into the folder.
        """
        if not part.is_at_its_name():
            raise BadPlace(f"{components[-1]} was removed while it was received")
        for candidate in _candidates(components[-1], conflict):
            if self._take(part, folder, (*components[:-1], candidate)):
                return candidate, False
        if conflict is Conflict.OVERWRITE:
            self._replace(part, folder, components)
            return components[-1], True
        raise FileExists(f"{components[-1]} is there already")

    def _take(self, part: Part, folder: int, components: tuple[str, ...]) -> bool:
        """Give a part a name; False if it is taken."""
        name = components[-1]
        try:
            if self._link(part, name, folder):
                return True
        except FileExistsError:
            return False
        _note(part, components)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(name, flags, MODE, dir_fd=folder))
        except FileExistsError:
            # What lies there is not ours, so the note must not say so.
            remove(beside(part.name, NOTE_SUFFIX), part.folder)
            return False
        try:
            os.replace(part.name, name, src_dir_fd=part.folder, dst_dir_fd=folder)
        except OSError:
            remove(name, folder)
            raise
        return True

    def _replace(self, part: Part, folder: int, components: tuple[str, ...]) -> None:
        """Give a part the name of another file, which is gone then."""
        name = components[-1]
        there = look(name, folder)
        if there is not None and there.kind is not Kind.FILE:
            raise FileExists(f"{name} is there already, and no file")
        # Under another name first, so that the part stays as a witness.
        between = beside(part.name, BETWEEN_SUFFIX)
        remove(between, part.folder)
        if not self._link(part, between, part.folder):
            _note(part, components)
            between = part.name
        os.replace(between, name, src_dir_fd=part.folder, dst_dir_fd=folder)

    def _link(self, part: Part, name: str, folder: int) -> bool:
        """Give a part one more name; False if the file system has no hard links.

        Raises:
            FileExistsError: it is taken.
        """
        if self._has_links:
            try:
                os.link(
                    part.name,
                    name,
                    src_dir_fd=part.folder,
                    dst_dir_fd=folder,
                    follow_symlinks=False,
                )
            except OSError as error:
                if error.errno == errno.EXDEV:
                    raise BadPlace("the peer's folder is on another disk than the parts") from None
                if error.errno not in _NO_LINKS:
                    raise
                self._has_links = False
        return self._has_links


def beside(part_name: str, suffix: str) -> str:
    """Return the name of what belongs to a part, with another suffix."""
    return part_name.removesuffix(SUFFIX) + suffix


def _candidates(name: str, conflict: Conflict) -> Iterator[str]:
    yield name
    if conflict is Conflict.RENAME:
        for number in range(2, MOST_NUMBERS):
            yield numbered(name, number)


def _note(part: Part, components: tuple[str, ...]) -> None:
    """Note where a part is about to lie, for whoever comes after a crash.

    It is not waited for: after a power cut it may be missing, and then an empty file stays, or
    the same file comes once more.
    """
    name = beside(part.name, NOTE_SUFFIX)
    remove(name, part.folder)
    part.beside = (name,)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, MODE, dir_fd=part.folder), "w", encoding="utf-8") as file:
        file.write("/".join(components))
