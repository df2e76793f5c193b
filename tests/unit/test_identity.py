from __future__ import annotations

import pickle
import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securelink import base32
from securelink.errors import BadPeerId, ExitCode
from securelink.identity import Identity, PublicKey, is_valid_public_key

P = 2**255 - 19

# RFC 7748, section 6.1.
ALICE_PRIVATE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")

valid_keys = st.binary(min_size=32, max_size=32).filter(is_valid_public_key)


def number(value: int) -> bytes:
    return value.to_bytes(32, "little")


def test_of_all_bad_encodings_none_is_valid() -> None:
    low_order = [
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        P - 1,
    ]
    not_canonical = [P, P + 1, P + 9, 2**255 - 1, 2**255, 2**255 + 9, 2**256 - 1]
    for value in low_order + not_canonical:
        assert not is_valid_public_key(number(value)), value
        with pytest.raises(BadPeerId, match="not a usable public key"):
            PublicKey(number(value))


def test_the_neighbours_of_bad_encodings_are_valid() -> None:
    for value in (2, 9, P - 2):
        assert is_valid_public_key(number(value))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_not_valid(size: int) -> None:
    assert not is_valid_public_key(b"\x09" * size)


def test_low_order_means_that_the_shared_secret_is_zero() -> None:
    """The list is complete as far as x25519 goes: it refuses these, and their multiples."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    from securelink import identity

    private = Identity.from_private_bytes(ALICE_PRIVATE).private
    for value in identity._LOW_ORDER:
        with pytest.raises(ValueError, match="shared key"):
            private.exchange(X25519PublicKey.from_public_bytes(number(value)))


def reference_luhn(group: str) -> str:
    """Luhn mod N as published for N = 32, in other words than the code's."""
    factor, total = 2, 0
    for char in group[::-1].upper():
        addend = factor * "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".index(char)
        factor = 1 if factor == 2 else 2
        total += addend // 32 + addend % 32
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[(32 - total % 32) % 32]


@given(valid_keys)
def test_the_peer_id_is_base32_with_a_check_character_in_each_13(raw: bytes) -> None:
    key = PublicKey(raw)
    shown = key.peer_id.split("-")
    assert [len(group) for group in shown] == [7] * 8
    pairs = ["".join(shown[i : i + 2]) for i in range(0, 8, 2)]
    assert base32.decode("".join(pair[:13] for pair in pairs)) == raw
    assert [pair[13] for pair in pairs] == [reference_luhn(pair[:13]) for pair in pairs]
    assert str(key) == key.peer_id == key.peer_id.upper()
    assert key.short == shown[0]
    assert PublicKey.from_peer_id(key.peer_id) == key


PEER_ID = PublicKey(ALICE_PUBLIC).peer_id


def refused(text: str) -> BadPeerId:
    with pytest.raises(BadPeerId) as raised:
        PublicKey.from_peer_id(text)
    assert raised.value.hint
    assert raised.value.exit_code == ExitCode.USAGE
    assert "\n" not in raised.value.message
    return raised.value


def test_the_text_form_never_changes() -> None:
    assert PEER_ID == "QUQPACM-JGCTVI6-5ELPXOL-IPXXLIC-G36OQNE-Y4BV5HQ-LUSUY5K-U3JZVA7"


@pytest.mark.parametrize(
    "text",
    [
        PEER_ID.lower(),
        PEER_ID.replace("-", ""),
        PEER_ID.replace("-", " "),
        PEER_ID.replace("-", "\r\n> "),
        PEER_ID.replace("-", "\N{EN DASH}"),
        f"  \u201c{PEER_ID}\u201d\n",
        f"`{PEER_ID}`",
        "\ufeff" + PEER_ID.replace("-", "-\u200b\u00ad"),
        PEER_ID.replace("O", "0").replace("I", "1").replace("B", "8"),
        "-".join(PEER_ID.replace("-", "")[i : i + 4] for i in range(0, 56, 4)),
    ],
)
def test_reading_is_forgiving(text: str) -> None:
    assert PublicKey.from_peer_id(text).raw == ALICE_PUBLIC


def group_pair(position: int) -> str:
    first = position // 16 * 2 + 1
    return f"group {first} or {first + 1}"


def test_every_changed_character_is_found_and_its_groups_named() -> None:
    for position, char in enumerate(PEER_ID):
        if char == "-":
            continue
        for other in base32.ALPHABET.upper() + string.punctuation + "9ÄЖ":
            if other == char or not base32.clean(other):
                continue
            error = refused(PEER_ID[:position] + other + PEER_ID[position + 1 :])
            if other.lower() in base32.ALPHABET:
                assert error.message == f"the peer ID is mistyped in {group_pair(position)}"
            else:
                assert error.message == f"a peer ID has no character {other.lower()!a}"


