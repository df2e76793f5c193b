"""Files on a link: what goes when, which ID owes an answer, and what ends the link."""

from __future__ import annotations

import gc
import random
import weakref
from collections import deque
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair import (
    READY,
    SIZES,
    KeyLog,
    Pair,
    RawPeer,
    in_state,
    item,
    items,
    text_body,
    text_items,
)
from pair import Direction as Opener

from securelink import records
from securelink.errors import LocalProtocolError, MalformedRecord
from securelink.file_messages import (
    TYPES,
    Accept,
    Begin,
    Cancel,
    Chunk,
    End,
    FileMessage,
    Offer,
    Prefix,
)
from securelink.hello import FEATURES, ClientHello, ServerHello
from securelink.limits import Limits
from securelink.messages import Receipt, Refused, Text, encode
from securelink.session import BATCH_SIZE, Closing, Data, Ended, Session
from securelink.session.files import MOST_ITEMS, MOST_OPEN, SMALLEST_CHUNK
from securelink.states import State

SIDES = ["client", "server"]
MIB = 1 << 20
TEXT, RECEIPT, REFUSED, PING, CLOSE = 3, 4, 5, 6, 7
OFFER, ACCEPT, PREFIX, BEGIN, CHUNK, END, CANCEL = range(16, 23)
LARGEST_CHUNK = 65_512


class Flow:
    """The bytes of a file, given out as they are asked for, `step` at a time at most."""

    def __init__(self, number: int, content: bytes, step: int = MIB) -> None:
        self.number = number
        self.content = content
        self.step = step

    def read(self, room: memoryview) -> int:
        count = min(len(room), len(self.content), self.step)
        room[:count] = self.content[:count]
        self.content = self.content[count:]
        return count


class Source:
    """What is to go, in order; it counts how often it was asked."""

    def __init__(self, *queue: FileMessage | Flow) -> None:
        self.queue = deque(queue)
        self.asked = 0

    def next(self) -> FileMessage | Data | None:
        self.asked += 1
        while self.queue:
            first = self.queue[0]
            if not isinstance(first, Flow):
                return self.queue.popleft()
            if first.content:
                return Data(first.number, first.read)
            self.queue.popleft()
        return None


def message_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def text(number: int, content: str = "hello") -> Text:
    return Text(message_id(number), 0, content)


def file_id(number: int) -> bytes:
    return b"file" + number.to_bytes(12, "big")


def offer(number: int, size: int | None = 10, **changes: object) -> Offer:
    kwargs = {"id": file_id(number), "number": number, "name": "a", **changes}
    return Offer(group=bytes(16), size=size, mtime=0, mode=0o600, **kwargs)


def file(number: int, content: bytes, step: int = MIB) -> list[FileMessage | Flow]:
    return [offer(number, len(content)), Flow(number, content, step), End(number, len(content))]


def offer_items(numbers: Iterable[int]) -> list[bytes]:
    return [item(*encode(offer(number))) for number in numbers]


def both(pair: Pair, side: str) -> tuple[Session, Session, list, list]:
    """This side, the other, and what has happened at each."""
    if side == "client":
        return pair.client, pair.server, pair.at_client, pair.at_server
    return pair.server, pair.client, pair.at_server, pair.at_client


def raw_peer(side: str, **kwargs) -> RawPeer:
    """A peer that plays this side, against a session that plays the other."""
    return RawPeer(initiator=side == "client", **kwargs)


def contents(happened: list) -> dict[int, bytes]:
    """The bytes of each file that came whole and in order."""
    found: dict[int, bytes] = {}
    sizes: dict[int, int] = {}
    for each in happened:
        if isinstance(each, Offer):
            assert each.number not in found
            found[each.number] = b""
        elif isinstance(each, Chunk):
            found[each.number] += each.data
        elif isinstance(each, End):
            sizes[each.number] = each.size
    assert {number: len(content) for number, content in found.items()} == sizes
    return found


