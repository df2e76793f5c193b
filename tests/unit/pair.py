"""Two sessions wired without a network under a clock that stands still, and a peer without rules.

What crosses the wire is kept, so that a test can cut it, change it or play it again. `RawPeer`
shares nothing with `securelink.session` but the Noise handshake: framing, padding, nonces and
rekeying are its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from securelink.hello import FEATURES, ClientHello, ServerHello
from securelink.identity import Identity
from securelink.limits import Limits
from securelink.noise import PATTERNS, HandshakeState
from securelink.session import Happening, Introduced, Scratch, Session, Verified
from securelink.states import State

ALICE = Identity.from_private_bytes(bytes([1]) * 32)
"""The server."""

BOB = Identity.from_private_bytes(bytes([2]) * 32)
"""The client."""

HEADER = b"SL\x01\x01"
PROLOGUE = b"securelink" + HEADER
REKEY_NONCE = bytes(4) + b"\xff" * 8
SIZES = (64, 256, 1024, 4096, 16384, 65519)

Cipher = Callable[[bytes], AESGCM]

_scratch = Scratch()


def client_hello(*, max_message: int = 1 << 20, token: bytes | None = None) -> ClientHello:
    return ClientHello("bob", FEATURES, max_message, token=token, takes_files=True)


def handshake(*, initiator: bool, cipher: Cipher = AESGCM, fixed: Fixed | None = None):
    """A side of the handshake, whose randomness a test may fix."""
    sources = fixed.sources() if fixed else {}
    if initiator:
        return HandshakeState(
            PATTERNS["XKhfs"],
            initiator=True,
            prologue=PROLOGUE,
            s=BOB.private,
            rs=ALICE.public.raw,
            cipher=cipher,
            **sources,
        )
    return HandshakeState(
        PATTERNS["XKhfs"],
        initiator=False,
        prologue=PROLOGUE,
        s=ALICE.private,
        cipher=cipher,
        **sources,
    )


class Fixed:
    """The same ephemeral keys in every handshake, so that its bytes are the same too."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._encapsulated: dict[bytes, tuple[bytes, bytes]] = {}

    def sources(self):
        def encapsulate(key: MLKEM768PublicKey) -> tuple[bytes, bytes]:
            raw = key.public_bytes_raw()
            if raw not in self._encapsulated:
                secret, ciphertext = key.encapsulate()
                self._encapsulated[raw] = ciphertext, secret
            return self._encapsulated[raw]

        return {
            "generate_keypair": lambda: X25519PrivateKey.from_private_bytes(
                bytes([self._seed]) * 32
            ),
            "generate_kem_keypair": lambda: MLKEM768PrivateKey.from_seed_bytes(
                bytes([self._seed]) * 64
            ),
            "generate_kem_ciphertext": encapsulate,
        }


class Pair:
    """A client and a server, and what crosses between them."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        client_limits: Limits | None = None,
        cipher: Cipher = AESGCM,
        fixed: tuple[Fixed, Fixed] = (None, None),
        token: bytes | None = None,
    ) -> None:
        limits = limits or Limits()
        client_limits = client_limits or limits
        self.now = 1000.0
        self.client = Session(
            handshake(initiator=True, cipher=cipher, fixed=fixed[0]),
            client_hello(max_message=client_limits.max_message, token=token),
            limits=client_limits,
            now=self.now,
            scratch=_scratch,
        )
        self.server = Session(
            handshake(initiator=False, cipher=cipher, fixed=fixed[1]),
            ServerHello(FEATURES, limits.max_message),
            limits=limits,
            now=self.now,
            scratch=_scratch,
        )
        self.at_client: list[Happening] = []
        self.at_server: list[Happening] = []
        self.to_client: list[bytes] = []
        self.to_server: list[bytes] = []

    def step(self) -> bool:
        """Carry across once what both sides have to say; tell whether there was anything."""
        for_server = bytes(self.client.data_to_send(self.now))
        for_client = bytes(self.server.data_to_send(self.now))
        if for_server:
            self.to_server.append(for_server)
            self.at_server += self.server.receive_data(for_server, self.now)
        if for_client:
            self.to_client.append(for_client)
            self.at_client += self.client.receive_data(for_client, self.now)
        return bool(for_server or for_client)

    def settle(self) -> None:
        """Carry across until nobody has anything to say."""
        while self.step():
            pass

    def shake_hands(self) -> Pair:
        """Carry across up to the server's decision."""
        self.settle()
        assert isinstance(self.at_client[-1], Verified)
        self.client.proceed()
        self.settle()
        assert isinstance(self.at_server[-1], Introduced)
        return self

    def open(self) -> Pair:
        """Carry across until messages flow, and forget what happened on the way."""
        self.shake_hands()
        self.server.admit("alice", 0)
        self.settle()
        return self.forget()

    def forget(self) -> Pair:
        self.at_client, self.at_server, self.to_client, self.to_server = [], [], [], []
        return self