def test_every_dropped_or_doubled_character_is_found_and_its_group_named() -> None:
    for position, char in enumerate(PEER_ID):
        if char == "-":
            continue
        group = position // 8 + 1
        shorter = PEER_ID[:position] + PEER_ID[position + 1 :]
        longer = PEER_ID[:position] + char + PEER_ID[position:]
        for text, count in ((shorter, 6), (longer, 8)):
            assert refused(text).message == (
                f"group {group} of the peer ID has {count} characters instead of 7"
            )
            plain = text.replace("-", "")
            assert refused(plain).message == (
                f"a peer ID has 56 characters without the dashes, this has {len(plain)}"
            )


@pytest.mark.parametrize("extra", ["XX", "XXX", "XXXXXXXX", "-XXXXXXX", " X"])
def test_characters_too_many_at_the_end_are_refused(extra: str) -> None:
    for text in (PEER_ID, PEER_ID.replace("-", "")):
        assert refused(text + extra)


@settings(max_examples=20)
@given(valid_keys)
def test_swapped_neighbours_are_found_save_those_that_luhn_misses(raw: bytes) -> None:
    plain = PublicKey(raw).peer_id.replace("-", "")
    for position in range(55):
        a, b = plain[position : position + 2]
        inside_one_check = position % 14 != 13
        if a == b or {a, b} == {"A", "7"}:
            continue
        text = plain[:position] + b + a + plain[position + 2 :]
        if inside_one_check:
            first = position // 14 * 2 + 1
            assert f"group {first} or {first + 1}" in refused(text).message
        else:
            refused(text)


def test_several_mistyped_groups_are_all_named() -> None:
    groups = PEER_ID.split("-")
    for index in (0, 7):
        groups[index] = ("B" if groups[index][0] != "B" else "C") + groups[index][1:]
    assert refused("-".join(groups)).message == (
        "the peer ID is mistyped in group 1 or 2, and in group 7 or 8"
    )


@pytest.mark.parametrize("text", ["", " \n", '""', "\u200b-"])
def test_an_empty_text(text: str) -> None:
    assert refused(text).message == "the peer ID is empty"


def test_an_invite_in_place_of_a_peer_id() -> None:
    for text in ("slinv1aeavnuurer4bw7p7nvgv", " SLINV1AEAV", "slinv2abcdef"):
        error = refused(text)
        assert error.message == "this is an invite, not a peer ID"
        assert error.hint == "redeem it with `securelink join`"


def test_a_name_in_place_of_a_peer_id() -> None:
    assert "this has 5" in refused("alice").message


def checked(plain: str) -> str:
    groups = [plain[i : i + 13] for i in range(0, 52, 13)]
    return "".join(group + reference_luhn(group) for group in groups)


def test_an_id_whose_last_bits_are_not_zero_stands_for_no_key() -> None:
    plain = base32.encode(ALICE_PUBLIC)
    other = base32.ALPHABET[base32.ALPHABET.index(plain[-1]) | 1]
    assert "its last group is impossible" in refused(checked(plain[:-1] + other)).message


def test_an_id_of_a_bad_key() -> None:
    for value in (0, 1, P - 1, P, 2**255 + 9):
        error = refused(checked(base32.encode(number(value))))
        assert error.message == "this peer ID stands for a key that is not safe to use"


@given(st.text() | st.text(alphabet=base32.ALPHABET + "-", min_size=50, max_size=64))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    try:
        key = PublicKey.from_peer_id(text)
    except BadPeerId:
        return
    assert base32.clean(key.peer_id) == base32.clean(text)


def test_public_keys_are_values() -> None:
    assert {PublicKey(ALICE_PUBLIC): 1}[PublicKey(bytes(ALICE_PUBLIC))] == 1
    assert repr(PublicKey(ALICE_PUBLIC)) == f"PublicKey({PEER_ID})"


def test_an_identity_is_its_private_key() -> None:
    identity = Identity.from_private_bytes(ALICE_PRIVATE)
    assert identity.private_bytes() == ALICE_PRIVATE
    assert Identity.generate().private_bytes() != Identity.generate().private_bytes()
    assert identity.public.raw == ALICE_PUBLIC


def test_an_identity_of_the_wrong_size() -> None:
    with pytest.raises(ValueError, match="32"):
        Identity.from_private_bytes(bytes(31))


def test_no_repr_shows_a_private_key() -> None:
    private = random.Random(1).randbytes(32)
    identity = Identity.from_private_bytes(private)
    assert repr(identity) == f"Identity(public={identity.public!r})"
    shown = f"{identity} {identity!r} {identity.private!r}"
    for form in (private.hex(), base32.encode(private), repr(private)[2:-1], str(private)):
        assert form not in shown.lower() + shown
    with pytest.raises(TypeError):
        pickle.dumps(identity)