def texts(happened: list) -> list[Text]:
    return [each for each in happened if isinstance(each, Text)]


def assert_failed(peer: RawPeer, happened: list, words: str) -> None:
    (ended,) = happened
    assert isinstance(ended.error, MalformedRecord)
    assert words in ended.error.message
    assert peer.session.state is State.FAILED


class Wire:
    """An open pair, and the plaintext of what one side says."""

    def __init__(self, side: str = "client") -> None:
        log = KeyLog()
        self.pair = Pair(cipher=log).open()
        self.here, self.there, self.at_here, self.at_there = both(self.pair, side)
        self._opener = Opener(log.keys[-2] if side == "client" else log.keys[-1])
        self._opener.n = 0 if side == "client" else 1

    def batch(self) -> list[bytes]:
        """The records that `data_to_send` seals at once; the other side gets them too."""
        stream = bytes(self.here.data_to_send(self.pair.now))
        self.at_there += self.there.receive_data(stream, self.pair.now)
        found = []
        while stream:
            end = 4 + int.from_bytes(stream[:4], "big")
            found.append(self._opener.open(stream[:end]))
            stream = stream[end:]
        return found

    def all(self) -> list[bytes]:
        found = []
        while batch := self.batch():
            found += batch
        return found


def kinds(record: bytes) -> list[int]:
    return [kind for kind, _ in items(record)]


# ---- what goes when


@pytest.mark.parametrize("side", SIDES)
def test_a_file_goes_as_an_offer_chunks_and_an_end(side: str) -> None:
    pair = Pair().open()
    here, there, at_here, at_there = both(pair, side)
    content = random.Random(1).randbytes(1_000_000)
    here.send_files(Source(*file(1, content), *file(2, b""), *file(3, b"x")))
    pair.settle()
    assert contents(at_there) == {1: content, 2: b"", 3: b"x"}
    assert all(type(each) in TYPES for each in at_there)
    for number in (1, 2):
        there.send(Receipt(file_id(number)))
    there.send(Refused(file_id(3), permanent=True, code=6))
    pair.settle()
    assert at_here == [
        Receipt(file_id(1)),
        Receipt(file_id(2)),
        Refused(file_id(3), permanent=True, code=6),
    ]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_files_and_texts_both_ways_at_once(data: st.DataObject) -> None:
    pair = Pair().open()
    sent: dict[str, tuple[dict[int, bytes], list[Text]]] = {}
    numbers = iter(range(1000))
    for side in SIDES:
        here, _, _, _ = both(pair, side)
        sizes = data.draw(st.lists(st.sampled_from([0, 1, 5000, 65_512, 400_000]), max_size=4))
        steps = data.draw(st.sampled_from([100, 60_000, MIB]))
        files = {number: random.Random(number).randbytes(size) for number, size in enumerate(sizes)}
        here.send_files(Source(*(x for n, c in files.items() for x in file(n, c, steps))))
        sent[side] = files, []
    for side in data.draw(st.lists(st.sampled_from([*SIDES, ""]), max_size=20)):
        if side:
            size = data.draw(st.sampled_from([5, 60_000, 200_000]))
            each = text(next(numbers), "x" * size)
            both(pair, side)[0].send(each)
            sent[side][1].append(each)
        else:
            pair.step()
    pair.settle()
    for side in SIDES:
        here, _, at_here, at_there = both(pair, side)
        files, said = sent[side]
        assert contents(at_there) == files
        assert texts(at_there) == said
        for each in texts(at_here):
            here.send(Receipt(each.id))
        for number in contents(at_here):
            here.send(Receipt(file_id(number)))
    pair.settle()
    for side in SIDES:
        receipts = {each.id for each in both(pair, side)[2] if isinstance(each, Receipt)}
        files, said = sent[side]
        assert receipts == {each.id for each in said} | {file_id(number) for number in files}
    assert pair.client.state is pair.server.state is State.OPEN


