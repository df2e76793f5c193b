"""How what stands in the outbox is written: for a person, in a pipe, for scripts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from securelink.cli.formats import contents, duration, size
from securelink.cli.output import Style, Styled
from securelink.cli.text import one_line, shorten
from securelink.errors import ExitCode
from securelink.events import rfc3339
from securelink.identity import PublicKey
from securelink.ids import to_text
from securelink.store.outbox import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from securelink.cli.output import Output
    from securelink.store.outbox_list import Entry

MOST_NAME = 16
"""Columns of a peer's name on a terminal."""

_WORDS = {State.WAITING: "waiting", State.HANDED: "no receipt"}
_HEADER = ("STATE", "PEER", "AGE", "TRIES", "LEFT", "WHAT")
_STYLES = {State.REFUSED: Style.RED, State.EXPIRED: Style.RED, State.UNCONFIRMED: Style.YELLOW}


def write(
    output: Output, found: Sequence[Entry], name_of: Callable[[bytes], str], now: int
) -> None:
    """Write entries, each in a line; *now* is in ms since 1970."""
    if output.json:
        for entry in found:
            output.result(_as_json(entry, name_of(entry.peer), now))
    elif output.is_terminal:
        _write_for_a_person(output, found, name_of, now)
    else:
        rows = [
            (
                to_text(entry.id),
                *_cells(entry, name_of(entry.peer), now),
                entry.reason or "-",
                "; ".join(filter(None, (what(entry), how_far(entry)))),
            )
            for entry in found
        ]
        if rows:
            output.table(rows)


def write_cancelled(output: Output, before: Entry, after: Entry, peer: str) -> ExitCode:
    """Write what has become of an entry that was cancelled, and return what that means.

    Args:
        output: where to.
        before, after: the entry.
        peer: the recipient's name.
    """
    left, withdrawn = (
        after.states[state] - before.states[state] for state in (State.UNCONFIRMED, State.WITHDRAWN)
    )
    code = ExitCode.UNCONFIRMED if left else ExitCode.OK
    if output.json:
        output.result(
            {
                "status": "unconfirmed" if left else "withdrawn",
                "item": after.name or "text",
                "id": to_text(after.id),
                "peer": peer,
                "withdrawn": withdrawn,
                "unconfirmed": left,
                "exit": int(code),
            }
        )
        return code
    named = before.name or f'"{shorten(one_line(before.excerpt), 30)}"'
    if not left:
        output.note(f"cancelled: {named} for {peer}")
    elif before.kind == "folder" and withdrawn:
        output.warn(f"{named}: {left} of {left + withdrawn} may have arrived at {peer}")
    else:
        output.warn(f"{named} had left for {peer} and may have arrived; it does not go again")
    return code


def what(entry: Entry) -> str:
    """Say what an entry is, in one line."""
    if entry.kind == "text":
        return one_line(entry.excerpt) or "a text"
    counts = [size(entry.size)] if entry.kind == "file" else []
    name = entry.name
    if entry.kind == "folder":
        name += "/"
        counts = contents(entry.files, entry.folders, entry.size)
    return f"{name} ({', '.join(counts)})" if counts else name


def how_far(entry: Entry) -> str | None:
    """Say how much of a folder is how far; None if all of it is equally far."""
    if len(entry.states) == 1:
        return None
    return ", ".join(
        f"{entry.states[state]} {_word(state)}" for state in State if entry.states[state]
    )


def _write_for_a_person(
    output: Output, found: Sequence[Entry], name_of: Callable[[bytes], str], now: int
) -> None:
    rows, below = [], []
    for entry, following in itertools.zip_longest(found, found[1:]):
        state, peer, *rest = _cells(entry, name_of(entry.peer), now)
        coloured = Styled(state, _STYLES[entry.state]) if entry.state in _STYLES else state
        rows.append([coloured, shorten(peer, MOST_NAME), *rest, what(entry)])
        lines = [to_text(entry.id)] if output.verbose else []
        if (far := how_far(entry)) is not None:
            lines.append(far)
        # A peer that is away is the reason for all that waits for it: it is said once.
        is_last = following is None or (following.peer, following.reason) != (
            entry.peer,
            entry.reason,
        )
        if entry.reason is not None and (is_last or output.verbose):
            lines.append(entry.reason)
        below.append(lines)
    if rows:
        output.table(rows, header=_HEADER, below=below)


def _cells(entry: Entry, peer: str, now: int) -> tuple[str, ...]:
    age = _roughly(_age(entry, now))
    # Rounded up: what was to wait for 30 days is not said to have 29.
    left = "-" if entry.left is None else _roughly(-(-entry.left // 60_000) * 60)
    return _word(entry.state, owned=entry.owned), peer, age, str(entry.tries), left


def _roughly(seconds: int) -> str:
    """A time in its largest unit alone."""
    return f"{seconds} s" if seconds < 10 else " ".join(duration(seconds).split()[:2])


def _word(state: State, *, owned: bool = False) -> str:
    if owned and state is State.WAITING:
        return "sending"
    return _WORDS.get(state, str(state))


def _age(entry: Entry, now: int) -> int:
    """In seconds."""
    return max(now - entry.sent_at, 0) // 1000


def _as_json(entry: Entry, peer: str, now: int) -> dict[str, Any]:
    return {
        "id": to_text(entry.id),
        "peer": peer,
        "peer_id": PublicKey(entry.peer).peer_id,
        "item": entry.name or "text",
        "kind": entry.kind,
        "excerpt": entry.excerpt or None,
        "files": entry.files,
        "bytes": entry.size,
        "state": entry.state,
        "states": {state: entry.states[state] for state in State if entry.states[state]},
        "owned": entry.owned,
        "sent_at": rfc3339(entry.sent_at),
        "age": _age(entry, now),
        "attempts": entry.tries,
        "reason": entry.reason,
        "expires_in": None if entry.left is None else entry.left // 1000,
    }
