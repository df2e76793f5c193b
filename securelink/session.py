"""One link without its connection: bytes in, happenings out.

A session does no I/O and reads no clock: its owner hands in bytes and the time (seconds on a
monotonic clock), and takes out bytes and happenings. Where it stands is in the table of `states`.

Wire format: docs/protocol.md. Handshake: Noise revision 34 with the HFS extension, see `noise`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from securelink import framing, messages, records, states
from securelink.errors import (
    HandshakeError,
    LinkTruncated,
    LocalProtocolError,
    MalformedRecord,
    RemoteProtocolError,
    SecurelinkError,
)
from securelink.framing import FrameReader
from securelink.hello import FEATURES, ClientHello, ServerHello
from securelink.identity import Identity, PublicKey
from securelink.limits import Limits
from securelink.messages import Announce, Close, Deny, Message, Ping, Ready, Receipt, Refused, Text
from securelink.noise import PATTERNS, CipherState, HandshakeState
from securelink.states import Input, State
from securelink.window import Window

HEADER = b"SL\x01\x01"
"""Magic, version 1, suite 1 (Noise_XKhfs_25519+MLKEM768_AESGCM_SHA256)."""

PROLOGUE = b"securelink" + HEADER
REKEY_AFTER = 1024
"""Records in one direction under one key."""

BATCH_SIZE = 256 * 1024
"""About how many bytes `data_to_send` seals at once."""

_LENGTHS: dict[State, frozenset[int]] = {
    State.AWAIT_MESSAGE_1: frozenset({states.MESSAGE_1_SIZE}),
    State.AWAIT_MESSAGE_2: frozenset({states.MESSAGE_2_SIZE}),
    State.AWAIT_MESSAGE_3: frozenset({states.MESSAGE_3_SIZE}),
    **dict.fromkeys(states.RECEIVING, records.BODY_SIZES),
}
"""The lengths of the frames that may arrive in each state; in all others none may."""


@dataclass(frozen=True, slots=True)
class Proven:
    """Server: the client knows our public key."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Client: the server holds the pinned key; `proceed` sends message 3."""


@dataclass(frozen=True, slots=True)
class Introduced:
    """Server: the client holds `key`; the owner calls `admit` or `deny`."""

    key: PublicKey
    hello: ClientHello


@dataclass(frozen=True, slots=True)
class Closing:
    """The other side has sent its last; the owner finishes what it has read, then closes."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes or goes; `error` is None after an orderly end."""

    error: SecurelinkError | None


Happening: TypeAlias = (
    Proven
    | Verified
    | Introduced
    | Ready
    | Deny
    | Text
    | Receipt
    | Refused
    | Announce
    | Closing
    | Ended
)


class _Ciphers(NamedTuple):
    sending: CipherState
    receiving: CipherState


class Scratch:
    """Buffers that all sessions of one event loop share: none keeps anything in them."""

    def __init__(self) -> None:
        self.read = bytearray(framing.SCRATCH_SIZE)
        self.sealed = bytearray(records.LARGEST)
        self.opened = bytearray(records.LARGEST)


