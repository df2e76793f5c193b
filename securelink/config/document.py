"""The file itself: read, parsed, and with the line of each key, so that errors can name it."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from typing import TYPE_CHECKING, Any

import msgspec

from securelink.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


class Place(msgspec.Struct, frozen=True):
    """Where a value comes from: in one word for `config`, and in full for an error."""

    origin: str
    shown: str

    def error(self, problem: str, hint: str | None = None) -> ConfigError:
        """Return the error that says what is wrong here."""
        return ConfigError(f"{self.shown}: {problem}", hint=hint)

    def unknown(self, what: str, word: str, known: Collection[str]) -> ConfigError:
        """Return the error for *word*, which is none of the *known* ones."""
        nearest = difflib.get_close_matches(word, known, n=1)
        if nearest:
            return self.error(f"unknown {what}; did you mean {nearest[0]}?")
        return self.error(f"unknown {what}", f"known here: {', '.join(known)}")


class Document(msgspec.Struct, frozen=True):
    """A parsed file."""

    file: Path
    tables: dict[str, Any]
    lines: dict[tuple[str, ...], int]
    """On which line each table and key first stands, as far as it could be told."""

    @classmethod
    def read(cls, file: Path) -> Document:
        """Return what *file* holds: nothing if there is no such file.

        Raises:
            ConfigError: if it can't be read or is not TOML.
        """
        try:
            # Editors on Windows begin files with a byte order mark, which TOML does not know.
            text = file.read_bytes().decode("utf-8-sig")
            return cls(file, tomllib.loads(text), _lines(text))
        except FileNotFoundError:
            return cls(file, {}, {})
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise ConfigError(f"{file} can't be read: {reason}") from None
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ConfigError(
                f"{file}, line {line}: not UTF-8", hint="save the file as UTF-8"
            ) from None
        except ValueError as error:  # TOMLDecodeError, or a number with thousands of digits
            raise _syntax_error(file, str(error)) from None

    def place(self, *path: str) -> Place:
        """Return where the table or key with this path stands."""
        line = self.lines.get(path)
        where = f"{self.file}, line {line}" if line else str(self.file)
        return Place(self.file.name, f"{where}: {'.'.join(path)}")


def _syntax_error(file: Path, problem: str) -> ConfigError:
    line = re.search(r" \(at line (\d+), column \d+\)$", problem)
    where = f"{file}, line {line[1]}" if line else f"{file}"
    what = problem[: line.start()] if line else problem
    return ConfigError(
        f"{where}: {what[:1].lower()}{what[1:]}", hint='the form of a setting is: key = "value"'
    )


_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_HEADER_OR_KEY = re.compile(rf"\s*(\[?)\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*[]=]")


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line on which each table and key of the TOML document *text* first stands.

    This reads headers, and what is left of an equals sign outside of multi-line strings; a key in
    an inline table has no line of its own. The worst of a mistake here is an error without a line.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    in_string = False
    for number, line in enumerate(text.split("\n"), start=1):
        match = None if in_string else _HEADER_OR_KEY.match(line)
        if (line.count('"""') + line.count("'''")) % 2:
            in_string = not in_string
        if match is None:
            continue
        path = tuple(part.strip("\"'") for part in re.findall(_KEY, match[2]))
        if match[1]:
            table = path
        else:
            path = table + path
        for size in range(1, len(path) + 1):
            lines.setdefault(path[:size], number)
    return lines