def item(kind: int, body: bytes = b"", *, more: bool = False) -> bytes:
    return bytes([kind | (0x80 if more else 0)]) + len(body).to_bytes(2, "big") + body


def pad(items: bytes, size: int | None = None) -> bytes:
    """A record's plaintext, of the smallest size there is unless one is given."""
    return items.ljust(size or next(size for size in SIZES if len(items) <= size), b"\0")


def frames(stream: bytes) -> list[bytes]:
    """The frames of a stream, lengths included."""
    found = []
    while stream:
        end = 4 + int.from_bytes(stream[:4], "big")
        assert len(stream) >= end
        found.append(stream[:end])
        stream = stream[end:]
    return found


def items(record: bytes) -> list[tuple[int, bytes]]:
    """The items of a record as (type byte, body); what follows them must be zeros."""
    found = []
    while record and record[0]:
        end = 3 + int.from_bytes(record[1:3], "big")
        found.append((record[0], record[3:end]))
        record = record[end:]
    assert not any(record)
    return found


READY = item(1, b"\x05alice" + bytes(4))


class Direction:
    """The records of one direction, sealed or opened as the specification says."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.n = 0

    def _aead(self) -> tuple[AESGCM, bytes]:
        if self.n and self.n % 1024 == 0:
            # Noise, sections 4.2 and 12.4: nonce 2^64 - 1, no associated data, 32 zeros.
            self.key = AESGCM(self.key).encrypt(REKEY_NONCE, bytes(32), b"")[:32]
        nonce = self.n.to_bytes(12, "big")
        self.n += 1
        return AESGCM(self.key), nonce

    def seal(self, record: bytes) -> bytes:
        aead, nonce = self._aead()
        body = aead.encrypt(nonce, record, b"")
        return len(body).to_bytes(4, "big") + body

    def open(self, frame: bytes) -> bytes:
        aead, nonce = self._aead()
        return aead.decrypt(nonce, frame[4:], b"")


class KeyLog:
    """A cipher that tells which keys were made, and refuses to use a nonce twice."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.nonces: set[tuple[bytes, bytes]] = set()
        self.made: weakref.WeakSet[AESGCM] = weakref.WeakSet()

    def __call__(self, key: bytes) -> AESGCM:
        log = self
        log.keys.append(key)
        aead = AESGCM(key)

        class Watched:
            decrypt = aead.decrypt
            decrypt_into = aead.decrypt_into

            def encrypt(self, nonce, data, ad):
                # REKEY: both sides make the same of it, and nothing of that is ever sent.
                if (nonce, data) != (REKEY_NONCE, bytes(32)):
                    log._use(key, nonce)
                return aead.encrypt(nonce, data, ad)

            def encrypt_into(self, nonce, data, ad, out):
                log._use(key, nonce)
                return aead.encrypt_into(nonce, data, ad, out)

        watched = Watched()
        log.made.add(watched)
        return watched

    def _use(self, key: bytes, nonce: bytes) -> None:
        assert (key, nonce) not in self.nonces, "a nonce was used twice"
        self.nonces.add((key, nonce))


