"""`Session`: the handshake, the states, the meaning of messages, and time."""

from __future__ import annotations

from functools import partial

from securelink import messages, records, states
from securelink.errors import (
    LinkTruncated,
    LocalProtocolError,
    MalformedRecord,
    RemoteProtocolError,
    SecurelinkError,
)
from securelink.file_messages import Accept, FileItem, Prefix
from securelink.framing import FrameReader
from securelink.hello import FEATURES, FILES, ClientHello, ServerHello
from securelink.identity import Identity, PublicKey
from securelink.limits import Limits
from securelink.messages import (
    Announce,
    Close,
    Deny,
    ItemType,
    Message,
    Ping,
    Ready,
    Receipt,
    Refused,
    Text,
)
from securelink.noise import CipherState, HandshakeState
from securelink.session.batch import Batch
from securelink.session.channel import Channel, Scratch
from securelink.session.files import Files, FileSource
from securelink.session.handshake import Handshake, initiator, responder
from securelink.session.happenings import (
    Closing,
    Ended,
    Happening,
    Introduced,
    Proven,
    Verified,
)
from securelink.session.replays import Replays
from securelink.states import Input, State
from securelink.window import Window

BATCH_SIZE = 256 * 1024
"""About how many bytes `data_to_send` seals at once, if nobody says otherwise."""

_NONE: frozenset[int] = frozenset()
_LENGTHS: dict[State, frozenset[int]] = {
    State.AWAIT_MESSAGE_1: frozenset({states.MESSAGE_1_SIZE}),
    State.AWAIT_MESSAGE_2: frozenset({states.MESSAGE_2_SIZE}),
    State.AWAIT_MESSAGE_3: frozenset({states.MESSAGE_3_SIZE}),
    **dict.fromkeys(states.RECEIVING, records.BODY_SIZES),
}
"""The lengths of the frames that may arrive in each state; in all others none may."""


