"""The handshake: patterns of tokens, and one side's way through them."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from securelink.errors import HandshakeError, LocalProtocolError
from securelink.identity import is_valid_public_key
from securelink.noise.symmetric import MAX_MESSAGE_LEN, TAGLEN, CipherState, SymmetricState

if TYPE_CHECKING:
    from collections.abc import Callable

DHLEN: Final = 32
KEMPUBLICKEYLEN: Final = 1184
KEMCIPHERTEXTLEN: Final = 1088

# Of a DH token, the first letter is the initiator's key, the second the responder's.
Token: TypeAlias = Literal["e", "s", "ee", "es", "se", "ss", "e1", "ekem1"]


class HandshakePattern(msgspec.Struct, frozen=True):
    """A handshake pattern (section 7; HFS, section 5).

    Attributes:
        name: its name and modifier, as in the protocol's name.
        pre_messages: the static keys known beforehand, of the initiator and of the responder.
        messages: the tokens of each message; the initiator sends the first.
    """

    name: str
    pre_messages: tuple[tuple[Literal["s"], ...], tuple[Literal["s"], ...]]
    messages: tuple[tuple[Token, ...], ...]

    @property
    def protocol_name(self) -> bytes:
        """The full name (section 8; HFS, section 5)."""
        hybrid = any("e1" in message for message in self.messages)
        dh = "25519+MLKEM768" if hybrid else "25519"
        return f"Noise_{self.name}_{dh}_AESGCM_SHA256".encode("ascii")


PATTERNS: Final = {
    pattern.name: pattern
    for pattern in (
        HandshakePattern("XK", ((), ("s",)), (("e", "es"), ("e", "ee"), ("s", "se"))),
        HandshakePattern(
            "XKhfs", ((), ("s",)), (("e", "es", "e1"), ("e", "ee", "ekem1"), ("s", "se"))
        ),
    )
}


def generate_kem_ciphertext(public_key: MLKEM768PublicKey) -> tuple[bytes, bytes]:
    """Return a ciphertext of 1,088 bytes, and the 32-byte secret in it (HFS, section 3)."""
    kem_output, ciphertext = public_key.encapsulate()
    return ciphertext, kem_output


class _Stage(enum.Enum):
    """Where a handshake stands; messages are processed while it is RUNNING only."""

    RUNNING = enum.auto()
    FAILED = enum.auto()
    FINISHED = enum.auto()
    SPLIT = enum.auto()


class HandshakeState:
    """One side of a handshake (section 5.3).

    Args:
        pattern: a row of `PATTERNS`.
        initiator: whether this side sends the first message.
        prologue: what both sides must agree on without sending it.
        s: this side's static key pair, where the pattern needs one.
        rs: the other side's static public key, 32 bytes, where the pattern has it beforehand.
        generate_keypair, generate_kem_keypair, generate_kem_ciphertext: the only sources of
            randomness; only tests pass their own.
        cipher: as for `CipherState`.

    Attributes:
        rs: the other side's static public key, None until it is known. One that was read is
            proven to be theirs only when `finished` is true.

    Raises:
        LocalProtocolError: if a key is missing, superfluous or unusable.
    """

    def __init__(
        self,
        pattern: HandshakePattern,
        *,
        initiator: bool,
        prologue: bytes = b"",
        s: X25519PrivateKey | None = None,
        rs: bytes | None = None,
        generate_keypair: Callable[[], X25519PrivateKey] = X25519PrivateKey.generate,
        generate_kem_keypair: Callable[[], MLKEM768PrivateKey] = MLKEM768PrivateKey.generate,
        generate_kem_ciphertext: Callable[
            [MLKEM768PublicKey], tuple[bytes, bytes]
        ] = generate_kem_ciphertext,
        cipher: Callable[[bytes], AESGCM] = AESGCM,
    ) -> None:
        us, them = (0, 1) if initiator else (1, 0)
        if s is None and any(
            "s" in sent for sent in (pattern.pre_messages[us], *pattern.messages[us::2])
        ):
            raise LocalProtocolError("this side of the handshake needs a static key pair")
        if (rs is not None) != ("s" in pattern.pre_messages[them]):
            raise LocalProtocolError("the peer's key must be given exactly if it is known before")
        if rs is not None and not is_valid_public_key(rs):
            raise LocalProtocolError("the peer's key is not a usable public key")
        self._initiator = initiator
        self._messages = pattern.messages
        self._next = 0
        self._stage = _Stage.RUNNING
        self._s = s
        self._e: X25519PrivateKey | None = None
        self._e1: MLKEM768PrivateKey | None = None
        self.rs = rs
        self._re: bytes | None = None
        self._re1: MLKEM768PublicKey | None = None
        self._generate_keypair = generate_keypair
        self._generate_kem_keypair = generate_kem_keypair
        self._generate_kem_ciphertext = generate_kem_ciphertext
        self._symmetric_state = SymmetricState(pattern.protocol_name, cipher=cipher)
        self._symmetric_state.mix_hash(prologue)
        for role, pre_message in enumerate(pattern.pre_messages):
            if "s" in pre_message:
                self._symmetric_state.mix_hash(_given(rs) if role == them else _public(_given(s)))

    @property
    def is_my_turn(self) -> bool:
        """Whether `write_message` is what comes next; False when nothing more comes."""
        return self._stage is _Stage.RUNNING and self._initiator == (self._next % 2 == 0)

    @property
    def finished(self) -> bool:
        """Whether the last message was written, or read and verified."""
        return self._stage in (_Stage.FINISHED, _Stage.SPLIT)

    @property
    def handshake_hash(self) -> bytes:
        """32 bytes that both sides have, and no other handshake has (section 11.2).

        Raises:
            LocalProtocolError: if the handshake is not finished.
        """
        if not self.finished:
            raise LocalProtocolError("the handshake is not finished")
        return self._symmetric_state.get_handshake_hash()

    def write_message(self, payload: bytes = b"") -> bytes:
        """Return the next handshake message, carrying *payload*.

        Raises:
            LocalProtocolError: if it is not this side's turn, or the message would be longer than
                65,535 bytes; in the latter case the handshake has failed.
        """
        tokens = self._begin(writing=True)
        symmetric_state = self._symmetric_state
        message = bytearray()
        for token in tokens:
            match token:
                case "e":
                    self._e = self._generate_keypair()
                    public = _public(self._e)
                    symmetric_state.mix_hash(public)
                    message += public
                case "s":
                    message += symmetric_state.encrypt_and_hash(_public(_given(self._s)))
                case "e1":
                    self._e1 = self._generate_kem_keypair()
                    public = self._e1.public_key().public_bytes_raw()
                    message += symmetric_state.encrypt_and_hash(public)
                case "ekem1":
                    ciphertext, kem_output = self._generate_kem_ciphertext(_given(self._re1))
                    message += symmetric_state.encrypt_and_hash(ciphertext)
                    symmetric_state.mix_key(kem_output)
                case _:
                    symmetric_state.mix_key(self._dh(token))
        message += symmetric_state.encrypt_and_hash(payload)
        if len(message) > MAX_MESSAGE_LEN:
            raise LocalProtocolError("the payload makes the handshake message too long")
        self._complete()
        return bytes(message)

    def read_message(self, message: bytes) -> bytes:
        """Verify the peer's next handshake message, and return its payload.

        After a DecryptError or HandshakeError every further call is a LocalProtocolError.

        Raises:
            DecryptError: if a part of the message does not verify; a wrong key, a wrong prologue
                and a wrong payload length show as this.
            HandshakeError: if the message is too short or too long, or holds an unusable key.
            LocalProtocolError: if it is not the peer's turn.
        """
        tokens = self._begin(writing=False)
        if len(message) > MAX_MESSAGE_LEN:
            raise HandshakeError("the peer's handshake message is too long")
        symmetric_state = self._symmetric_state
        rest = message
        for token in tokens:
            match token:
                case "e":
                    public, rest = _cut(rest, DHLEN)
                    self._re = _checked(public)
                    symmetric_state.mix_hash(public)
                case "s":
                    public, rest = self._cut_and_decrypt(rest, DHLEN)
                    self.rs = _checked(public)
                case "e1":
                    public, rest = self._cut_and_decrypt(rest, KEMPUBLICKEYLEN)
                    try:
                        self._re1 = MLKEM768PublicKey.from_public_bytes(public)
                    except ValueError:
                        raise HandshakeError("the peer sent an unreduced ML-KEM key") from None
                case "ekem1":
                    ciphertext, rest = self._cut_and_decrypt(rest, KEMCIPHERTEXTLEN)
                    # Never fails: from a ciphertext that is not for our key comes another secret
                    # (FIPS 203, section 6.3), and the payload's tag will not verify.
                    symmetric_state.mix_key(_given(self._e1).decapsulate(ciphertext))
                case _:
                    symmetric_state.mix_key(self._dh(token))
        payload = symmetric_state.decrypt_and_hash(rest)
        self._complete()
        return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the transport's ciphers: initiator to responder, responder to initiator.

        Raises:
            LocalProtocolError: if the handshake is not finished, or was split before: two ciphers
                of the same key would repeat its nonces.
        """
        if self._stage is not _Stage.FINISHED:
            raise LocalProtocolError("the handshake is not finished, or was split before")
        self._stage = _Stage.SPLIT
        return self._symmetric_state.split()

    def _begin(self, *, writing: bool) -> tuple[Token, ...]:
        """Return the tokens of the next message, if it is ours to write or to read."""
        if self._stage is not _Stage.RUNNING:
            raise LocalProtocolError("the handshake is over")
        if writing != self.is_my_turn:
            raise LocalProtocolError("the next handshake message is not this side's to process")
        # Until _complete: nothing may follow a message that was processed in part.
        self._stage = _Stage.FAILED
        return self._messages[self._next]

    def _complete(self) -> None:
        self._next += 1
        last = self._next == len(self._messages)
        self._stage = _Stage.FINISHED if last else _Stage.RUNNING

    def _dh(self, token: Token) -> bytes:
        ours, theirs = (token[0], token[1]) if self._initiator else (token[1], token[0])
        private = _given(self._s if ours == "s" else self._e)
        public = _given(self.rs if theirs == "s" else self._re)
        try:
            return private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise HandshakeError("the peer's public key is of low order") from None

    def _cut_and_decrypt(self, rest: bytes, length: int) -> tuple[bytes, bytes]:
        """Cut off a field of *length* bytes, with its tag once there is a key, and open it."""
        tag = TAGLEN if self._symmetric_state.has_key() else 0
        field, rest = _cut(rest, length + tag)
        return self._symmetric_state.decrypt_and_hash(field), rest


def _cut(rest: bytes, length: int) -> tuple[bytes, bytes]:
    if len(rest) < length:
        raise HandshakeError("the peer's handshake message is too short")
    return rest[:length], rest[length:]


def _checked(public: bytes) -> bytes:
    if not is_valid_public_key(public):
        raise HandshakeError("the peer sent a public key that is not canonical or of low order")
    return public


def _public(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


_T = TypeVar("_T")


def _given(key: _T | None) -> _T:
    """Return a key that is there: a valid pattern (section 7.3) uses none before it is."""
    assert key is not None
    return key