class RawPeer:
    """The other side of one session: holds the right keys, and says whatever a test wants.

    Args:
        initiator: whether it plays the client.
        payload: what it says in the handshake.
        hello: what the session says there, if that plays the client.

    Attributes:
        happened: what came of this side's payload in the handshake.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        payload: bytes | None = None,
        limits: Limits | None = None,
        hello: ClientHello | None = None,
    ) -> None:
        limits = limits or Limits()
        self.now = 1000.0
        log = KeyLog()
        state = handshake(initiator=initiator, cipher=log)
        if initiator:
            self.session = Session.server(ALICE, limits=limits, now=self.now, scratch=_scratch)
            self.feed(self._frame(HEADER + state.write_message()))
            state.read_message(self.take()[4:])
            payload = client_hello().encode() if payload is None else payload
            self.happened = self.feed(self._frame(state.write_message(payload)))
        else:
            self.session = Session.client(
                BOB,
                ALICE.public,
                hello or client_hello(max_message=limits.max_message),
                limits=limits,
                now=self.now,
                scratch=_scratch,
            )
            state.read_message(self.take()[8:])
            payload = ServerHello(FEATURES, 1 << 20).encode() if payload is None else payload
            self.happened = self.feed(self._frame(state.write_message(payload)))
            if self.session.state is State.FAILED:
                return
            self.session.proceed()
            state.read_message(self.take()[4:])
        state.split()
        one, two = (Direction(key) for key in log.keys[-2:])
        self.sending, self.receiving = (one, two) if initiator else (two, one)

    def open(self) -> RawPeer:
        """Go on until messages flow."""
        if self.session.state is State.DECIDING:
            self.session.admit("alice", 0)
            self.hear()
        else:
            self.say(READY)
        assert self.session.state is State.OPEN
        return self

    @staticmethod
    def _frame(body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + body

    def feed(self, data: bytes) -> list[Happening]:
        return self.session.receive_data(data, self.now)

    def take(self) -> bytes:
        return bytes(self.session.data_to_send(self.now))

    def say(self, *parts: bytes, size: int | None = None) -> list[Happening]:
        """Seal these items into one record, and hand it to the session."""
        return self.feed(self.sending.seal(pad(b"".join(parts), size)))

    def hear(self) -> list[tuple[int, bytes]]:
        """The items of all records that the session has to say."""
        return [found for record in self.hear_records() for found in items(record)]

    def hear_records(self) -> list[bytes]:
        return [self.receiving.open(frame) for frame in frames(self.take())]


def text_body(number: int, text: bytes = b"hello") -> bytes:
    return number.to_bytes(16, "big") + bytes(8) + text


def text_items(numbers: Iterable[int], text: bytes = b"hello") -> list[bytes]:
    return [item(3, text_body(number, text)) for number in numbers]


def in_state(state: State) -> Session:
    """A session that stands where it is asked for."""
    pair = Pair()
    match state:
        case State.AWAIT_MESSAGE_1:
            session = pair.server
        case State.AWAIT_MESSAGE_2:
            session = pair.client
        case State.AWAIT_MESSAGE_3:
            session = pair.server
            session.receive_data(pair.client.data_to_send(pair.now), pair.now)
        case State.VERIFIED:
            pair.settle()
            session = pair.client
        case State.DECIDING:
            session = pair.shake_hands().server
        case State.AWAIT_READY:
            session = pair.shake_hands().client
        case State.OPEN:
            session = pair.open().client
        case State.CLOSE_SENT:
            session = pair.open().client
            session.close()
        case State.CLOSE_RECEIVED:
            session = pair.open().client
            pair.server.close()
            pair.settle()
        case State.CLOSED:
            session = pair.open().client
            pair.server.close()
            pair.settle()
            session.close()
        case State.FAILED:
            session = pair.open().client
            session.receive_eof()
    assert session.state is state
    session.data_to_send(pair.now)
    return session