class Session:
    """One side of one link. Make it with `client` or `server`.

    Whatever may end the session returns what has happened, `Ended` once and last of all.

    Attributes:
        state: where it stands.
        features: the feature bits that both sides set; 0 before they are known.
        max_message: the longest text that the other side takes, in bytes of UTF-8.

    Raises:
        LocalProtocolError: the hello has no encoding.
    """

    def __init__(
        self,
        handshake: HandshakeState,
        hello: ClientHello | ServerHello,
        *,
        limits: Limits,
        now: float,
        scratch: Scratch | None = None,
        replays: Replays | None = None,
    ) -> None:
        self._handshake: Handshake | None = Handshake(handshake, hello)
        self._limits = limits
        self._scratch = scratch or Scratch()
        self._replays = replays or Replays()
        self._reader = FrameReader(self._scratch.read)
        self._channel: Channel | None = None
        self._out = Batch()
        self._outgoing = Window()
        self._incoming = Window()
        self._answered: set[bytes] = set()
        self._files = Files(wanted=hello.takes_files)
        self._may_send_files = False
        self._handshake_end = now + limits.handshake_timeout
        self._heartbeat_at = now + limits.heartbeat_interval
        self._last_received = now
        self.features = 0
        self.max_message = 0
        if isinstance(hello, ClientHello):
            self.state = State.AWAIT_MESSAGE_2
            self._out.append(self._handshake.write_1())
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
        return cls(initiator(identity, server), hello, limits=limits, now=now, scratch=scratch)

    @classmethod
    def server(
        cls,
        identity: Identity,
        *,
        limits: Limits,
        now: float,
        scratch: Scratch | None = None,
        replays: Replays | None = None,
    ) -> Session:
        """The side that listens."""
        hello = ServerHello(FEATURES, limits.max_message)
        state = responder(identity)
        return cls(state, hello, limits=limits, now=now, scratch=scratch, replays=replays)

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
                body = self._reader.next_frame(_LENGTHS.get(self.state, _NONE))
                if body is None:
                    break
                happenings += self._take(body)
        except RemoteProtocolError as error:
            happenings.append(self.fail(error))
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
        """The other side will send nothing more; before an orderly end that is a truncation."""
        if self.state in states.ENDED:
            return []
        return [self.fail(LinkTruncated(reason))]

    # ---- what the owner decides

    def proceed(self) -> None:
        """Client, VERIFIED: introduce ourselves with message 3."""
        self._move(Input.PROCEED)
        assert self._handshake is not None
        self._out.append(self._handshake.write_3())
        sending, receiving = self._handshake.split()
        self._open_channel(sending, receiving)

    def admit(self, name: str, waiting: int) -> None:
        """Server, DECIDING: take the link; `waiting` texts wait for the client."""
        self._answer(Input.ADMIT, Ready(name, waiting))

    def deny(self) -> list[Happening]:
        """Server, DECIDING: turn the client away, and say no more than that."""
        self._answer(Input.DENY, Deny())
        return [Ended(None)]

    @property
    def begun(self) -> int:
        """How many bytes are here of a text that has not come whole yet."""
        return 0 if self._channel is None else self._channel.held

    def fits(self, size: int) -> bool:
        """Whether a text of `size` bytes of UTF-8 may be sent now."""
        return self.state is State.OPEN and self._outgoing.fits(size)

    def room(self) -> Window:
        """A copy of the window of what was sent without a receipt, to try in it what fits."""
        return self._outgoing.copy()

    def send_files(self, source: FileSource) -> None:
        """Let `data_to_send` ask for the items of files whenever nothing else waits.

        Raises:
            LocalProtocolError: one of the sides does not know files, or the other takes none.
        """
        if not self._may_send_files:
            raise LocalProtocolError("the other side takes no files")
        self._files.source = source

    def send(self, message: Text | Receipt | Refused | Announce | Accept | Prefix) -> None:
        """Queue a message; `data_to_send` seals it with all else that waits.

        Raises:
            LocalProtocolError: the state, the window or the size does not allow it.
        """
        kind, body = messages.encode(message)
        if self.state is not State.OPEN and not (
            self.state is State.CLOSE_RECEIVED and kind in messages.URGENT
        ):
            raise LocalProtocolError(f"a {kind.name} cannot be sent: {self.state.value}")
        if isinstance(message, Text):
            size = len(body) - messages.TEXT_HEADER_SIZE
            if size > self.max_message or message.id in self._outgoing:
                raise LocalProtocolError("this text is too long, or is under way already")
            if not self._outgoing.fits(size):
                raise LocalProtocolError("too much is under way without a receipt")
            self._outgoing.add(message.id, size)
        assert self._channel is not None
        if isinstance(message, Receipt | Refused) and self._files.answer(message.id):
            self._channel.put(kind, body, partial(self._files.answered, message.id))
        elif isinstance(message, Receipt | Refused):
            if message.id not in self._incoming or message.id in self._answered:
                raise LocalProtocolError("a receipt for a message that owes none")
            self._answered.add(message.id)
            self._channel.put(kind, body, partial(self._settle, message.id))
        else:
            self._channel.put(kind, body)

    def close(self) -> list[Happening]:
        """End the link in order. Texts that have not left yet are dropped; their rows stay."""
        if self.state in states.ENDED or self.state is State.CLOSE_SENT:
            return []
        if self.state not in states.SENDING:
            return [self.fail(LinkTruncated("closed before the link was ready"))]
        channel = self._channel
        assert channel is not None
        channel.drop_unstarted()
        while channel.waiting:
            channel.seal(self._out)
        channel.seal_alone(*messages.encode(Close(channel.sent + 1)), self._out)
        self._move(Input.CLOSE)
        return [Ended(None)] if self.state is State.CLOSED else []

    # ---- bytes out

    def data_to_send(self, now: float, size: int = BATCH_SIZE) -> bytes | memoryview:
        """Sealed frames that are to leave now, in order; empty when nothing waits.

        Of more than *size* bytes the rest waits for the next call.

        All of it must reach the connection before anything else does: a record that was sealed
        and not sent breaks the link.
        """
        if self._channel is not None and self.state in states.SENDING:
            rest = self._files.fill if self.state is State.OPEN else None
            while len(self._out) < size and self._channel.seal(self._out, rest):
                pass
        data = self._out.take()
        if data:
            self._heartbeat_at = now + self._limits.heartbeat_interval
        return data

    def heard(self, now: float) -> None:
        """The other side's silence is our own doing: nothing is read at present."""
        self._last_received = now

    # ---- time

    def deadline(self) -> float | None:
        """When `tick` is due next; None once the session has ended.

        It only ever moves on, save when the handshake ends: then it may come nearer.
        """
        if self.state in states.ENDED:
            return None
        if self.state not in states.LINKED:
            return self._handshake_end
        silence = self._last_received + self._limits.heartbeat_timeout
        if self.state not in states.SENDING:
            return silence
        return min(silence, self._heartbeat_at)

    def tick(self, now: float) -> list[Happening]:
        """Do what time asks for: a PING, or the end of a link that has fallen silent."""
        if self.state in states.ENDED:
            return []
        if self.state not in states.LINKED:
            if now < self._handshake_end:
                return []
            seconds = self._limits.handshake_timeout
            late = f"the handshake was not finished within {seconds:g} s"
            return [self.fail(LinkTruncated(late))]
        if now >= self._last_received + self._limits.heartbeat_timeout:
            seconds = self._limits.heartbeat_timeout
            return [self.fail(LinkTruncated(f"nothing was received for {seconds:g} s"))]
        if self.state in states.SENDING and now >= self._heartbeat_at:
            self._heartbeat_at = now + self._limits.heartbeat_interval
            assert self._channel is not None
            # What waits already, because the connection takes no more, will serve as well.
            if not self._channel.waiting and not self._out:
                self._channel.put(*messages.encode(Ping()))
        return []

    # ---- inside

    def _move(self, by: Input) -> None:
        self.state = states.after(self.state, by)
        if self.state in states.ENDED:
            # No key outlives its use: what was recorded cannot be opened later.
            self._handshake = self._channel = None
            self._files.source = None

    def fail(self, error: SecurelinkError) -> Ended:
        """End the session out of order, because of *error*; the caller has not told of an end."""
        self._move(Input.FAIL)
        self._out.take()
        return Ended(error)

    def _answer(self, by: Input, message: Ready | Deny) -> None:
        kind, body = messages.encode(message)
        channel = self._channel
        self._move(by)
        assert channel is not None
        channel.seal_alone(kind, body, self._out)

    def _open_channel(self, sending: CipherState, receiving: CipherState) -> None:
        self._channel = Channel(
            sending, receiving, max_message=self._limits.max_message, scratch=self._scratch
        )
        self._handshake = None

    def _settle(self, message_id: bytes) -> None:
        # Only now: a peer that reads nothing would else have receipts pile up for new texts.
        self._answered.discard(message_id)
        self._incoming.remove(message_id)

    def _take(self, body: memoryview) -> list[Happening]:
        if self._channel is None:
            assert self._handshake is not None
            return [self._shake_hands(self._handshake, bytes(body))]
        # The plaintext of the largest records has a buffer of its own.
        lasts = len(body) == records.LARGEST + records.TAG_SIZE
        found = self._channel.open(body)
        if self.state is State.AWAIT_READY:
            return self._start(found)
        kinds = [kind for kind, _ in found]
        if kinds.count(ItemType.PING) > 1:
            raise MalformedRecord("more than one PING in a record")
        happenings: list[Happening] = []
        for at, (kind, whole) in enumerate(found, start=1):
            if kind == ItemType.ANNOUNCE and kind in kinds[at:]:
                # The later one replaces it.
                continue
            keep = lasts and kind == FileItem.CHUNK
            message = messages.decode(kind, whole if keep else bytes(whole))
            if isinstance(message, Close):
                if at < len(found):
                    raise MalformedRecord("something follows CLOSE")
                happenings.append(self._be_closed(message))
            else:
                self._act(message, len(whole), happenings)
        return happenings

    def _shake_hands(self, handshake: Handshake, body: bytes) -> Happening:
        if self.state is State.AWAIT_MESSAGE_1:
            handshake.read_1(body, self._replays)
            self._move(Input.MESSAGE_1)
            self._out.append(handshake.write_2())
            return Proven()
        if self.state is State.AWAIT_MESSAGE_2:
            self._meet(handshake.read_2(body))
            self._move(Input.MESSAGE_2)
            return Verified()
        key, hello = handshake.read_3(body)
        self._meet(hello)
        receiving, sending = handshake.split()
        self._open_channel(sending, receiving)
        self._move(Input.MESSAGE_3)
        return Introduced(key, hello)

    def _meet(self, hello: ClientHello | ServerHello) -> None:
        self.features = FEATURES & hello.features
        self.max_message = hello.max_message
        self._may_send_files = hello.takes_files and bool(self.features & FILES)

    def _start(self, found: list[tuple[int, memoryview | bytes]]) -> list[Happening]:
        """Client: take the server's answer, which stands alone in the first record."""
        assert self._channel is not None
        if len(found) != 1 or self._channel.unfinished:
            raise MalformedRecord("the server's answer does not stand alone")
        message = messages.decode(found[0][0], bytes(found[0][1]))
        match message:
            case Ready():
                self._move(Input.READY)
                return [message]
            case Deny():
                self._move(Input.DENIED)
                return [message, Ended(None)]
        raise MalformedRecord("the server speaks before READY")

    def _act(self, message: Message, size: int, happenings: list[Happening]) -> None:
        """Act on a message of `size` bytes."""
        match message:
            case Text():
                size -= messages.TEXT_HEADER_SIZE
                if size > self._limits.max_message:
                    raise MalformedRecord("a text is longer than this side takes")
                if message.id in self._incoming or not self._incoming.fits(size):
                    raise MalformedRecord("a text comes although too much is without a receipt")
                self._incoming.add(message.id, size)
                # After our own CLOSE nothing can be receipted, so nothing may be taken.
                if self.state is State.OPEN:
                    happenings.append(message)
            case Receipt() | Refused():
                if not (self._outgoing.remove(message.id) or self._files.take_answer(message.id)):
                    raise MalformedRecord("a receipt for a message that was not sent")
                happenings.append(message)
            case Announce():
                if self.state is State.OPEN:
                    happenings.append(message)
            case Ping():
                pass
            case Ready() | Deny() | Close():
                raise MalformedRecord("the link is ready already")
            case _:
                if not self.features & FILES:
                    raise MalformedRecord("files come, and one side does not know them")
                if self.state is State.OPEN:
                    self._files.take(message)
                    happenings.append(message)

    def _be_closed(self, close: Close) -> Happening:
        assert self._channel is not None
        if close.count != self._channel.received or self._channel.unfinished:
            raise MalformedRecord("the last record does not count what came before it")
        self._move(Input.CLOSE_RECEIVED)
        return Ended(None) if self.state is State.CLOSED else Closing()
