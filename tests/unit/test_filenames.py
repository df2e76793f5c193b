from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from securelink.filenames import (
    LONGEST_COMPONENT,
    LONGEST_NAME,
    MOST_COMPONENTS,
    OWN_FOLDER,
    components,
    numbered,
)

HOSTILE = st.sampled_from(
    (
        *("", ".", "..", "...", " ", "/", "\\", "C:", "con", "NUL.txt", "aux .c", "com¹", "~"),
        *(OWN_FOLDER, ".Partial", "\0", "\n", "\x1b[2J", "\u202e", "\u200d", "\ufe0f", "\ud800"),
        *("\u3164", "\u00a0", "é", "👩", "a", ".tar.gz", ".jpg", "x" * 130, "ü" * 130, "日" * 90),
    )
)
NAMES = st.lists(HOSTILE | st.text(max_size=5), max_size=12).map("".join) | st.lists(
    HOSTILE | st.text(), max_size=6
).map("/".join)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.txt", "a.txt"),
        ("photos/2026/a b.jpg", "photos/2026/a b.jpg"),
        (".bashrc", ".bashrc"),
        ("Zoë/日本語.txt", "Zoë/日本語.txt"),
        ("C:\\Windows\\x", "C__Windows_x"),
        ("..\\..\\x", ".._.._x"),
        ('a*b?c"d<e>f|g', "a_b_c_d_e_f_g"),
        ("a\nb\x7f\x9b", "a_b__"),
        ("invoice\u202efdp.exe", "invoice_fdp.exe"),
        ("a\u200b\ufeff\xad", "a___"),
        ("\u061ca\u2066b\u2069\ufff9c\ufffb", "_a_b__c_"),
        ("\u3164\u115f\u2800", "___"),
        ("\udcff\ud800", "__"),
        ("\U000e0061", "_"),
        ("...", "___"),
        (".. ", "___"),
        ("a.", "a_"),
        ("a. .", "a___"),
        ("  a\t", "__a_"),
        ("\u00a0a\u3000", "_a_"),
        ("Screenshot 3.14\u202fPM.png", "Screenshot 3.14\u202fPM.png"),
        ("CON", "_CON"),
        ("con.tar.gz", "_con.tar.gz"),
        ("nul .txt", "_nul .txt"),
        ("Com1", "_Com1"),
        ("com².x", "_com².x"),
        ("prn.txt", "_prn.txt"),
        ("lpt³.x", "_lpt³.x"),
        ("conin$", "_conin$"),
        ("x/aux/y", "x/_aux/y"),
        ("console", "console"),
        ("com10", "com10"),
        (".partial/x.part", "_.partial/x.part"),
        (".PARTIAL", "_.PARTIAL"),
        (".par\u200dtial", ".par_tial"),
        ("x/.partial", "x/.partial"),
        ("👩\u200d💻.txt", "👩\u200d💻.txt"),
        ("🏳\ufe0f\u200d🌈", "🏳\ufe0f\u200d🌈"),
        ("\u0645\u06cc\u200c\u0631\u0648\u062f", "\u0645\u06cc\u200c\u0631\u0648\u062f"),
        ("a\u200db", "a_b"),
        ("é\u200c", "é_"),
        ("é\u200d\u200d\u200dé", "é___é"),
        ("é\ufe0f\ufe0f", "é\ufe0f_"),
        ("a\ufe0f", "a_"),
        ("a\ufe0f\u200dé", "a__é"),
        ("\xa0\ufe0f", "__"),
        ("\u3000\u200dé", "__é"),
    ],
)
def test_awkward_names_are_made_safe(name: str, safe: str) -> None:
    assert "/".join(components(name)) == safe


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", "a file's name holds a zero byte"),
        ("", "a file's name leads elsewhere"),
        ("/etc/passwd", "a file's name leads elsewhere"),
        ("a//b", "a file's name leads elsewhere"),
        ("a/", "a file's name leads elsewhere"),
        ("..", "a file's name leads elsewhere"),
        ("a/../b", "a file's name leads elsewhere"),
        ("./a", "a file's name leads elsewhere"),
        ("x/" * 100 + "x", "a file lies more than 100 folders deep"),
        ("é" * 2048 + "x", "a file's name is longer than 4096 bytes"),
        ("\ud800" * 1366, "a file's name is longer than 4096 bytes"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match="a file") as raised:
        components(name)
    assert str(raised.value) == message


