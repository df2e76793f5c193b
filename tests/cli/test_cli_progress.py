"""The line of progress: what it says, how it fits, and that it is never in the way."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import os
import termios
import threading
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from terminals import PATIENCE, Terminal

from securelink.cli.output import Output
from securelink.cli.progress import INTERVAL, ProgressLine, line, shown
from securelink.cli.text import width
from securelink.progress import Phase, Reading, Snapshot

XTERM = {"TERM": "xterm"}
NOTHING = Reading(None, None, None)
MOVING = Reading(85_100_000.0, 2.4, None)


def a_snapshot(**changes) -> Snapshot:
    known = {
        "name": "photos/a.jpg",
        "phase": Phase.MOVING,
        "done": 120_300_000,
        "moved": 20_300_000,
        "size": 287_000_000,
    }
    return Snapshot(**known | changes)


RESUMED = a_snapshot(resumed=100_000_000)


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


@contextmanager
def an_output(terminal: Terminal, environ=XTERM, **options):
    out, err = terminal.stream(), terminal.stream()
    with out, err:
        yield Output(stdout=out, stderr=err, environ=environ, **options)


def in_loop(test):
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE))

    return run


# ---- what it says


@pytest.mark.parametrize(
    ("snapshot", "reading", "expected"),
    [
        (
            RESUMED,
            MOVING,
            "photos/a.jpg  41% 120 MB of 287 MB (100 MB resumed)  85 MB/s  0:02 left",
        ),
        (a_snapshot(), NOTHING, "photos/a.jpg  41% 120 MB of 287 MB"),
        (a_snapshot(size=None), Reading(5e6, None, None), "photos/a.jpg  120 MB  5.0 MB/s"),
        (
            a_snapshot(files=12, files_done=3),
            MOVING,
            "3 of 12 files  41% 120 MB of 287 MB  85 MB/s  0:02 left",
        ),
        (a_snapshot(files=None, files_done=3, size=None), NOTHING, "3 files  120 MB"),
        (
            a_snapshot(),
            Reading(0.0, None, 7.2),
            "photos/a.jpg  41% 120 MB of 287 MB  stalled for 7 s",
        ),
        (
            a_snapshot(phase=Phase.COMPARING),
            NOTHING,
            "photos/a.jpg  41% 120 MB of 287 MB  comparing",
        ),
        (
            a_snapshot(phase=Phase.CONNECTING, done=0),
            NOTHING,
            "photos/a.jpg  0% 0 B of 287 MB  connecting",
        ),
        (
            a_snapshot(done=287_000_000),
            NOTHING,
            "photos/a.jpg  99% 287 MB of 287 MB  finishing",
        ),
        (a_snapshot(done=0, size=0), NOTHING, "photos/a.jpg  0 B of 0 B  finishing"),
    ],
)
def test_what_it_says(snapshot, reading, expected):
    assert line("photos/a.jpg", snapshot, reading, 79) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.2, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00")],
)
def test_the_time_left(seconds, expected):
    assert line("a", a_snapshot(), Reading(1.0, seconds, None), 79).endswith(f"  {expected} left")


def test_more_time_than_anybody_waits():
    assert line("a", a_snapshot(), Reading(1.0, 1e300, None), 79).endswith("  days left")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (80, "photos/2026/a.jpg  41% 120 MB of 287 MB (100 MB resumed)  85 MB/s  0:02 left"),
        (72, "../2026/a.jpg  41% 120 MB of 287 MB (100 MB resumed)  85 MB/s  0:02 left"),
        (60, "photos/2026/a.jpg  41% 120 MB of 287 MB  85 MB/s  0:02 left"),
        (50, "photos/2026/a.jpg  41%  85 MB/s  0:02 left"),
        (30, "..s/2026/a.jpg  41%  0:02 left"),
        (19, "..s/2026/a.jpg  41%"),
        (12, "41%"),
        (2, "41"),
    ],
)
def test_what_matters_least_goes_first(columns, expected):
    assert line("photos/2026/a.jpg", RESUMED, MOVING, columns) == expected


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (60, "3 of 12 files  41% 120 MB of 287 MB  stalled for 7 s"),
        (35, "3 of 12 files  41%  stalled for 7 s"),
        (30, "3 of 12 files  stalled for 7 s"),
        (19, "stalled for 7 s"),
        (7, "stalled"),
    ],
)
def test_that_nothing_moves_is_said_to_the_last(columns, expected):
    snapshot = a_snapshot(files=12, files_done=3)
    assert line("", snapshot, Reading(0.0, None, 7.0), columns) == expected


@given(
    st.text(max_size=40),
    st.integers(1, 120),
    st.sampled_from(Phase),
    st.sampled_from([1, None, 10_000]),
    st.sampled_from([None, 0, 10**13]),
    st.sampled_from([NOTHING, MOVING, Reading(1.0, None, 1000.0)]),
)
def test_it_is_never_wider_than_there_is_room(name, columns, phase, files, size, reading):
    name = Output(stderr=io.StringIO(), stdout=io.StringIO()).stderr.fit(name)
    snapshot = a_snapshot(phase=phase, files=files, size=size, resumed=1)
    text = line(name, snapshot, reading, columns)
    assert width(text) <= columns
    assert "\n" not in text


# ---- on a terminal


class Show:
    """What a `ProgressLine` looks at, and when."""

    def __init__(self, output: Output, **changes) -> None:
        self.snapshot: Snapshot | None = a_snapshot(**changes)
        self.now = 0.0
        self.line = ProgressLine(output, lambda: self.snapshot, clock=lambda: self.now)


@pytest.mark.parametrize("columns", [80, 20])
def test_one_line_is_written_anew(columns, terminal):
    terminal.resize(columns)
    with an_output(terminal) as output:
        show = Show(output, done=0, moved=0)
        show.line.tick()
        terminal.shows(r"a\.jpg  0%")
        for percent in (41, 9):
            show.snapshot = a_snapshot(done=2_870_000 * percent)
            show.line.tick()
            terminal.shows(rf"^\S*a\.jpg  {percent}%( 2?\d+ MB of 287 MB)?$")
        show.line.end()
        terminal.wait(lambda lines: lines == [""] or None, "empty line")
    assert len(terminal.drawn) == 3
    assert not terminal.overflowed


def test_the_terminal_is_made_narrower_and_wider(terminal):
    with an_output(terminal) as output:
        name = "photos/" * 20 + "a.jpg"
        show = Show(output, name=name)
        for columns in (80, 30, 120):
            terminal.resize(columns)
            show.line.tick()
            expected = line(name, a_snapshot(), NOTHING, columns - 1)
            assert width(expected) == columns - 1
            terminal.wait(lambda lines, text=expected: lines == [text] or None, expected)
    assert not terminal.overflowed


def test_other_lines_take_it_away_and_it_comes_back(terminal):
    with an_output(terminal) as output:
        show = Show(output)
        output.keep_clear(show.line.away)
        show.line.tick()
        output.note("a note")
        show.line.tick()
        output.warn("a warning")
        output.line("a result")
        output.raw(b"raw\n")
        show.line.tick()
        expected = ["a note", "securelink: warning: a warning", "a result", "raw"]
        terminal.wait(
            lambda lines: (lines[:-1] == expected and lines[-1].startswith("photos")) or None,
            "four lines above the progress",
        )
        output.keep_clear(None)
        output.note(" and more")
        terminal.shows("287 MB and more$")


def test_a_log_in_another_thread_takes_it_away_too(terminal):
    from securelink.cli.logs import LogThread

    with an_output(terminal) as output:
        show = Show(output)
        show.line.tick()
        log = LogThread(terminal.slave)
        with log.kept_clear(show.line.away):
            log.say("a log line")
            log.flush()
            show.line.tick()
        terminal.wait(
            lambda lines: (lines[0] == "a log line" and lines[1].startswith("photos")) or None,
            "log line above the progress",
        )
        show.line.end()
        log.say("and one more")
        log.flush()
        terminal.shows("^and one more$")


def test_nothing_is_drawn_while_somebody_else_writes(terminal):
    with an_output(terminal) as output:
        show = Show(output)
        held, drawn = threading.Event(), threading.Event()

        def write() -> None:
            with show.line.away():
                held.set()
                drawn.wait()

        thread = threading.Thread(target=write)
        thread.start()
        held.wait()
        show.line.tick()
        show.line.end()
        drawn.set()
        thread.join()
        output.note("the only line")
        terminal.shows("the only line")
    assert terminal.drawn == []


def test_a_terminal_that_stands_still_holds_up_nothing(terminal):
    with an_output(terminal) as output:
        show = Show(output)
        show.line.tick()
        terminal.shows("41%")
        termios.tcflow(terminal.slave, termios.TCOOFF)  # what Ctrl-S does
        try:
            for _ in range(100):
                show.line.tick()
            show.line.end()
        finally:
            termios.tcflow(terminal.slave, termios.TCOON)
        show.snapshot = a_snapshot(done=0)
        show.line.tick()
        terminal.shows("0%")
    assert len(terminal.drawn) == 2


@pytest.mark.parametrize(
    ("encoding", "name", "shown_as"),
    [
        ("utf-8", "\x1b[2J\u202egpj.exe", r"\x1b[2J\u202egpj.exe"),
        ("utf-8", "日本/語.txt", "日本/語.txt"),
        ("ascii", "日本.txt", r"\u65e5\u672c.txt"),
        ("latin-1", "é/日", r"é/\u65e5"),
        ("utf-8", "a\nb\udcff", r"a\x0ab\udcff"),
    ],
)
def test_names_that_do_not_fit_the_terminal(encoding, name, shown_as):
    terminal = Terminal(60, encoding)
    try:
        with an_output(terminal) as output:
            Show(output, name=name, size=None).line.tick()
            terminal.wait(
                lambda lines: lines == [f"{shown_as}  120 MB"] or None,
                shown_as,
            )
    finally:
        terminal.close()


def test_nothing_to_show(terminal):
    with an_output(terminal) as output:
        show = Show(output)
        show.snapshot = None
        show.line.tick()
        show.snapshot = a_snapshot()
        show.line.tick()
        terminal.shows("41%")
        show.snapshot = None
        show.line.tick()
        terminal.wait(lambda lines: lines == [""] or None, "empty line")
    assert len(terminal.drawn) == 1


def test_what_comes_next_is_measured_afresh(terminal):
    with an_output(terminal) as output:
        show = Show(output)
        for moved in (0, 1000):
            show.snapshot = a_snapshot(moved=moved)
            show.now += 1
            show.line.tick()
        terminal.shows("1.0 kB/s")
        show.snapshot = None
        show.line.tick()
        show.snapshot = a_snapshot(name="b", moved=2000)
        show.now += 1
        show.line.tick()
        terminal.shows("^b  41% 120 MB of 287 MB$")


# ---- for as long as something is under way


@in_loop
async def test_it_comes_by_itself_and_goes_in_the_end(terminal):
    with an_output(terminal) as output:
        async with shown(output, a_snapshot) as progress:
            assert progress is not None
            await asyncio.to_thread(terminal.shows, "41%")
            output.note("a note")
            await asyncio.to_thread(
                terminal.wait,
                lambda lines: (lines[0] == "a note" and "41%" in lines[-1]) or None,
                "line below the note",
            )
        output.note("the end")
        terminal.wait(lambda lines: lines == ["a note", "the end", ""] or None, "the end alone")
        for stream in (output.stdout, output.stderr):
            assert stream.guard is contextlib.nullcontext


@in_loop
async def test_what_is_done_at_once_shows_nothing(terminal):
    with an_output(terminal) as output:
        async with shown(output, a_snapshot):
            await asyncio.sleep(0)
        output.note("done")
        terminal.shows("done")
    assert terminal.drawn == []
    assert INTERVAL >= 0.1


@pytest.mark.parametrize(
    ("environ", "options"),
    [({"TERM": "dumb"}, {}), ({}, {}), (XTERM, {"quiet": True})],
    ids=["dumb", "no TERM", "quiet"],
)
@in_loop
async def test_where_it_is_not_wanted(environ, options, terminal):
    with an_output(terminal, environ, **options) as output:
        async with shown(output, a_snapshot) as progress:
            assert progress is None
    assert terminal.drawn == []


@in_loop
async def test_not_in_a_pipe():
    output = Output(stdout=io.StringIO(), stderr=io.StringIO(), environ=XTERM)
    async with shown(output, a_snapshot) as progress:
        assert progress is None


@in_loop
async def test_a_terminal_that_goes_away_ends_only_the_line():
    master, slave = os.openpty()
    stream = os.fdopen(slave, "w")
    try:
        output = Output(stdout=io.StringIO(), stderr=stream, environ=XTERM)
        looked = asyncio.Queue()

        def look() -> Snapshot:
            looked.put_nowait(None)
            return a_snapshot()

        async with shown(output, look):
            await looked.get()
            os.close(master)
            for _ in range(3):
                await looked.get()
    finally:
        with contextlib.suppress(OSError):
            stream.close()


@in_loop
async def test_an_error_in_the_look_is_no_secret(terminal):
    with an_output(terminal) as output:
        with pytest.raises(ZeroDivisionError):
            async with shown(output, lambda: 1 // 0):
                await asyncio.sleep(2 * INTERVAL)
        output.note("the guard is gone")
        terminal.shows("the guard is gone")
