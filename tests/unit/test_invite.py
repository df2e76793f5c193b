from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securelink import base32, endpoints
from securelink.endpoints import Endpoint, Kind
from securelink.errors import (
    ExitCode,
    InviteError,
    InviteMalformed,
    InviteMistyped,
    InviteNewer,
    InviteTruncated,
)
from securelink.identity import PublicKey
from securelink.invite import Invite, choose_endpoints

# RFC 7748, section 6.1.
KEY = PublicKey(bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"))
TOKEN = bytes(range(240, 256))
PUBLIC = Endpoint(Kind.PUBLIC, "203.0.113.5", 24819)
NAMED = Endpoint(Kind.PUBLIC, "home.example", 443)
IPV6 = Endpoint(Kind.PUBLIC, "2001:db8::5", 24819)
LAN = Endpoint(Kind.LAN, "192.168.1.20", 24819)
LOOPBACK = Endpoint(Kind.LOOPBACK, "127.0.0.1", 24819)

INVITE = Invite(KEY, TOKEN, 1_800_000_000, (NAMED, LAN), "alice")
TEXT = INVITE.encode()


def refused(text: str) -> InviteError:
    with pytest.raises(InviteError) as raised:
        Invite.parse(text)
    error = raised.value
    assert error.hint
    assert error.exit_code == ExitCode.USAGE
    assert "\n" not in error.message + error.hint
    assert base32.encode(TOKEN)[3:20] not in error.message + error.hint
    return error


def sealed(content: bytes) -> str:
    """The text form of any content, under a checksum that fits."""
    return "slinv1" + base32.encode(content + hashlib.sha256(content).digest()[:4])


def content(
    version: int = 1,
    suite: int = 1,
    key: bytes = KEY.raw,
    some: bytes = b"\0",
    name: bytes = b"\5alice",
    rest: bytes = b"",
) -> bytes:
    head = bytes([version, suite]) + key + TOKEN + bytes(4)
    return head + some + name + rest


invites = st.builds(
    Invite,
    st.just(KEY),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from([PUBLIC, NAMED, IPV6, LAN, LOOPBACK]), max_size=4).map(tuple),
    st.text(max_size=32).filter(lambda name: len(name.encode()) <= 32),
)


def test_the_text_form_never_changes() -> None:
    assert TEXT == (
        "slinv1aeaykihqbgetbj2uosfx3xfuh33vudn7higsmoa26tv2jkmovknu42xq6hzph5hv6337r6p27p6p37x7nne5"
        "eaaceaggq33nmuxgk6dbnvygyzibxmkmbkabcrqpgblbnruwgzkkfyhio"
    )
    assert INVITE.encode() == sealed(
        b"\1\1"
        + KEY.raw
        + TOKEN
        + (1_800_000_000).to_bytes(4, "big")
        + endpoints.encode((NAMED, LAN))
        + b"\5alice"
    )


@given(invites)
def test_what_is_encoded_parses(invite: Invite) -> None:
    assert Invite.parse(invite.encode()) == invite


def test_lengths() -> None:
    short = Invite(KEY, TOKEN, 0, (PUBLIC,), "a")
    long = Invite(KEY, TOKEN, 0, (PUBLIC, PUBLIC, PUBLIC, IPV6), "x" * 32)
    assert len(short.encode()) == 115
    assert len(long.encode()) == 218


WRAPPED = "\r\n".join(TEXT[i : i + 40] for i in range(0, len(TEXT), 40))

FORGIVEN = {
    "upper case": TEXT.upper(),
    "mixed case": TEXT.title(),
    "line wraps": WRAPPED,
    "a quoted mail": "> " + WRAPPED.replace("\r\n", "\r\n> "),
    "spaces everywhere": " ".join(TEXT),
    "dashes": "-".join(TEXT),
    "quotes": f"'{TEXT}'",
    "typographic quotes": f"\u201c{TEXT}\u201d",
    "backticks": f"`{TEXT}`",
    "invisible characters": "\ufeff" + "\u200b\u00ad".join(TEXT) + "\u2060",
    "look-alike digits": TEXT[:6] + TEXT[6:].replace("o", "0").replace("i", "1").replace("b", "8"),
    "the letter in the prefix": "slinvi" + TEXT[6:],
    "the command": f"securelink join {TEXT}",
    "the line of serve": f"pair another machine (once, 24 h): securelink join {TEXT}",
    "a sentence": f"({TEXT}).",
    "words after it": f"{TEXT} works until tomorrow",
    "a note after it": f"{TEXT} (24 h)",
    "an ellipsis after it": f"{TEXT}...",
    "an emphasis after it": f"<b>{TEXT}</b>",
    "words without spaces after it": f"{TEXT}\u6709\u6548\u671f",
    "twice": f"{TEXT}\n{TEXT}",
    "twice in one": f"{TEXT}{TEXT}",
}


