"""What goes to a terminal, to a pipe, and to nobody."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink.cli.output import Output, Style, Styled, code_of
from securelink.cli.text import escape, escape_line, shorten, width, wrap
from securelink.errors import BadPeerId, ConfigError, UnsafeKeyFile, UsageError

KEPT = "\n\t\u200c\u200d\ufe0e\ufe0f"

# Format characters that have a shape of their own, or belong to hieroglyphs.
VISIBLE_FORMAT = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
VISIBLE_FORMAT |= {*range(0x13430, 0x13440)}

# Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties.txt) that is in no category below.
IGNORABLE = {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180F, 0x2065, 0x3164, 0xFFA0}
IGNORABLE |= {*range(0x180B, 0x180E), *range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9)}
IGNORABLE |= {*range(0xE0000, 0xE1000)}


def is_unsafe(char: str) -> bool:
    if char in KEPT:
        return False
    if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp"):
        return True
    code = ord(char)
    return code in IGNORABLE or (unicodedata.category(char) == "Cf" and code not in VISIBLE_FORMAT)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def an_output(*, terminal: bool, environ=None, **options) -> Output:
    make = Terminal if terminal else io.StringIO
    environ = {"TERM": "xterm"} if environ is None else environ
    return Output(stdout=make(), stderr=make(), environ=environ, **options)


def printed(output: Output) -> str:
    return output.stdout._stream.getvalue()


def prose(output: Output) -> str:
    return output.stderr._stream.getvalue()


def test_exactly_the_unsafe_characters_are_escaped():
    escaped = {code for code in range(0x110000) if escape(chr(code)) != chr(code)}
    assert escaped == {code for code in range(0x110000) if is_unsafe(chr(code))}


@given(st.text(st.characters(), max_size=60) | st.text("\x1b\r\n\t\u202e\u200b\u200da\U000e0041"))
def test_nothing_unsafe_is_left_and_nothing_safe_is_touched(text):
    escaped = escape(text)
    assert not any(map(is_unsafe, escaped))
    assert escaped == "".join(escape(char) if is_unsafe(char) else char for char in text)
    on_one_line = escape_line(text)
    assert on_one_line == escape(on_one_line)
    assert "\n" not in on_one_line
    assert "\t" not in on_one_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\r\nb", "a\\x0d\nb"),
        ("\u202eabc", r"\u202eabc"),
        ("\U000e0041", r"\U000e0041"),
        ("\x9b31m", r"\x9b31m"),
        ("می‌خواهم 👩‍🚀 ❤️\n\t.", "می‌خواهم 👩‍🚀 ❤️\n\t."),
    ],
)
def test_how_escapes_look(text, expected):
    assert escape(text) == expected


def test_a_terminal_gets_escapes_and_colours():
    output = an_output(terminal=True)
    output.line("14:05 ", Styled("bo\x07b", Style.BOLD), " \x1b]0;x\x07")
    assert printed(output) == "14:05 \x1b[1mbo\\x07b\x1b[0m \\x1b]0;x\\x07\n"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_where_they_are_not_wanted(environ):
    output = an_output(terminal=True, environ=environ)
    output.line(Styled("bob\x07", Style.BOLD))
    assert printed(output) == "bob\\x07\n"


def test_an_empty_no_color_is_none():
    output = an_output(terminal=True, environ={"NO_COLOR": ""})
    output.line(Styled("bob", Style.BOLD))
    assert printed(output) == "\x1b[1mbob\x1b[0m\n"


def test_a_pipe_gets_the_text_as_it_is():
    output = an_output(terminal=False)
    output.line(Styled("bob", Style.BOLD), " \x1b[2J\u202e")
    assert printed(output) == "bob \x1b[2J\u202e\n"


def test_prose():
    output = an_output(terminal=False)
    output.note("said")
    output.detail("not said")
    output.warn("careful")
    assert prose(output) == "said\nsecurelink: warning: careful\n"
    assert printed(output) == ""


def test_quiet_silences_prose_not_warnings():
    output = an_output(terminal=False, quiet=True, verbose=2)
    output.note("said")
    output.detail("said")
    output.warn("careful")
    assert prose(output) == "securelink: warning: careful\n"


def test_verbose_adds_details():
    output = an_output(terminal=False, verbose=1)
    output.detail("said")
    assert prose(output) == "said\n"


def test_prose_that_nobody_reads_is_given_up():
    class Gone(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            raise BrokenPipeError

    gone = Gone()
    output = Output(stdout=io.StringIO(), stderr=gone)
    output.note("one")
    output.note("two")
    assert gone.writes == 1


def test_results_in_json_are_utf_8_whatever_the_locale():
    raw = io.BytesIO()
    output = Output(stdout=io.TextIOWrapper(raw, "ascii"), stderr=io.StringIO())
    output.line("grüße")
    output.result({"text": "grüße\u202e"})
    output.raw(b"\xff\x00")
    first, second, rest = raw.getvalue().split(b"\n")
    assert first == rb"gr\xfc\xdfe"
    assert json.loads(second) == {"text": "grüße\u202e"}
    assert rest == b"\xff\x00"


def test_a_stream_without_bytes_gets_json_too():
    output = an_output(terminal=False)
    output.result({"a": None})
    assert printed(output) == '{"a":null}\n'


def test_a_process_without_standard_streams_goes_on(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    output = Output()
    output.line("a")
    output.note("b")
    output.result({})
    assert not output.is_terminal


def test_failures():
    output = an_output(terminal=False)
    output.failure(ConfigError("wrong"))
    output.failure(ConfigError("wrong", hint="do right"), label="internal error")
    assert prose(output) == (
        "securelink: error: wrong\nsecurelink: internal error: wrong\nhint: do right\n"
    )


def test_a_failure_is_one_line_whatever_it_quotes():
    output = an_output(terminal=False)
    output.failure(UsageError("no peer is called a\nsecurelink: b\t\x1b[31m", hint="right"))
    assert prose(output) == (
        "securelink: error: no peer is called a\\x0asecurelink: b\\x09\\x1b[31m\nhint: right\n"
    )


def test_failures_are_told_to_scripts_even_when_quiet():
    output = an_output(terminal=False, json=True, quiet=True)
    output.failure(UnsafeKeyFile("odd \udcff"))
    output.failure(UsageError("wrong", hint="right"))
    assert [json.loads(line) for line in printed(output).splitlines()] == [
        {
            "status": "failed",
            "code": "unsafe-key-file",
            "error": r"odd \udcff",
            "hint": None,
            "exit": 1,
        },
        {"status": "failed", "code": "usage", "error": "wrong", "hint": "right", "exit": 2},
    ]
    assert prose(output) == ""


def test_the_words_for_scripts():
    assert code_of(BadPeerId("x")) == "bad-peer-id"
    assert code_of(ConfigError("x")) == "config"


def test_tables_are_aligned_by_what_is_seen():
    output = an_output(terminal=False)
    output.table(
        [["日本", "x"], [Styled("bob", Style.BOLD), "y", "z"], ["e\u0301"]],
        header=["name", "what"],
    )
    assert printed(output).splitlines() == ["name  what", "日本  x", "bob   y     z", "e\u0301"]


def test_a_table_of_nothing():
    output = an_output(terminal=False)
    output.table([])
    assert printed(output) == ""


@pytest.mark.parametrize(("columns", "longest"), [("80", 80), ("40", 40), ("1", 12 + 8)])
def test_the_last_column_is_cut_on_a_terminal(columns, longest, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    output = an_output(terminal=True)
    output.table([["0123456789", Styled("long " * 30, Style.DIM)], ["a", "b\n"]])
    first, second = printed(output).splitlines()
    first = first.replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert len(first) == longest
    assert first.endswith("…")
    assert second == r"a           b\x0a"


def test_nothing_is_cut_in_a_pipe(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    output = an_output(terminal=False)
    output.table([["a", "b" * 100]])
    assert printed(output) == "a  " + "b" * 100 + "\n"


@given(st.text("a日\u0301👩", max_size=30), st.integers(1, 20))
def test_shortening(text, columns):
    short = shorten(text, columns)
    assert width(short) <= columns
    assert (short == text) == (width(text) <= columns)
    assert text.startswith(short.removesuffix("…"))


@pytest.mark.parametrize(
    ("text", "columns", "before", "lines"),
    [
        ("one two three four five six", None, 0, ["one two three four five six"]),
        ("one two three four five six", 27, 0, ["one two three four five six"]),
        ("one two three four five six", 26, 0, ["one two three four five", "six"]),
        ("one two three four five six", 30, 4, ["one two three four five", "    six"]),
        # Nothing is cut, nor put into a column too narrow to be read.
        ("a/path/that/no/line/has/room/for x", 20, 0, ["a/path/that/no/line/has/room/for", "x"]),
        ("one two three four five six", 8, 4, ["one two three four", "    five six"]),
    ],
)
def test_wrapping(text, columns, before, lines):
    assert wrap(text, columns, before=before).split("\n") == lines
