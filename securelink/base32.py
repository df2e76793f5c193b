"""Base32 (RFC 4648, section 6) for texts that people copy: written one way, read forgivingly.

Peer IDs, invites and the key file share this reading, so all of them forgive the same things:
either case, line wraps, dashes, quotes, invisible characters that a chat program or a web page
slipped in, and the three digits that the alphabet lacks because they look like letters.
"""

from __future__ import annotations

import base64
import unicodedata

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"

# 0, 1 and 8 are not in the alphabet, so whoever typed one saw the letter that it looks like.
_MENDED = {"0": "o", "1": "i", "8": "b"}

# Separators, controls, invisible format characters, dashes and typographic quotes.
_DROPPED_CATEGORIES = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Pd", "Pi", "Pf"})

# What Unicode files elsewhere: plain quotes, the minus sign, the marks of a mail quotation, and
# the invisible ones among letters and marks (Hangul fillers, grapheme joiner, variations).
_DROPPED = frozenset(
    "\"'`\u00b4\u201a\u201e\u2212<>\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
    + "".join(map(chr, range(0xFE00, 0xFE10)))
)

# The bits left over after the last whole byte, for each number of characters modulo 8; other
# numbers of characters are never the result of encoding.
_SPARE_BITS = {0: 0, 2: 2, 4: 4, 5: 1, 7: 3}


def encode(data: bytes) -> str:
    """Return *data* in lower case, without padding."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def clean(text: str) -> str:
    """Return *text* in lower case, without all that people and programs put between.

    Characters outside the alphabet that are neither dropped nor mended stay, for the caller to
    complain about.
    """
    return "".join(
        _MENDED.get(char, char)
        for char in text.lower()
        if char not in _DROPPED and unicodedata.category(char) not in _DROPPED_CATEGORIES
    )


def foreign(text: str) -> str | None:
    """Return the first character of the cleaned *text* that base32 does not have, or None."""
    return next((char for char in text if char not in ALPHABET), None)


def decode(text: str) -> bytes:
    """Return the bytes that *text* stands for, after cleaning it.

    Each byte string has exactly one cleaned text, so two texts never stand for the same bytes.

    Raises:
        ValueError: for a character outside the alphabet, a number of characters that no byte
            string encodes to, or bits set after the last whole byte.
    """
    text = clean(text)
    spare = _SPARE_BITS.get(len(text) % 8)
    if spare is None:
        raise ValueError(f"no bytes have {len(text)} characters of base32")
    data = decode_prefix(text)
    if text and ALPHABET.index(text[-1]) & ((1 << spare) - 1):
        raise ValueError("bits are set after the last byte")
    return data


def decode_prefix(text: str) -> bytes:
    """Return the whole bytes that a cleaned *text*, cut at any place, still holds.

    Raises:
        ValueError: for a character outside the alphabet.
    """
    if foreign(text) is not None:
        raise ValueError("a character outside the base32 alphabet")
    padded = text.upper() + "A" * (-len(text) % 8)
    return base64.b32decode(padded)[: len(text) * 5 // 8]