@pytest.mark.parametrize("text", FORGIVEN.values(), ids=FORGIVEN.keys())
def test_reading_is_forgiving(text: str) -> None:
    assert Invite.parse(text) == INVITE


@pytest.mark.parametrize("mark", ["", " ", "\n", "...", "\N{HORIZONTAL ELLIPSIS}"])
def test_every_cut_is_called_a_cut(mark: str) -> None:
    step = 1 if not mark else 17
    for length in range(1, len(TEXT), step):
        error = refused(TEXT[:length] + mark)
        assert type(error) is InviteTruncated, length
        assert error.message == "the end of the invite is missing"


def test_a_checksum_of_next_to_nothing_is_a_cut_too() -> None:
    assert type(refused(sealed(b""))) is InviteTruncated
    assert type(refused(sealed(b"\1\1"))) is InviteTruncated


def test_every_changed_character_is_called_mistyped_and_its_place_named() -> None:
    rng = random.Random(7)
    for position, char in enumerate(TEXT):
        other = rng.choice([each for each in base32.ALPHABET if each != char])
        if position == 5:
            other = "x"
        error = refused(TEXT[:position] + other + TEXT[position + 1 :])
        assert type(error) is InviteMistyped, position
        if position < 6:
            assert error.message == "the beginning of the invite is mistyped"
        else:
            assert error.message == f"the invite is mistyped: character {position + 1} is wrong"


def test_a_changed_length_is_mistyped_and_not_a_cut() -> None:
    """The bytes that tell the number of endpoints, a host's length and the name's length."""
    raw = base32.decode(TEXT[6:])
    for index in (54, 56, len(raw) - 10):
        digit = index * 8 // 5 + 6
        for other in base32.ALPHABET:
            if other != TEXT[digit]:
                assert type(refused(TEXT[:digit] + other + TEXT[digit + 1 :])) is InviteMistyped


def test_every_dropped_character_is_found() -> None:
    for position in range(len(TEXT)):
        error = refused(TEXT[:position] + TEXT[position + 1 :])
        if position < 6:
            assert error.message == "the beginning of the invite is mistyped"
        elif position == len(TEXT) - 1:
            assert type(error) is InviteTruncated
        else:
            place = position + 1
            while TEXT[place] == TEXT[position]:
                place += 1
            assert type(error) is InviteMistyped
            assert error.message == (
                f"the invite is mistyped: a character is missing before character {place}"
            )


def test_every_doubled_character_is_found() -> None:
    for position in range(6, len(TEXT) - 1):
        error = refused(TEXT[:position] + TEXT[position] + TEXT[position:])
        assert type(error) is InviteMistyped
        assert "is one too many" in error.message


@pytest.mark.parametrize("extra", ["x", "a", "9", "0", TEXT[-1], "\u200bx"])
def test_one_character_too_many_at_the_end(extra: str) -> None:
    for text in (TEXT + extra, TEXT.upper() + extra, f"join {TEXT}{extra} works until tomorrow"):
        error = refused(text)
        assert type(error) is InviteMistyped
        assert error.message == (
            f"the invite is mistyped: character {len(TEXT) + 1} is one too many"
        )


@pytest.mark.parametrize("extra", ["ax", "aaa", "a9b", "aaaaaaaa", "aaaaaaaaaaaaaaaa"])
def test_several_characters_too_many_at_the_end(extra: str) -> None:
    error = refused(TEXT + extra)
    assert type(error) is InviteMistyped
    assert error.message == (
        f"the invite is mistyped: {len(extra)} characters too many after character {len(TEXT)}"
    )


