"""X25519 keys, and peer IDs: the form in which people read, paste and compare public keys.

A peer ID is the base32 of the 32-byte public key, 52 characters in 4 groups of 13, each followed
by its Luhn mod 32 check character; the 56 characters are shown as 8 groups of 7.

Rules for public keys, kept wherever one enters the program (text, invite, store, wire):

- Canonical only: below p = 2^255 - 19, with the top bit clear. X25519 itself (RFC 7748, section
  5) would reduce other encodings, and then one node could appear under two different IDs.
- Not of low order: such a key makes every shared secret zero, whoever the other side is.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from securelink import base32
from securelink.errors import BadPeerId

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

KEY_SIZE = 32

_P = 2**255 - 19

# The u-coordinates of Curve25519's points of order 1, 2, 4 and 8 and of its twist's: all that
# are canonical (RFC 7748, section 7, asks to treat them as an attack).
_LOW_ORDER = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _P - 1,
    }
)

_CHECKED = 13  # characters under one check character
_SHOWN = 7  # characters between two dashes
_LENGTH = 56

_INVITE_START = base32.clean("slinv")


def is_valid_public_key(raw: bytes) -> bool:
    """Tell whether *raw* is 32 bytes, canonical, and not of low order."""
    if len(raw) != KEY_SIZE:
        return False
    number = int.from_bytes(raw, "little")
    return number < _P and number not in _LOW_ORDER


def _check_character(group: str) -> str:
    """Return the Luhn mod 32 check character of *group*.

    The factor is 2 at the right end and alternates from there, as in Luhn's own algorithm. So
    every single wrong character is found, and every swap of neighbours but that of A and 7.
    """
    total = 0
    for position, char in enumerate(reversed(group)):
        value = base32.ALPHABET.index(char)
        if position % 2 == 0:
            value = sum(divmod(2 * value, 32))
        total += value
    return base32.ALPHABET[-total % 32]


@functools.lru_cache(maxsize=4096)
def _peer_id(raw: bytes) -> str:
    # Kept, because every message that is told of carries its sender's.
    plain = base32.encode(raw)
    checked = "".join(
        group + _check_character(group)
        for group in (plain[i : i + _CHECKED] for i in range(0, len(plain), _CHECKED))
    ).upper()
    return "-".join(checked[i : i + _SHOWN] for i in range(0, _LENGTH, _SHOWN))


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """A public key that is fit for use: 32 bytes, canonical, not of low order.

    Raises:
        BadPeerId: if *raw* is not.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if not is_valid_public_key(self.raw):
            raise BadPeerId("these bytes are not a usable public key")

    @property
    def peer_id(self) -> str:
        """The text form: 8 groups of 7 characters, upper case, with dashes."""
        return _peer_id(self.raw)

    @property
    def short(self) -> str:
        """The first group of the peer ID, for logs: telling apart, not proving."""
        return self.peer_id[:_SHOWN]

    def __str__(self) -> str:
        return self.peer_id

    def __repr__(self) -> str:
        return f"PublicKey({self.peer_id})"

    @classmethod
    def from_peer_id(cls, text: str) -> PublicKey:
        """Read a peer ID that a person typed or pasted.

        Raises:
            BadPeerId: naming what is wrong, and with what was mistyped the group.
        """
        cleaned = base32.clean(text)
        _refuse_what_is_no_peer_id(text, cleaned)
        pairs = [cleaned[i : i + 2 * _SHOWN] for i in range(0, _LENGTH, 2 * _SHOWN)]
        wrong = [
            f"{2 * number + 1} or {2 * number + 2}"
            for number, pair in enumerate(pairs)
            if _check_character(pair[:_CHECKED]) != pair[_CHECKED]
        ]
        if wrong:
            raise BadPeerId(
                f"the peer ID is mistyped in group {', and in group '.join(wrong)}",
                hint="compare these groups with the original",
            )
        try:
            raw = base32.decode("".join(pair[:_CHECKED] for pair in pairs))
        except ValueError:
            raise BadPeerId(
                "no public key has this peer ID: its last group is impossible",
                hint="copy the peer ID again; `securelink id` prints it on the other machine",
            ) from None
        if not is_valid_public_key(raw):
            raise BadPeerId(
                "this peer ID stands for a key that is not safe to use",
                hint="a real peer ID is printed by `securelink id` on the other machine",
            )
        return cls(raw)


def _refuse_what_is_no_peer_id(text: str, cleaned: str) -> None:
    """Raise BadPeerId unless *cleaned* is 56 characters of base32."""
    hint = "a peer ID is 8 groups of 7 characters; `securelink id` prints it"
    if not cleaned:
        raise BadPeerId("the peer ID is empty", hint=hint)
    if cleaned.startswith(_INVITE_START):
        raise BadPeerId("this is an invite, not a peer ID", hint="redeem it with `securelink join`")
    char = base32.foreign(cleaned)
    if char is not None:
        raise BadPeerId(f"a peer ID has no character {char!a}", hint=hint)
    if len(cleaned) == _LENGTH:
        return
    groups = [base32.clean(group) for group in re.split(r"[\s-]+", text.strip())]
    if len(groups) == _LENGTH // _SHOWN:
        number, group = next(
            (number, group) for number, group in enumerate(groups, 1) if len(group) != _SHOWN
        )
        raise BadPeerId(
            f"group {number} of the peer ID has {len(group)} characters instead of {_SHOWN}",
            hint="compare this group with the original",
        )
    raise BadPeerId(
        f"a peer ID has {_LENGTH} characters without the dashes, this has {len(cleaned)}", hint=hint
    )


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """A node's static key pair. Its repr never shows the private key."""

    private: X25519PrivateKey = field(repr=False)
    public: PublicKey = field(init=False)

    def __post_init__(self) -> None:
        public = PublicKey(self.private.public_key().public_bytes_raw())
        object.__setattr__(self, "public", public)

    @classmethod
    def generate(cls) -> Identity:
        """Return a new identity, from the system's randomness."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, raw: bytes) -> Identity:
        """Return the identity whose private key is the 32 bytes *raw*.

        Raises:
            ValueError: if they are not 32.
        """
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return cls(X25519PrivateKey.from_private_bytes(raw))

    def private_bytes(self) -> bytes:
        """Return the 32 bytes of the private key, as `from_private_bytes` takes them."""
        return self.private.private_bytes_raw()