@pytest.mark.parametrize("side", SIDES)
def test_a_text_goes_into_the_very_next_record(side: str) -> None:
    wire = Wire(side)
    wire.here.send_files(Source(offer(1, 10 * MIB), Flow(1, bytes(10 * MIB))))
    first = wire.batch()
    assert kinds(first[0]) == [OFFER, CHUNK]
    assert all(kinds(record) == [CHUNK] for record in first[1:])
    # No more is sealed ahead than a batch: this is all that a text can stand behind.
    assert BATCH_SIZE <= sum(len(record) + 20 for record in first) < BATCH_SIZE + 65_539
    wire.here.send(text(1))
    wire.here.send(text(2))
    second = wire.batch()
    assert kinds(second[0]) == [TEXT, TEXT, CHUNK]
    assert kinds(second[1]) == [CHUNK]
    assert texts(wire.at_there) == [text(1), text(2)]


@pytest.mark.parametrize("side", SIDES)
def test_answers_and_heartbeats_go_ahead_of_chunks(side: str) -> None:
    wire = Wire(side)
    wire.there.send(text(1))
    wire.there.send_files(Source(offer(2, 0)))
    wire.pair.settle()
    wire.here.send_files(Source(offer(1, 10 * MIB), Flow(1, bytes(10 * MIB))))
    wire.batch()
    wire.here.send(Accept(2, 0))
    wire.here.send(Receipt(message_id(1)))
    wire.here.send(Refused(file_id(2), permanent=False, code=3))
    wire.here.tick(wire.pair.now + 10)
    assert kinds(wire.batch()[0]) == [RECEIPT, REFUSED, ACCEPT, CHUNK]
    wire.here.tick(wire.pair.now + 20)
    assert kinds(wire.batch()[0]) == [PING, CHUNK]


@pytest.mark.parametrize("side", SIDES)
def test_nothing_of_a_file_stands_between_the_pieces_of_a_text(side: str) -> None:
    wire = Wire(side)
    wire.here.send_files(Source(offer(1, 10 * MIB), Flow(1, bytes(10 * MIB))))
    wire.batch()
    long = [text(1, "x" * 200_000), text(2, "y" * 100_000)]
    for each in long:
        wire.here.send(each)
    found = wire.batch() + wire.batch()
    assert [kinds(record) for record in found[:6]] == [
        [TEXT | 0x80],
        [TEXT | 0x80],
        [TEXT | 0x80],
        [TEXT, TEXT | 0x80],
        [TEXT, CHUNK],
        [CHUNK],
    ]
    assert texts(wire.at_there) == long


# ---- sizes


def test_a_chunk_fills_its_record() -> None:
    wire = Wire()
    wire.here.send_files(Source(*file(1, bytes(3 * LARGEST_CHUNK))))
    found = wire.all()
    sizes = [[len(body) - 4 for kind, body in items(record) if kind == CHUNK] for record in found]
    begun = LARGEST_CHUNK - 3 - 55 - 1
    rest = LARGEST_CHUNK - begun
    assert sizes == [[begun], [LARGEST_CHUNK], [LARGEST_CHUNK], [rest]]
    assert [len(record) for record in found] == [65_519, 65_519, 65_519, 256]
    assert kinds(found[-1]) == [CHUNK, END]


@pytest.mark.parametrize("size", [1, 10, 200, 900, 4000, 16_000, 65_000])
def test_a_small_file_takes_one_record_of_the_smallest_size(size: int) -> None:
    wire = Wire()
    wire.here.send_files(Source(*file(1, bytes(size))))
    (record,) = wire.all()
    length = 3 + 55 + 1 + 3 + 4 + size + 3 + 12
    assert len(record) == next(each for each in SIZES if length <= each)
    assert kinds(record) == [OFFER, CHUNK, END]