@pytest.mark.parametrize("extra", ["9x", "xy", "xyz", "xyzxyzxy"])
def test_several_characters_too_many_inside(extra: str) -> None:
    for position in (6, 30, len(TEXT) // 2, len(TEXT) - 1):
        error = refused(TEXT[:position] + extra + TEXT[position:])
        assert type(error) is InviteMistyped, position
        if extra.isalpha():
            assert error.message in {
                f"the invite is mistyped: characters {first} to {first + len(extra) - 1} "
                "are too many"
                for first in range(position - 2, position + 4)
            }


def test_swaps_are_found() -> None:
    for position in (*range(7), *range(7, len(TEXT) - 1, 5), len(TEXT) - 2):
        a, b = TEXT[position : position + 2]
        if a == b:
            continue
        error = refused(TEXT[:position] + b + a + TEXT[position + 2 :])
        assert type(error) is InviteMistyped
        if position > 5:
            assert error.message == (
                f"the invite is mistyped: characters {position + 1} and {position + 2} are swapped"
            )


def test_a_foreign_character_is_named_with_its_place() -> None:
    for position in (6, 30, len(TEXT) - 1):
        error = refused(TEXT[:position] + "9" + TEXT[position + 1 :])
        assert type(error) is InviteMistyped
        assert error.message == (
            f"the invite is mistyped at character {position + 1}: '9' is in no invite"
        )


def test_two_faults_are_mistyped_without_a_place() -> None:
    for a, b in ((10, 20), (70, 100), (10, len(TEXT) - 1)):
        letters = list(TEXT)
        for position in (a, b):
            letters[position] = "q" if letters[position] != "q" else "r"
        error = refused("".join(letters))
        assert type(error) is InviteMistyped
        assert error.message == "the invite is mistyped in more than one place"


def test_a_very_long_text_is_refused_at_once() -> None:
    """A search for slips in it would take minutes."""
    assert type(refused(TEXT[:-1] + "a" * 50_000)) is InviteMistyped
    assert type(refused("slinv1" + "a" * 50_000)) is InviteMistyped


def test_the_longest_invite_is_still_searched_for_slips() -> None:
    host = "a." * 126 + "a"
    some = tuple(Endpoint(Kind.PUBLIC, host, port) for port in range(1, 5))
    text = Invite(KEY, TOKEN, 0, some, "x" * 32).encode()
    assert Invite.parse(text).endpoints == some
    for wrong in (text[:8] + text[9] + text[8] + text[10:], text[:8] + text[8] + text[8:]):
        assert type(refused(wrong)) is InviteMistyped
        assert "more than one" not in refused(wrong).message


@pytest.mark.parametrize(
    "text",
    [
        "slinv2" + TEXT[6:-9],
        "SLINV-3 aaaa",
        "securelink join slinv2aeaq",
        "slinv9",
        sealed(content(version=2)),
        sealed(content(suite=2)),
        sealed(content(version=2, some=b"\xff" * 20)),
    ],
)
def test_an_invite_of_a_newer_version(text: str) -> None:
    error = refused(text)
    assert type(error) is InviteNewer
    assert error.message == "the invite was made by a newer version of securelink"
    assert error.hint == "update securelink on this machine"


LONG = Endpoint(Kind.LAN, "10.0.0.1", 1)


@pytest.mark.parametrize(
    "text",
    [
        sealed(content(key=bytes(32))),
        sealed(content(key=b"\xff" * 32)),
        sealed(content(some=endpoints.encode([LAN] * 5))),
        sealed(content(some=b"\1\x14\x0a\0\0\1\0\0")),
        sealed(content(some=b"\1\x99")),
        sealed(content(some=b"\4" + b"\x14\x0a\0\0\1\0\1")),
        sealed(content(name=b"\2\xff\xff")),
        sealed(content(name=b"\x21" + b"x" * 33)),
        sealed(content(name=b"\6alice")),
        sealed(content(name=b"\4alice")),
        sealed(content(rest=b"\0")),
    ],
)
def test_an_invite_that_breaks_the_rules(text: str) -> None:
    error = refused(text)
    assert type(error) is InviteMalformed
    assert error.message == "the invite arrived unharmed, but its content breaks the rules"


@pytest.mark.parametrize("text", ["", "  \n", "''", "\u200b"])
def test_an_empty_text(text: str) -> None:
    error = refused(text)
    assert type(error) is InviteMalformed
    assert error.message == "the invite is empty"


@pytest.mark.parametrize("text", ["hello", "https://example.org/", "ü", "linv", TEXT[6:40]])
def test_something_else(text: str) -> None:
    error = refused(text)
    assert type(error) is InviteMalformed
    assert error.message == "this is not an invite"


def test_an_invite_without_its_beginning() -> None:
    for cut in range(1, 7):
        error = refused(TEXT[cut:])
        assert type(error) is InviteMistyped
        assert error.message == "the beginning of the invite is mistyped"


def test_a_peer_id_in_place_of_an_invite() -> None:
    error = refused(KEY.peer_id)
    assert type(error) is InviteMalformed
    assert error.message == "this is a peer ID, not an invite"
    assert "securelink invite" in str(error.hint)


@given(st.text() | st.text(alphabet=base32.ALPHABET, max_size=200).map("slinv1".__add__))
@settings(max_examples=60)
def test_any_text_is_an_invite_or_refused(text: str) -> None:
    assert refused(text).hint


@given(st.binary(max_size=40), st.binary(max_size=60))
def test_any_content_is_an_invite_or_refused(some: bytes, name: bytes) -> None:
    text = sealed(content(some=some, name=name))
    try:
        invite = Invite.parse(text)
    except InviteError:
        return
    assert invite.encode() == text


@pytest.mark.parametrize(
    "make",
    [
        lambda: Invite(KEY, TOKEN[1:], 0, (), ""),
        lambda: Invite(KEY, TOKEN, -1, (), ""),
        lambda: Invite(KEY, TOKEN, 2**32, (), ""),
        lambda: Invite(KEY, TOKEN, 0, (LAN,) * 5, ""),
        lambda: Invite(KEY, TOKEN, 0, (), "ü" * 17),
        lambda: Invite(KEY, TOKEN, 0, (Endpoint(Kind.LAN, "fe80::1", 1),), "").encode(),
    ],
)
def test_values_out_of_bounds(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        make()


def test_only_the_hash_of_the_token_is_for_keeping() -> None:
    assert INVITE.token_hash == hashlib.sha256(TOKEN).digest()


def test_no_repr_shows_the_token() -> None:
    shown = f"{INVITE} {INVITE!r}"
    assert "alice" in shown
    for form in (TOKEN.hex(), repr(TOKEN)[2:-1], base32.encode(TOKEN), base32.encode(TOKEN)[3:20]):
        assert form not in shown.lower()


OTHERS = tuple(Endpoint(Kind.PUBLIC, f"203.0.113.{number}", 1) for number in range(6))
IPV6_TOO = Endpoint(Kind.PUBLIC, "2001:db8::6", 24819)
LAN_TOO = Endpoint(Kind.LAN, "fd00::1", 24819)
LOOPBACK_TOO = Endpoint(Kind.LOOPBACK, "::1", 24819)
FORWARDER = Endpoint(Kind.PUBLIC, "127.0.0.1", 5000)
LINK_LOCAL = Endpoint(Kind.LAN, "fe80::1", 24819)


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([], ()),
        ([LAN, IPV6, PUBLIC, NAMED], (IPV6, PUBLIC, NAMED, LAN)),
        ([IPV6, PUBLIC, IPV6_TOO, LAN], (IPV6, PUBLIC, LAN)),
        ([NAMED, LAN, PUBLIC], (NAMED, PUBLIC, LAN)),
        ([IPV6, IPV6_TOO, LAN], (IPV6, LAN)),
        ([LOOPBACK, LAN], (LAN,)),
        ([LOOPBACK, LOOPBACK_TOO], (LOOPBACK, LOOPBACK_TOO)),
        ([LAN, LAN_TOO], (LAN, LAN_TOO)),
        ([FORWARDER, LOOPBACK], (FORWARDER,)),
        ([*OTHERS, IPV6, LAN], OTHERS[:4]),
        ([NAMED, NAMED, LAN, LAN], (NAMED, LAN)),
        ([LINK_LOCAL, LOOPBACK], (LOOPBACK,)),
    ],
)
def test_choosing_endpoints(candidates: list[Endpoint], chosen: tuple[Endpoint, ...]) -> None:
    assert choose_endpoints(candidates) == chosen


def test_the_first_of_two_kinds_for_one_address_counts() -> None:
    declared = Endpoint(Kind.PUBLIC, LOOPBACK.host, LOOPBACK.port)
    assert choose_endpoints([declared, LOOPBACK], loopback=True) == (declared,)


def test_loopback_on_demand_takes_the_place_of_others() -> None:
    assert choose_endpoints([LOOPBACK, LAN], loopback=True) == (LAN, LOOPBACK)
    assert choose_endpoints([LOOPBACK, *OTHERS], loopback=True) == (*OTHERS[:3], LOOPBACK)
    assert choose_endpoints([LAN], loopback=True) == (LAN,)
