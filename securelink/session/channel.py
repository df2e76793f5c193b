"""The records of one link once its handshake is over: packed and sealed, opened and assembled.

Record n of a direction has the nonce n. Before the records 1,024, 2,048 and so on the key of that
direction is replaced (Noise revision 34, section 11.3: REKEY); the nonce goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from securelink import framing, messages, records
from securelink.noise import CipherState
from securelink.session.batch import Batch
from securelink.session.buffers import Buffers

REKEY_AFTER = 1024
"""Records in one direction under one key."""


MOST_CHUNKS = 64
"""Buffers for the largest records, 4 MiB, that are kept for the next."""


class Scratch:
    """Buffers that all sessions of one event loop share.

    None keeps anything in them, save in `chunks`: who looks at one of those has it for good.
    """

    __slots__ = ("chunks", "opened", "read", "sealed")

    def __init__(self) -> None:
        self.read = bytearray(framing.SCRATCH_SIZE)
        self.sealed = bytearray(records.LARGEST)
        self.opened = bytearray(records.LARGEST)
        self.chunks = Buffers(records.LARGEST, MOST_CHUNKS)


class Channel:
    """Both directions of one link.

    Args:
        sending: the cipher of our direction, which this class alone may use from now on.
        receiving: that of theirs, likewise.
        max_message: the longest text to take, in bytes of UTF-8.
        scratch: where plaintext stands while it is sealed or opened.
    """

    __slots__ = ("_assembler", "_packer", "_receiving", "_scratch", "_sending")

    def __init__(
        self,
        sending: CipherState,
        receiving: CipherState,
        *,
        max_message: int,
        scratch: Scratch,
    ) -> None:
        self._sending = sending
        self._receiving = receiving
        self._scratch = scratch
        self._packer = records.Packer()
        self._assembler = records.Assembler(
            limit=messages.TEXT_HEADER_SIZE + max_message,
            splittable=messages.SPLITTABLE,
            between=messages.URGENT,
        )

    @property
    def sent(self) -> int:
        """How many records were sealed."""
        return self._sending.n

    @property
    def received(self) -> int:
        """How many records were opened."""
        return self._receiving.n

    @property
    def waiting(self) -> bool:
        """Whether anything waits to be sealed."""
        return bool(self._packer)

    @property
    def unfinished(self) -> bool:
        """Whether a message of theirs has begun and not ended."""
        return self._assembler.unfinished

    @property
    def held(self) -> int:
        """How many bytes of it are here."""
        return self._assembler.held

    def put(self, kind: int, body: bytes, sealed: Callable[[], object] | None = None) -> None:
        """Let an encoded message wait for its turn.

        Args:
            sealed: called when it is sealed; for urgent messages alone.
        """
        if kind in messages.URGENT:
            self._packer.put_urgent(kind, body, sealed)
        else:
            assert sealed is None
            self._packer.put(kind, body)

    def drop_unstarted(self) -> None:
        """Forget what waits, save what is urgent and the rest of a message that has begun."""
        self._packer.drop_unstarted()

    def seal(self, out: Batch, rest: Callable[[memoryview], int] | None = None) -> bool:
        """Append one frame with as much of what waits as it holds; False if nothing does.

        Args:
            rest: as for `records.Packer.fill`.
        """
        return self._seal_from(self._packer, out, rest)

    def seal_alone(self, kind: int, body: bytes, out: Batch) -> None:
        """Append one frame with this message and nothing else, ahead of what waits."""
        packer = records.Packer()
        packer.put(kind, body)
        self._seal_from(packer, out, None)

    def open(self, body: memoryview) -> list[tuple[int, memoryview | bytes]]:
        """Decrypt a frame's body; return the messages that it completes, as type and body.

        The bodies are good until the next call; those of the largest records for good.

        Raises:
            DecryptError: the tag does not verify.
            MalformedRecord: what is in it does not follow the format.
        """
        receiving = self._receiving
        if receiving.n and receiving.n % REKEY_AFTER == 0:
            receiving.rekey()
        # Decryption leaves unauthenticated plaintext behind when it fails: this buffer is seen
        # by nobody unless it has succeeded.
        size = len(body) - records.TAG_SIZE
        if size == records.LARGEST:
            # Most likely a chunk, which so need not be copied out of a buffer that others use.
            plain = self._scratch.chunks.get()
        else:
            plain = memoryview(self._scratch.opened)[:size]
        receiving.decrypt_into(body, plain)
        feed = self._assembler.feed
        return [whole for item in records.unpack(plain) if (whole := feed(item)) is not None]

    def _seal_from(
        self,
        packer: records.Packer,
        out: Batch,
        rest: Callable[[memoryview], int] | None,
    ) -> bool:
        # Nothing may come between sealing and the frame's place in the queue: a record that is
        # missing ends the link.
        plain = memoryview(self._scratch.sealed)
        size = packer.fill(plain, rest)
        if not size:
            return False
        sending = self._sending
        if sending.n and sending.n % REKEY_AFTER == 0:
            sending.rekey()
        sending.encrypt_into(plain[:size], out.frame(size + records.TAG_SIZE))
        return True