@pytest.mark.parametrize("left", [0, 1, 3, 4, 7, SMALLEST_CHUNK + 2, SMALLEST_CHUNK + 3, 5000])
def test_with_little_room_a_chunk_waits_for_the_next_record(left: int) -> None:
    wire = Wire()
    wire.here.send_files(Source(offer(1, MIB), Flow(1, bytes(MIB))))
    wire.batch()
    wire.here.send(text(1, "x" * (65_519 - 3 - 24 - left)))
    first, second, *_ = wire.batch()
    if left < SMALLEST_CHUNK + 3:
        assert kinds(first) == [TEXT]
    else:
        assert [(kind, len(body)) for kind, body in items(first)[1:]] == [(CHUNK, left - 3)]
    assert kinds(second) == [CHUNK]
    assert len(items(second)[0][1]) == 4 + LARGEST_CHUNK


@pytest.mark.parametrize("left", [0, 14, 15, 16])
def test_with_little_room_an_item_waits_for_the_next_record(left: int) -> None:
    wire = Wire()
    wire.here.send_files(Source(End(1, 0), Cancel(1)))
    wire.here.send(text(1, "x" * (65_519 - 3 - 24 - left)))
    found = [kinds(record) for record in wire.all()]
    assert found == ([[TEXT, END], [CANCEL]] if left >= 15 else [[TEXT], [END, CANCEL]])


def test_a_stream_that_comes_byte_by_byte_stays_within_the_items_of_a_record() -> None:
    wire = Wire()
    content = random.Random(2).randbytes(3000)
    wire.here.send_files(Source(offer(1, None), Flow(1, content, step=1), End(1, 3000)))
    found = wire.all()
    assert [len(items(record)) for record in found] == [MOST_ITEMS] * 5 + [3002 - 5 * MOST_ITEMS]
    assert contents(wire.at_there) == {1: content}


@pytest.mark.parametrize("side", SIDES)
def test_all_that_may_wait_at_once_stays_within_the_items_of_a_record(side: str) -> None:
    pair = Pair().open()
    here, there, at_here, _ = both(pair, side)
    there.send_files(Source(*(offer(number, ask=True) for number in range(MOST_OPEN))))
    for number in range(1024):
        there.send(text(number, ""))
    pair.settle()
    assert len(at_here) == 1024 + MOST_OPEN
    # The shortest items that there are, as many of each as the rules let be under way.
    for number in range(1024):
        here.send(Receipt(message_id(number)))
    for number in range(1024):
        here.send(text(number, ""))
    for number in range(MOST_OPEN):
        here.send(Accept(number, 0))
    for number in range(MOST_OPEN):
        here.send(Receipt(file_id(number)))
    here.tick(pair.now + 10)
    here.send_files(Source(offer(1, None), Flow(1, bytes(5000), step=1)))
    stream = here.data_to_send(pair.now)
    happened = there.receive_data(stream, pair.now)
    assert there.state is State.OPEN
    assert len(happened) > records.MOST_ITEMS - MOST_ITEMS


# ---- the source


def test_the_source_is_asked_again_once_it_has_more() -> None:
    wire = Wire()
    source = Source()
    wire.here.send_files(source)
    assert wire.batch() == []
    assert source.asked == 1
    source.queue.extend(file(1, b"x"))
    assert [kinds(record) for record in wire.batch()] == [[OFFER, CHUNK, END]]


class Scripted:
    """Says one thing after the other."""

    def __init__(self, *script: FileMessage | Data | None) -> None:
        self.script = deque(script)

    def next(self) -> FileMessage | Data | None:
        return self.script.popleft() if self.script else None


def test_where_there_are_no_bytes_after_all_nothing_is_written() -> None:
    wire = Wire()
    nothing = Data(1, lambda _: 0)
    wire.here.send_files(Scripted(nothing, nothing, None, nothing, Cancel(1)))
    assert wire.batch() == []
    assert [items(record) for record in wire.batch()] == [[(CANCEL, b"\0\0\0\x01")]]
    wire.here.send_files(Scripted(offer(1), Data(1, Flow(1, b"ab").read), nothing, Cancel(1)))
    (record,) = wire.batch()
    assert items(record)[1:] == [(CHUNK, b"\0\0\0\x01ab"), (CANCEL, b"\0\0\0\x01")]


