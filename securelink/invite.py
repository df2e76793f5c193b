"""Invites: the one-time text that pairs two nodes, and what may have happened to it on its way.

The text is `slinv1` and the lower-case base32 of::

    version u8 = 1 | suite u8 = 1 | public key 32 | token 16 | expiry u32 (unix seconds)
    | endpoints: number u8 = 4 at most, each as in `endpoints`
    | name length u8 = 32 at most, name in UTF-8 | checksum: first 4 bytes of SHA-256 of the rest

Integers are big-endian. The checksum is against accidents alone; what protects the token is the
way on which the invite travels.

People cut invites short, mistype them and paste something else, so each of these is told apart:
the content says how long it must be, and a text one slip of the hand away from a matching
checksum is mistyped, with its place named, even if its length byte was what changed.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from securelink import base32, endpoints
from securelink.endpoints import Endpoint, IncompleteError, Kind
from securelink.errors import (
    BadPeerId,
    InviteMalformed,
    InviteMistyped,
    InviteNewer,
    InviteTruncated,
)
from securelink.identity import KEY_SIZE, PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PREFIX = "slinv1"
VERSION = 1
SUITE = 1
TOKEN_SIZE = 16
MAX_ENDPOINTS = 4
MAX_NAME_BYTES = 32

_START = base32.clean(PREFIX)
_NEWER = re.compile(re.escape(_START[:-1]) + "[2-79]")
_MOST_TOO_MANY = 8  # characters together that are looked for
_GLUED = re.compile(r"[a-z0-9]+")
_HEAD_SIZE = 2 + KEY_SIZE + TOKEN_SIZE + 4
_CHECKSUM_SIZE = 4
_SMALLEST = _HEAD_SIZE + 2 + _CHECKSUM_SIZE
_LARGEST = _SMALLEST + MAX_ENDPOINTS * (1 + 1 + endpoints.MAX_HOST + 2) + MAX_NAME_BYTES
_LONGEST = -(-_LARGEST * 8 // 5)

# What programs write where they cut a text.
_CUT_MARKS = ".\u2026"

_AGAIN = "copy the whole invite again, from slinv1 to its last character"
_MAKE_ONE = "an invite begins with slinv1; `securelink invite` on the other machine makes one"
_UPDATE = "update securelink on this machine"


@dataclass(frozen=True, slots=True)
class Invite:
    """What whoever joins needs to know. Its repr never shows the token.

    Attributes:
        key: the inviting node's public key.
        token: 16 random bytes, good for as many pairings as the inviting node allows.
        expires: unix seconds; only the inviting node judges it.
        endpoints: where the inviting node may be reached, 4 at most.
        name: what the inviting node calls itself, 32 bytes of UTF-8 at most.

    Raises:
        ValueError: if a value is outside these bounds.
    """

    key: PublicKey
    token: bytes = field(repr=False)
    expires: int
    endpoints: tuple[Endpoint, ...]
    name: str

    def __post_init__(self) -> None:
        if len(self.token) != TOKEN_SIZE:
            raise ValueError(f"a token has {TOKEN_SIZE} bytes")
        if not 0 <= self.expires < 1 << 32:
            raise ValueError("the expiry does not fit 32 bits")
        if len(self.endpoints) > MAX_ENDPOINTS:
            raise ValueError(f"an invite has {MAX_ENDPOINTS} endpoints at most")
        if len(self.name.encode()) > MAX_NAME_BYTES:
            raise ValueError(f"a name has {MAX_NAME_BYTES} bytes at most")

    @property
    def token_hash(self) -> bytes:
        """SHA-256 of the token: all that the inviting node keeps of it."""
        return hashlib.sha256(self.token).digest()

    def encode(self) -> str:
        """Return the text form.

        Raises:
            ValueError: if an endpoint has no wire form (see `endpoints.encode`).
        """
        name = self.name.encode()
        content = b"".join(
            (
                bytes([VERSION, SUITE]),
                self.key.raw,
                self.token,
                self.expires.to_bytes(4, "big"),
                endpoints.encode(self.endpoints),
                bytes([len(name)]),
                name,
            )
        )
        return PREFIX + base32.encode(content + _checksum(content))

    @classmethod
    def parse(cls, text: str) -> Invite:
        """Read an invite that a person typed or pasted, with or without words around it.

        Raises:
            InviteTruncated: if its end is missing.
            InviteMistyped: if it was changed, naming the place where one change explains it.
            InviteNewer: if a newer version of securelink made it.
            InviteMalformed: if the text is no invite, or an invite that breaks the rules.
        """
        data = _verified(_body(text))
        _refuse_what_is_glued_to_it(text, len(data))
        if data[0] != VERSION or data[1] != SUITE:
            raise InviteNewer("the invite was made by a newer version of securelink", hint=_UPDATE)
        try:
            invite, size = _read(data)
        except (ValueError, BadPeerId):
            size = 0
        if size != len(data):
            raise InviteMalformed(
                "the invite arrived unharmed, but its content breaks the rules",
                hint="make a new one with `securelink invite` on the other machine",
            )
        return invite


def choose_endpoints(
    candidates: Iterable[Endpoint], *, loopback: bool = False
) -> tuple[Endpoint, ...]:
    """Return the endpoints, 4 at most, that an invite should carry.

    Public ones come first, of IPv6 addresses the first alone, then those of the LAN, in each class
    as given, so that what a person named stays in front. Loopback is taken if there is nothing
    else, or also if *loopback* asks for it. What has no wire form, such as a link-local IPv6
    address, is left out.
    """
    usable: dict[tuple[str, int], Endpoint] = {}
    for endpoint in candidates:
        if _has_wire_form(endpoint):
            usable.setdefault((endpoint.host, endpoint.port), endpoint)
    of_kind = {kind: [each for each in usable.values() if each.kind is kind] for kind in Kind}
    public = of_kind[Kind.PUBLIC]
    other_ipv6 = [each for each in public if ":" in each.host][1:]
    others = [*(each for each in public if each not in other_ipv6), *of_kind[Kind.LAN]]
    local = of_kind[Kind.LOOPBACK][:MAX_ENDPOINTS] if loopback or not others else []
    return (*others[: MAX_ENDPOINTS - len(local)], *local)


def _has_wire_form(endpoint: Endpoint) -> bool:
    try:
        endpoints.encode([endpoint])
    except ValueError:
        return False
    return True


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_CHECKSUM_SIZE]


def _read(data: bytes) -> tuple[Invite, int]:
    """Return the invite that *data* begins with, and its size with the checksum.

    Raises:
        IncompleteError: if *data* ends too early, and breaks no rule before.
        ValueError, BadPeerId: if the content breaks the rules.
    """
    if len(data) <= _HEAD_SIZE:
        raise IncompleteError
    key, token, expiry = data[2:34], data[34:50], data[50:_HEAD_SIZE]
    reachable, size = endpoints.decode(data[_HEAD_SIZE:])
    end = _HEAD_SIZE + size
    if len(data) == end:
        raise IncompleteError
    name = data[end + 1 : end + 1 + data[end]]
    end += 1 + data[end] + _CHECKSUM_SIZE
    if len(data) < end:
        raise IncompleteError
    expires = int.from_bytes(expiry, "big")
    return Invite(PublicKey(key), token, expires, reachable, name.decode()), end


def _body(text: str) -> str:
    """Return the base32 after the prefix, or raise what is known without it."""
    cleaned = base32.clean(text).rstrip(_CUT_MARKS)
    _, found, body = cleaned.partition(_START)
    if found:
        return body
    if not cleaned:
        raise InviteMalformed("the invite is empty", hint=_MAKE_ONE)
    if _START.startswith(cleaned):
        raise InviteTruncated("the end of the invite is missing", hint=_AGAIN)
    whole_without_start = any(_content(cleaned[skip:]) for skip in range(len(_START) + 2))
    newer = _NEWER.search(cleaned) is not None
    if whole_without_start or (cleaned.startswith(_START[:-1]) and not newer):
        raise InviteMistyped("the beginning of the invite is mistyped", hint=_AGAIN)
    if newer:
        raise InviteNewer("the invite was made by a newer version of securelink", hint=_UPDATE)
    try:
        PublicKey.from_peer_id(text)
    except BadPeerId:
        raise InviteMalformed("this is not an invite", hint=_MAKE_ONE) from None
    raise InviteMalformed("this is a peer ID, not an invite", hint=_MAKE_ONE)


def _content(body: str) -> bytes | None:
    """Return the bytes, with the checksum, that *body* stands for if the checksum fits."""
    try:
        data = base32.decode(body)
    except ValueError:
        return None
    return data if _fits(data) else None


def _fits(data: bytes) -> bool:
    return len(data) >= _SMALLEST and _checksum(data[:-_CHECKSUM_SIZE]) == data[-_CHECKSUM_SIZE:]


def _verified(body: str) -> bytes:
    """Return the bytes that *body* begins with and whose checksum fits, or raise what happened."""
    data = _content(body)
    if data is not None:
        return data
    char = base32.foreign(body)
    known = body if char is None else body[: body.index(char)]
    cut = False
    try:
        _, size = _read(base32.decode_prefix(known))
    except IncompleteError:
        cut = True
    except (ValueError, BadPeerId):
        pass
    else:
        data = _content(known[: -(-size * 8 // 5)])
        if data is not None:
            return data
    if char is not None:
        raise InviteMistyped(
            f"the invite is mistyped at character {len(PREFIX + known) + 1}: "
            f"{char!a} is in no invite",
            hint=_AGAIN,
        )
    slip = next(_slips(known), None)
    if slip is not None:
        raise InviteMistyped(
            f"the invite is mistyped: {slip}", hint="compare that place with the original"
        )
    if cut:
        raise InviteTruncated("the end of the invite is missing", hint=_AGAIN)
    raise InviteMistyped("the invite is mistyped in more than one place", hint=_AGAIN)


def _refuse_what_is_glued_to_it(text: str, size: int) -> None:
    """Raise InviteMistyped if characters follow the last one of the *size* bytes in *text* at once.

    Words after a space, a full stop or a quote are the sentence around the invite, and the same
    invite again is a paste too many.
    """
    count = len(PREFIX) + -(-size * 8 // 5)
    rest = text.lower()
    left = base32.clean(rest).index(_START) + count
    while left:
        left -= len(base32.clean(rest[0]))
        rest = rest[1:]
    visible = "".join(char for char in rest if unicodedata.category(char) != "Cf")
    extra = _GLUED.match(visible)
    if extra is None or base32.clean(extra[0]).startswith(_START):
        return
    if len(extra[0]) == 1:
        slip = f"character {count + 1} is one too many"
    else:
        slip = f"{len(extra[0])} characters too many after character {count}"
    raise InviteMistyped(f"the invite is mistyped: {slip}", hint=_AGAIN)


def _slips(body: str) -> Iterator[str]:
    """Yield each single slip that explains why the checksum of *body* does not fit.

    Tried are one wrong character, one missing (but not the last: that is a cut), up to 8 together
    too many, and two swapped: 71 checksums a character, so that chance finds a slip that was none
    in one of 300,000 texts of the usual length. What is longer than any invite is not tried.
    """
    count = len(body)
    if count > _LONGEST + _MOST_TOO_MANY:
        return
    digits = [base32.ALPHABET.index(char) for char in body]
    number = 0
    for digit in digits:
        number = number << 5 | digit
    for index, digit in enumerate(digits):
        place = len(PREFIX) + index + 1
        shift = 5 * (count - 1 - index)
        before, after = number >> shift + 5, number & (1 << shift) - 1
        here_and_after = number & (1 << shift + 5) - 1
        others = [other for other in range(32) if other != digit]
        if any(_fits_bits((before << 5 | o) << shift | after, count) for o in others):
            yield f"character {place} is wrong"
        # The same digit again would be a longer run of it, which is tried at the run's end.
        if any(
            _fits_bits(((before << 5 | o) << shift + 5) | here_and_after, count + 1) for o in others
        ):
            yield f"a character is missing before character {place}"
        if _fits_bits(before << shift | after, count - 1):
            yield f"character {place} is one too many"
        for many in range(2, min(_MOST_TOO_MANY, count - index - 1) + 1):
            shift_after = 5 * (count - index - many)
            kept = before << shift_after | number & (1 << shift_after) - 1
            if _fits_bits(kept, count - many):
                yield f"characters {place} to {place + many - 1} are too many"
        if index and _fits_bits(number ^ (digit ^ digits[index - 1]) * 33 << shift, count):
            yield f"characters {place - 1} and {place} are swapped"


def _fits_bits(number: int, count: int) -> bool:
    """Tell whether the checksum fits in *number*, the value of *count* characters of base32."""
    size, spare = divmod(5 * count, 8)
    if number & (1 << spare) - 1:
        return False
    return _fits((number >> spare).to_bytes(size, "big"))
