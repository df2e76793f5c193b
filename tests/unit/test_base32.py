from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink import base32

# RFC 4648, section 10, without padding and in lower case.
RFC_VECTORS = {
    b"": "",
    b"f": "my",
    b"fo": "mzxq",
    b"foo": "mzxw6",
    b"foob": "mzxw6yq",
    b"fooba": "mzxw6ytb",
    b"foobar": "mzxw6ytboi",
}


@pytest.mark.parametrize(("data", "text"), RFC_VECTORS.items())
def test_vectors_of_the_rfc(data: bytes, text: str) -> None:
    assert base32.encode(data) == text
    assert base32.decode(text) == data


@given(st.binary(max_size=80))
def test_what_is_encoded_decodes(data: bytes) -> None:
    assert base32.decode(base32.encode(data)) == data


@given(st.text(alphabet=base32.ALPHABET, max_size=40))
def test_a_text_decodes_only_if_it_is_what_its_bytes_encode_to(text: str) -> None:
    try:
        data = base32.decode(text)
    except ValueError:
        whole = base32.decode_prefix(text)
        assert base32.encode(whole) != text
    else:
        assert base32.encode(data) == text


@pytest.mark.parametrize("text", ["m", "mzx", "mzxw6y"])
def test_impossible_numbers_of_characters(text: str) -> None:
    with pytest.raises(ValueError, match=f"{len(text)} characters"):
        base32.decode(text)


@pytest.mark.parametrize("text", ["mz", "m2", "mzxr", "mzxy", "mzxw7", "mzxw6yr", "mzxw6yu"])
def test_bits_after_the_last_byte(text: str) -> None:
    with pytest.raises(ValueError, match="bits"):
        base32.decode(text)


@pytest.mark.parametrize("text", ["m9", "mü", "m=", "m/", "ma\N{KELVIN SIGN}9"])
def test_foreign_characters(text: str) -> None:
    with pytest.raises(ValueError, match="outside"):
        base32.decode(text)
    assert base32.foreign(base32.clean(text)) == text[-1]


BETWEEN = {
    "space": " ",
    "no-break space": "\N{NO-BREAK SPACE}",
    "ideographic space": "\N{IDEOGRAPHIC SPACE}",
    "tab": "\t",
    "line feed": "\n",
    "line wrap of Windows": "\r\n",
    "line separator": "\u2028",
    "form feed": "\f",
    "escape": "\x1b",
    "hyphen": "-",
    "non-breaking hyphen": "\N{NON-BREAKING HYPHEN}",
    "en dash": "\N{EN DASH}",
    "em dash": "\N{EM DASH}",
    "minus sign": "\N{MINUS SIGN}",
    "quotation mark": '"',
    "apostrophe": "'",
    "backtick": "`",
    "typographic quotes": "\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb\u2039\u203a",
    "mail quotation": "\n> ",
    "angle brackets": "<>",
    "soft hyphen": "\N{SOFT HYPHEN}",
    "zero width space": "\N{ZERO WIDTH SPACE}",
    "zero width joiners": "\u200c\u200d",
    "byte order mark": "\ufeff",
    "word joiner": "\N{WORD JOINER}",
    "bidirectional marks": "\u200e\u200f\u202a\u202e\u2066\u2069",
    "grapheme joiner": "\u034f",
    "variation selector": "\N{VARIATION SELECTOR-16}",
    "Hangul filler": "\N{HANGUL FILLER}",
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN.keys())
def test_what_stands_between_is_dropped(between: str) -> None:
    text = between + between.join("MZXW6YTBOI") + between
    assert base32.clean(text) == "mzxw6ytboi"
    assert base32.decode(text) == b"foobar"


def test_digits_that_look_like_letters_are_mended() -> None:
    assert base32.clean("0O 1I 8B 9") == "ooiibb9"


@given(st.text())
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = base32.clean(text)
    assert base32.clean(once) == once


@given(st.binary(max_size=40), st.data())
def test_a_prefix_gives_a_prefix(data: bytes, draw: st.DataObject) -> None:
    text = base32.encode(data)
    cut = draw.draw(st.integers(0, len(text)))
    assert base32.decode_prefix(text[:cut]) == data[: cut * 5 // 8]