def test_what_a_source_leaves_behind_in_the_room_does_not_leave() -> None:
    wire = Wire()

    def careless(room: memoryview) -> int:
        room[:] = b"s" * len(room)
        return 2

    wire.here.send_files(Scripted(Data(1, careless)))
    (record,) = wire.batch()
    # `items` holds what follows the last item to be zeros.
    assert items(record) == [(CHUNK, b"\0\0\0\x01ss")]
    assert len(record) == 64


@pytest.mark.parametrize("end", ["fail", "close"])
def test_no_source_outlives_its_link(end: str) -> None:
    pair = Pair().open()
    source = Source()
    gone = weakref.ref(source)
    pair.client.send_files(source)
    del source
    if end == "fail":
        pair.client.receive_eof()
    else:
        pair.server.close()
        pair.settle()
        pair.client.close()
    gc.collect()
    assert gone() is None


# ---- which ID owes an answer


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("answer", [(RECEIPT, b""), (REFUSED, b"\x01\x06")])
def test_an_answer_to_what_was_not_offered_ends_the_link(
    side: str, answer: tuple[int, bytes]
) -> None:
    peer = raw_peer(side).open()
    kind, rest = answer
    peer.session.send_files(Source(*(offer(number) for number in range(3))))
    peer.take()
    assert len(peer.say(item(kind, file_id(1) + rest))) == 1
    happened = peer.say(item(kind, file_id(0) + rest), item(kind, file_id(1) + rest))
    assert_failed(peer, happened, "not sent")


def test_an_answer_to_an_offer_that_has_not_left_ends_the_link() -> None:
    peer = raw_peer("client").open()
    peer.session.send_files(Source(offer(1)))
    assert_failed(peer, peer.say(item(RECEIPT, file_id(1))), "not sent")


@pytest.mark.parametrize("side", SIDES)
def test_a_file_is_offered_once_until_it_has_its_answer(side: str) -> None:
    peer = raw_peer(side).open()
    assert len(peer.say(*offer_items([1]))) == 1
    peer.session.send(Refused(file_id(1), permanent=False, code=3))
    peer.hear()
    again = item(*encode(offer(2, id=file_id(1))))
    assert len(peer.say(again)) == 1
    assert_failed(peer, peer.say(item(*encode(offer(3, id=file_id(1))))), "twice")


@pytest.mark.parametrize("side", SIDES)
def test_256_files_may_owe_an_answer(side: str) -> None:
    peer = raw_peer(side).open()
    assert MOST_OPEN == 256
    assert len(peer.say(*offer_items(range(256)))) == 256
    peer.session.send(Receipt(file_id(7)))
    peer.hear()
    assert len(peer.say(*offer_items([256]))) == 1
    assert_failed(peer, peer.say(*offer_items([257])), "too many")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("read", [True, False])
def test_an_answer_makes_room_only_once_it_has_left(side: str, *, read: bool) -> None:
    # A peer that reads nothing would else have answers pile up for ever new offers.
    peer = raw_peer(side).open()
    peer.say(*offer_items(range(256)))
    for number in range(256):
        peer.session.send(Receipt(file_id(number)))
    if read:
        assert peer.hear() == [(RECEIPT, file_id(number)) for number in range(256)]
        assert len(peer.say(*offer_items(range(256, 512)))) == 256
    else:
        assert_failed(peer, peer.say(*offer_items([256])), "too many")


def test_one_offer_gets_one_answer() -> None:
    peer = raw_peer("client").open()
    peer.say(*offer_items([1]))
    peer.session.send(Receipt(file_id(1)))
    for answer in (Receipt(file_id(1)), Refused(file_id(1), permanent=True, code=6)):
        with pytest.raises(LocalProtocolError):
            peer.session.send(answer)
    assert peer.hear() == [(RECEIPT, file_id(1))]
    with pytest.raises(LocalProtocolError):
        peer.session.send(Receipt(file_id(1)))