class Session:
    """One side of one link. Make it with `client` or `server`.

    Attributes:
        state: where it stands.
        features: the feature bits that both sides set; 0 before they are known.
        max_message: the longest text that the other side takes, in bytes of UTF-8.
    """

    def __init__(
        self,
        handshake: HandshakeState,
        hello: ClientHello | ServerHello,
        *,
        limits: Limits,
        now: float,
        scratch: Scratch | None = None,
    ) -> None:
        self._handshake: HandshakeState | None = handshake
        self._hello = hello
        self._limits = limits
        self._scratch = scratch or Scratch()
        self._reader = FrameReader(self._scratch.read)
        self._ciphers: _Ciphers | None = None
        self._packer = records.Packer()
        self._assembler = records.Assembler(
            limit=messages.TEXT_HEADER_SIZE + limits.max_message,
            splittable=messages.SPLITTABLE,
            between=messages.URGENT,
        )
        self._out: list[bytes | bytearray] = []
        self._outgoing = Window()
        self._incoming = Window()
        self._handshake_end = now + limits.handshake_timeout
        self._last_sent = self._last_received = now
        self.features = 0
        self.max_message = 0
        if isinstance(hello, ClientHello):
            self.state = State.AWAIT_MESSAGE_2
            self._out.append(framing.frame(HEADER + handshake.write_message()))
        else:
            self.state = State.AWAIT_MESSAGE_1

    @classmethod
    def client(
        cls,
        identity: Identity,
        server: PublicKey,
        hello: ClientHello,
        *,
        limits: Limits,
        now: float,
        scratch: Scratch | None = None,
    ) -> Session:
        """The side that dials, and knows whom."""
        handshake = HandshakeState(
            PATTERNS["XKhfs"],
            initiator=True,
            prologue=PROLOGUE,
            s=identity.private,
            rs=server.raw,
        )
        return cls(handshake, hello, limits=limits, now=now, scratch=scratch)

    @classmethod
    def server(
        cls,
        identity: Identity,
        *,
        limits: Limits,
        now: float,
        scratch: Scratch | None = None,
    ) -> Session:
        """The side that listens."""
        handshake = HandshakeState(
            PATTERNS["XKhfs"], initiator=False, prologue=PROLOGUE, s=identity.private
        )
        hello = ServerHello(FEATURES, limits.max_message)
        return cls(handshake, hello, limits=limits, now=now, scratch=scratch)

    # ---- bytes in

    def get_buffer(self) -> memoryview:
        """Where to read into, straight before `buffer_updated`."""
        return self._reader.get_buffer()

    def buffer_updated(self, count: int, now: float) -> list[Happening]:
        """Take in `count` bytes that were read into `get_buffer()`."""
        self._last_received = now
        self._reader.buffer_updated(count)
        happenings: list[Happening] = []
        try:
            while self.state not in states.ENDED:
                body = self._reader.next_frame(_LENGTHS.get(self.state, frozenset()))
                if body is None:
                    break
                happenings += self._take(body)
        except RemoteProtocolError as error:
            self._fail(happenings, error)
        self._reader.keep_rest()
        return happenings

    def receive_data(self, data: bytes, now: float) -> list[Happening]:
        """Take in bytes from anywhere."""
        happenings: list[Happening] = []
        rest = memoryview(data)
        while rest:
            buffer = self.get_buffer()
            count = min(len(buffer), len(rest))
            buffer[:count] = rest[:count]
            happenings += self.buffer_updated(count, now)
            rest = rest[count:]
        return happenings

    def receive_eof(self, reason: str = "the connection was cut") -> list[Happening]:
        """The other side will send nothing more; without its CLOSE that is a truncation."""
        happenings: list[Happening] = []
        if self.state not in states.ENDED:
            self._fail(happenings, LinkTruncated(reason))
        return happenings

    # ---- what the owner decides

    def proceed(self) -> None:
        """Client, VERIFIED: introduce ourselves with message 3."""
        self._move(Input.PROCEED)
        assert self._handshake is not None
        self._out.append(framing.frame(self._handshake.write_message(self._hello.encode())))
        self._split(self._handshake)

    def admit(self, name: str, waiting: int) -> None:
        """Server, DECIDING: take the link; `waiting` texts wait for the client."""
        self._move(Input.ADMIT)
        self._seal_alone(Ready(name, waiting))

    def deny(self) -> None:
        """Server, DECIDING: turn the client away, and say no more than that."""
        self._move(Input.DENY)
        self._seal_alone(Deny())

    def fits(self, size: int) -> bool:
        """Whether a text of `size` bytes of UTF-8 may be sent now."""
        return self.state is State.OPEN and self._outgoing.fits(size)

    def room(self) -> Window:
        """A copy of the window of what was sent without a receipt, to try in it what fits."""
        return self._outgoing.copy()

    def send(self, message: Text | Receipt | Refused | Announce) -> None:
        """Queue a message; `data_to_send` seals it with all else that waits.

        Raises:
            LocalProtocolError: the state, the window or the size does not allow it.
        """
        kind, body = messages.encode(message)
        urgent = kind in messages.URGENT
        if self.state not in (states.SENDING if urgent else {State.OPEN}):
            raise LocalProtocolError(f"a {kind.name} cannot be sent: {self.state.value}")
        if isinstance(message, Text):
            size = len(body) - messages.TEXT_HEADER_SIZE
            if size > self.max_message or message.id in self._outgoing:
                raise LocalProtocolError("this text is too long, or is under way already")
            if not self._outgoing.fits(size):
                raise LocalProtocolError("too much is under way without a receipt")
            self._outgoing.add(message.id, size)
        elif isinstance(message, Receipt | Refused) and not self._incoming.remove(message.id):
            raise LocalProtocolError("a receipt for a message that owes none")
        self._packer.put(kind, body, urgent=urgent)

    def close(self) -> None:
        """End the link in order. Texts that have not left yet are dropped; their rows stay."""
        if self.state in states.ENDED or self.state is State.CLOSE_SENT:
            return
        if self.state not in states.SENDING:
            self._fail([], LinkTruncated("closed before the link was ready"))
            return
        self._packer.drop_unstarted()
        self._seal_waiting(unbounded=True)
        self._move(Input.CLOSE)
        assert self._ciphers is not None
        self._seal_alone(Close(self._ciphers.sending.n + 1))

    # ---- bytes out

    def data_to_send(self, now: float) -> bytes:
        """Sealed frames that are to leave now, in order; empty when nothing waits.

        All of it must reach the connection before anything else does: a record that was sealed
        and not sent breaks the link.
        """
        if self._packer and self.state in states.SENDING:
            self._seal_waiting(unbounded=False)
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        self._last_sent = now
        return data

    # ---- time

    def deadline(self) -> float | None:
        """When `tick` is due next; None once the session has ended."""
        if self.state in states.ENDED:
            return None
        if self.state not in states.LINKED:
            return self._handshake_end
        silence = self._last_received + self._limits.heartbeat_timeout
        if self.state not in states.SENDING:
            return silence
        return min(silence, self._last_sent + self._limits.heartbeat_interval)

    def tick(self, now: float) -> list[Happening]:
        """Do what time asks for: a PING, or the end of a link that has fallen silent."""
        happenings: list[Happening] = []
        if self.state in states.ENDED:
            return happenings
        if self.state not in states.LINKED:
            if now >= self._handshake_end:
                seconds = self._limits.handshake_timeout
                late = LinkTruncated(f"the handshake was not finished within {seconds:g} s")
                self._fail(happenings, late)
        elif now >= self._last_received + self._limits.heartbeat_timeout:
            seconds = self._limits.heartbeat_timeout
            self._fail(happenings, LinkTruncated(f"nothing was received for {seconds:g} s"))
        elif (
            self.state in states.SENDING
            and now >= self._last_sent + self._limits.heartbeat_interval
        ):
            self._packer.put(*messages.encode(Ping()), urgent=True)
        return happenings

    # ---- inside

    def _move(self, by: Input) -> None:
        self.state = states.after(self.state, by)

    def _fail(self, happenings: list[Happening], error: SecurelinkError) -> None:
        self._move(Input.FAIL)
        self._out.clear()
        happenings.append(Ended(error))

    def _split(self, handshake: HandshakeState) -> None:
        ours, theirs = handshake.split()
        if isinstance(self._hello, ServerHello):
            ours, theirs = theirs, ours
        self._ciphers = _Ciphers(sending=ours, receiving=theirs)
        # The ephemeral keys go with it: what was recorded cannot be opened later.
        self._handshake = None

    def _take(self, body: memoryview) -> list[Happening]:
        if self._ciphers is not None:
            return list(self._open(self._ciphers.receiving, body))
        assert self._handshake is not None
        return self._shake_hands(self._handshake, bytes(body))

    def _shake_hands(self, handshake: HandshakeState, body: bytes) -> list[Happening]:
        if self.state is State.AWAIT_MESSAGE_1:
            if body[: len(HEADER)] != HEADER:
                raise HandshakeError("the first frame is not of this protocol")
            handshake.read_message(body[len(HEADER) :])
            self._move(Input.MESSAGE_1)
            self._out.append(framing.frame(handshake.write_message(self._hello.encode())))
            return [Proven()]
        payload = handshake.read_message(body)
        if self.state is State.AWAIT_MESSAGE_2:
            self._meet(ServerHello.decode(payload))
            self._move(Input.MESSAGE_2)
            return [Verified()]
        hello = ClientHello.decode(payload)
        self._meet(hello)
        assert handshake.rs is not None
        key = PublicKey(handshake.rs)
        self._split(handshake)
        self._move(Input.MESSAGE_3)
        return [Introduced(key, hello)]

    def _meet(self, hello: ClientHello | ServerHello) -> None:
        self.features = FEATURES & hello.features
        self.max_message = hello.max_message

    def _open(self, receiving: CipherState, body: memoryview) -> Iterator[Happening]:
        """Decrypt one record and act on its items."""
        if receiving.n and receiving.n % REKEY_AFTER == 0:
            receiving.rekey()
        # Decryption leaves unauthenticated plaintext behind when it fails: this buffer is seen
        # by nobody unless it has succeeded.
        plain = memoryview(self._scratch.opened)[: len(body) - records.TAG_SIZE]
        receiving.decrypt_into(body, plain)
        items = records.unpack(plain)
        if self.state is State.AWAIT_READY and len(items) != 1:
            raise MalformedRecord("READY does not stand alone")
        for item in items:
            if self.state not in states.RECEIVING:
                raise MalformedRecord("something follows the last item")
            whole = self._assembler.feed(item)
            if whole is not None:
                message = messages.decode(whole[0], bytes(whole[1]))
                yield from self._act(message, len(whole[1]), receiving.n)

    def _act(self, message: Message, size: int, count: int) -> Iterator[Happening]:
        """Act on one message of `size` bytes in the link's record number `count`, from 1."""
        if self.state is State.AWAIT_READY:
            if isinstance(message, Ready):
                self._move(Input.READY)
                yield message
            elif isinstance(message, Deny):
                self._move(Input.DENIED)
                yield message
                yield Ended(None)
            else:
                raise MalformedRecord("the server speaks before READY")
            return
        match message:
            case Text():
                size -= messages.TEXT_HEADER_SIZE
                if size > self._limits.max_message:
                    raise MalformedRecord("a text is longer than this side takes")
                if message.id in self._incoming or not self._incoming.fits(size):
                    raise MalformedRecord("a text comes although too much is without a receipt")
                self._incoming.add(message.id, size)
                if self.state is State.OPEN:
                    yield message
            case Receipt() | Refused():
                if not self._outgoing.remove(message.id):
                    raise MalformedRecord("a receipt for a message that was not sent")
                yield message
            case Announce():
                yield message
            case Ping():
                pass
            case Close():
                if message.count != count or self._assembler.unfinished:
                    raise MalformedRecord("the last record does not count what came before it")
                self._move(Input.CLOSE_RECEIVED)
                yield Ended(None) if self.state is State.CLOSED else Closing()
            case Ready() | Deny():
                raise MalformedRecord("the link is ready already")

    def _seal_waiting(self, *, unbounded: bool) -> None:
        sealed = 0
        plain = memoryview(self._scratch.sealed)
        while unbounded or sealed < BATCH_SIZE:
            size = self._packer.fill(plain)
            if not size:
                break
            sealed += self._seal(plain[:size])

    def _seal_alone(self, message: Message) -> None:
        packer = records.Packer()
        packer.put(*messages.encode(message))
        plain = memoryview(self._scratch.sealed)
        self._seal(plain[: packer.fill(plain)])

    def _seal(self, plain: memoryview) -> int:
        """Encrypt one record; nothing may come between this and its place in the queue."""
        assert self._ciphers is not None
        sending = self._ciphers.sending
        if sending.n and sending.n % REKEY_AFTER == 0:
            sending.rekey()
        length = len(plain) + records.TAG_SIZE
        out = bytearray(framing.LENGTH_SIZE + length)
        out[: framing.LENGTH_SIZE] = length.to_bytes(framing.LENGTH_SIZE, "big")
        sending.encrypt_into(plain, memoryview(out)[framing.LENGTH_SIZE :])
        self._out.append(out)
        return len(out)