def test_as_long_and_as_deep_as_may_be() -> None:
    assert len(components("x/" * (MOST_COMPONENTS - 1) + "x")) == MOST_COMPONENTS
    assert len(components("é" * (LONGEST_NAME // 2))) == 1
    whole = "x" * (LONGEST_COMPONENT - 4) + ".txt"
    assert components(whole) == (whole,)


def test_a_long_component_keeps_its_beginning_and_its_extension() -> None:
    (short,) = components("日" * 100 + ".tar.gz")
    assert len(short.encode()) <= LONGEST_COMPONENT
    assert short.startswith("日" * 70)
    assert short.endswith(".tar.gz")
    (other,) = components("日" * 101 + ".tar.gz")
    assert short != other


def test_what_is_cut_ends_in_what_can_be_seen() -> None:
    (short,) = components("x" * 226 + "é\u200dé" * 10)
    assert short[:227] == "x" * 226 + "é"
    assert short[227] == "~"
    (short,) = components("x" * 220 + " . " * 30 + "y")
    assert short[220] == "~"


def test_the_limits_leave_room_for_a_number() -> None:
    assert (LONGEST_NAME, LONGEST_COMPONENT, MOST_COMPONENTS) == (4096, 240, 100)


def test_a_long_extension_is_none() -> None:
    assert numbered("a." + "x" * 16, 2) == "a (2)." + "x" * 16
    assert numbered("a." + "x" * 17, 2) == "a." + "x" * 17 + " (2)"
    (short,) = components("a." + "x" * 300)
    assert short.startswith("a.xxx")
    assert short[-9] == "~"


@given(NAMES)
@example("x" * 231 + "é\u200dé")
@example("CON" + " " * 300 + ".x")
def test_whatever_comes_stays_in_the_folder(name: str) -> None:
    parts = name.split("/")
    if (
        {"", ".", ".."} & set(parts)
        or "\0" in name
        or len(parts) > MOST_COMPONENTS
        or len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME
    ):
        with pytest.raises(ValueError, match=r"^a file[^\n]+$"):
            components(name)
        return
    safe = components(name)
    assert len(safe) == name.count("/") + 1
    for each in safe:
        assert 0 < len(each.encode()) <= LONGEST_COMPONENT
        assert not set('/\\:*?"<>|') & set(each)
        assert not any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in each)
        assert each == each.strip() == each.rstrip(".")
        assert each not in {".", ".."}
        assert each.partition(".")[0].strip().upper() not in {"CON", "NUL", "AUX", "COM1"}
        assert any(unicodedata.category(char) not in {"Cf", "Zs"} for char in each)
    assert safe[0].casefold() != OWN_FOLDER
    assert components("/".join(safe)) == safe


@given(st.text(min_size=1, max_size=20), st.integers(min_value=0, max_value=80))
def test_long_names_that_differ_stay_apart(text: str, more: int) -> None:
    long = "x" * (LONGEST_COMPONENT + 1 + more)
    try:
        one, other = components(f"{long}{text}a"), components(f"{long}{text}b")
    except ValueError:
        return
    assert one != other


@pytest.mark.parametrize(
    ("component", "second"),
    [
        ("a.txt", "a (2).txt"),
        ("photos", "photos (2)"),
        ("archive.tar.gz", "archive (2).tar.gz"),
        ("song.mp3", "song (2).mp3"),
        ("old.7z", "old (2).7z"),
        (".bashrc", ".bashrc (2)"),
        (".tar.gz", ".tar (2).gz"),
        ("v1.2", "v1.2 (2)"),
        ("photos.2026", "photos.2026 (2)"),
        ("Dr. Who", "Dr. Who (2)"),
        ("a.b c", "a.b c (2)"),
        ("a (2).txt", "a (2) (2).txt"),
        ("x" * 255, "x" * 251 + " (2)"),
        ("é" * 125 + ".txt", "é" * 123 + " (2).txt"),
    ],
)
def test_a_number_goes_before_the_extension(component: str, second: str) -> None:
    assert numbered(component, 2) == second


@given(NAMES, st.integers(min_value=2, max_value=10_000))
def test_a_numbered_name_is_as_safe(name: str, number: int) -> None:
    try:
        safe = components(name)
    except ValueError:
        return
    for each in safe:
        result = numbered(each, number)
        assert f" ({number})" in result
        assert len(result.encode()) <= 255
        if len(result.encode()) <= LONGEST_COMPONENT:
            assert components(f"x/{result}") == ("x", result)