def test_a_text_and_a_file_with_one_id_get_an_answer_each() -> None:
    peer = raw_peer("client").open()
    peer.say(*text_items([1]), item(*encode(offer(1, id=message_id(1)))))
    peer.session.send(Receipt(message_id(1)))
    peer.session.send(Receipt(message_id(1)))
    with pytest.raises(LocalProtocolError):
        peer.session.send(Receipt(message_id(1)))
    assert len(peer.hear()) == 2
    assert len(peer.say(*text_items([1]), item(*encode(offer(2, id=message_id(1)))))) == 2


@pytest.mark.parametrize("side", SIDES)
def test_a_cancelled_file_owes_no_answer(side: str) -> None:
    peer = raw_peer(side).open()
    peer.say(*offer_items(range(256)))
    cancel = item(CANCEL, (7).to_bytes(4, "big"))
    assert peer.say(cancel) == [Cancel(7)]
    with pytest.raises(LocalProtocolError):
        peer.session.send(Receipt(file_id(7)))
    # Both its place and its ID are free; the number is the owner's business.
    assert peer.say(cancel, item(*encode(offer(256, id=file_id(7)))))[1].number == 256
    assert_failed(peer, peer.say(*offer_items([257])), "too many")


def test_an_answer_that_waits_when_its_file_is_cancelled_still_goes() -> None:
    peer = raw_peer("client").open()
    peer.say(*offer_items([1]))
    peer.session.send(Refused(file_id(1), permanent=False, code=3))
    peer.say(item(CANCEL, (1).to_bytes(4, "big")))
    with pytest.raises(LocalProtocolError):
        peer.session.send(Receipt(file_id(1)))
    assert peer.hear() == [(REFUSED, file_id(1) + b"\0\x03")]
    assert len(peer.say(*offer_items([1]))) == 1


def test_a_cancel_after_the_answer_does_not_concern_the_next_offer() -> None:
    peer = raw_peer("client").open()
    peer.say(*offer_items([1]))
    peer.session.send(Refused(file_id(1), permanent=False, code=3))
    peer.hear()
    peer.say(item(*encode(offer(2, id=file_id(1)))), item(CANCEL, (1).to_bytes(4, "big")))
    peer.session.send(Receipt(file_id(1)))
    assert peer.hear() == [(RECEIPT, file_id(1))]


@pytest.mark.parametrize("side", SIDES)
def test_an_answer_may_cross_with_our_cancel(side: str) -> None:
    peer = raw_peer(side).open()
    peer.session.send_files(Source(offer(1), Cancel(1)))
    peer.take()
    refused = item(REFUSED, file_id(1) + b"\0\x03")
    assert peer.say(refused) == [Refused(file_id(1), permanent=False, code=3)]
    assert_failed(peer, peer.say(refused), "not sent")


def test_while_we_read_nothing_on_purpose_the_other_sides_silence_does_not_count() -> None:
    pair = Pair(limits=Limits(heartbeat_interval=10, heartbeat_timeout=25)).open()
    pair.client.heard(pair.now + 20)
    assert pair.client.tick(pair.now + 44.9) == []
    assert pair.client.deadline() <= pair.now + 45
    (ended,) = pair.client.tick(pair.now + 45)
    assert "nothing was received for 25 s" in ended.error.message


# ---- who takes files


def without_files(side: str) -> RawPeer:
    """A peer that plays this side and does not know files."""
    hello = ClientHello("bob", 0, MIB, takes_files=True)
    payload = hello.encode() if side == "client" else ServerHello(0, MIB).encode()
    return raw_peer(side, payload=payload).open()


ANY = [
    item(*encode(offer(1))),
    item(*encode(Accept(1, 0))),
    item(*encode(Prefix(1, bytes(32)))),
    item(*encode(Begin(1, 0))),
    item(*encode(Chunk(1, b"x"))),
    item(*encode(End(1, 0))),
    item(*encode(Cancel(1))),
]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("closed_before", [False, True])
@pytest.mark.parametrize("record", ANY, ids=lambda record: f"type {record[0]}")
def test_without_the_feature_bit_every_item_of_a_file_ends_the_link(
    side: str, *, closed_before: bool, record: bytes
) -> None:
    peer = without_files(side)
    assert peer.session.features == 0
    with pytest.raises(LocalProtocolError):
        peer.session.send_files(Source())
    if closed_before:
        peer.session.close()
        peer.take()
    assert_failed(peer, peer.say(record), "does not know them")


@pytest.mark.parametrize("record", ANY, ids=lambda record: f"type {record[0]}")
def test_a_client_that_takes_no_files_gets_none(record: bytes) -> None:
    peer = raw_peer("server", hello=ClientHello("bob", FEATURES, MIB)).open()
    if record[0] not in {ACCEPT, PREFIX}:
        assert_failed(peer, peer.say(record), "takes none")
        return
    # What it sends itself is answered all the same.
    peer.session.send_files(Source(offer(1, ask=True)))
    peer.take()
    assert len(peer.say(record)) == 1


def test_to_a_client_that_takes_no_files_none_are_sent() -> None:
    hello = ClientHello("bob", FEATURES, MIB)
    peer = raw_peer("client", payload=hello.encode()).open()
    with pytest.raises(LocalProtocolError):
        peer.session.send_files(Source())
    # It may send some.
    assert len(peer.say(*offer_items([1]))) == 1


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("answer", [Accept(1, 0), Prefix(1, bytes(32))], ids=["ACCEPT", "PREFIX"])
def test_an_answer_to_a_side_that_sends_no_files_ends_the_link(
    side: str, answer: Accept | Prefix
) -> None:
    peer = raw_peer(side).open()
    assert_failed(peer, peer.say(item(*encode(answer))), "none are sent")


def test_the_owner_of_a_link_that_is_not_open_sends_no_files() -> None:
    for state in State:
        if state is not State.OPEN:
            for message in (Accept(1, 0), Prefix(1, bytes(32))):
                session = in_state(state)
                with pytest.raises(LocalProtocolError):
                    session.send(message)


@pytest.mark.parametrize("state", [State.AWAIT_MESSAGE_2, State.AWAIT_MESSAGE_1])
def test_before_both_have_introduced_themselves_nobody_sends_files(state: State) -> None:
    with pytest.raises(LocalProtocolError):
        in_state(state).send_files(Source())


def test_of_a_source_that_is_there_early_nothing_leaves_before_ready() -> None:
    pair = Pair().shake_hands()
    source = Source(*file(1, b"x"))
    pair.client.send_files(source)
    pair.settle()
    assert source.asked == 0
    pair.server.admit("alice", 0)
    pair.settle()
    assert contents(pair.at_server) == {1: b"x"}


# ---- where items of files may stand


@pytest.mark.parametrize("record", ANY, ids=lambda record: f"type {record[0]}")
def test_items_of_files_do_not_come_in_pieces(record: bytes) -> None:
    peer = raw_peer("client").open()
    assert_failed(peer, peer.say(bytes([record[0] | 0x80]) + record[1:]), "in pieces")


@pytest.mark.parametrize("record", ANY, ids=lambda record: f"type {record[0]}")
def test_items_of_files_do_not_stand_between_the_pieces_of_a_text(record: bytes) -> None:
    peer = raw_peer("client").open()
    assert peer.say(item(TEXT, text_body(1), more=True)) == []
    assert_failed(peer, peer.say(record), "split")


@pytest.mark.parametrize("record", ANY, ids=lambda record: f"type {record[0]}")
def test_items_of_files_come_after_ready(record: bytes) -> None:
    peer = raw_peer("server")
    assert_failed(peer, peer.say(record), "before READY")
    assert_failed(peer := raw_peer("server"), peer.say(READY, record), "alone")


# ---- the end of the link


@pytest.mark.parametrize("side", SIDES)
def test_our_close_in_the_middle_of_a_file(side: str) -> None:
    wire = Wire(side)
    wire.here.send_files(Source(offer(1, 10 * MIB), Flow(1, bytes(10 * MIB))))
    wire.there.send_files(Source(offer(1), offer(2)))
    wire.pair.step()
    wire.pair.step()
    wire = wire_after(wire)
    wire.here.send(Receipt(file_id(1)))
    wire.here.send(Accept(2, 0))
    asked = wire.here._files.source.asked
    wire.here.close()
    # The answer to a file goes, the rest of a file does not.
    assert [kinds(record) for record in wire.all()] == [[RECEIPT], [CLOSE]]
    assert wire.at_there[-2:] == [Receipt(file_id(1)), Closing()]
    assert wire.here._files.source.asked == asked
    # An answer to a file of ours is taken still, and whatever else comes of files is dropped.
    wire.there.send(Receipt(file_id(1)))
    wire.there.close()
    wire.pair.settle()
    assert wire.at_here[-2:] == [Receipt(file_id(1)), Ended(None)]


def wire_after(wire: Wire) -> Wire:
    """Count the records that have left meanwhile."""
    wire._opener.n = wire.here._channel.sent
    return wire


@pytest.mark.parametrize("side", SIDES)
def test_their_close_in_the_middle_of_our_file(side: str) -> None:
    wire = Wire(side)
    source = Source(offer(1, 10 * MIB), Flow(1, bytes(10 * MIB)))
    wire.here.send_files(source)
    wire.batch()
    wire.there.send(text(1))
    wire.there.close()
    wire.at_here += wire.here.receive_data(wire.there.data_to_send(0), 0)
    asked = source.asked
    assert wire.batch() == []
    assert source.asked == asked
    wire.here.close()
    assert [kinds(record) for record in wire.all()] == [[CLOSE]]
    assert wire.here.state is wire.there.state is State.CLOSED


@pytest.mark.parametrize("side", SIDES)
def test_what_comes_of_files_after_our_close_is_dropped(side: str) -> None:
    peer = raw_peer(side).open()
    peer.session.send_files(Source(offer(1, ask=True)))
    peer.hear()
    peer.session.close()
    peer.take()
    assert peer.say(*ANY) == []
    # None of it counts as owing an answer, so more than the most may cross with our CLOSE.
    assert peer.say(*offer_items(range(300))) == []
    assert peer.say(item(RECEIPT, file_id(1))) == [Receipt(file_id(1))]
    count = peer.sending.n + 1
    assert peer.say(item(CLOSE, count.to_bytes(8, "big"))) == [Ended(None)]


@pytest.mark.parametrize("cut", [1, 100, 70_000, 200_000])
def test_a_file_that_is_cut_has_no_end(cut: int) -> None:
    pair = Pair().open()
    content = random.Random(3).randbytes(150_000)
    pair.client.send_files(Source(*file(1, content)))
    stream = bytes(pair.client.data_to_send(pair.now))
    happened = pair.server.receive_data(stream[: min(cut, len(stream) - 1)], pair.now)
    happened += pair.server.receive_eof()
    assert not any(isinstance(each, End) for each in happened)
    assert isinstance(happened[-1], Ended)
    came = b"".join(bytes(each.data) for each in happened if isinstance(each, Chunk))
    assert content.startswith(came)


def test_chunks_stay_as_they_are_when_the_next_record_comes() -> None:
    pair = Pair().open()
    pair.client.send_files(Source(offer(1, 200_000), Flow(1, b"a" * 100_000 + b"b" * 100_000)))
    pair.settle()
    assert b"".join(bytes(each.data) for each in pair.at_server[1:]) == (
        b"a" * 100_000 + b"b" * 100_000
    )
