"""The wire, byte for byte, against vectors that no line of securelink wrote."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec.structs import replace

from securelink import messages, records
from securelink.endpoints import Endpoint, Kind
from securelink.file_messages import (
    Accept,
    Begin,
    Cancel,
    Chunk,
    End,
    FileItem,
    FileMessage,
    Offer,
    Prefix,
)
from securelink.hello import ClientHello, ServerHello
from securelink.identity import Identity, PublicKey
from securelink.invite import Invite
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
from securelink.noise import PATTERNS, CipherState, HandshakeState
from securelink.session import PROLOGUE, Channel, Scratch, Session
from securelink.session.batch import Batch
from securelink.states import State

VECTORS = Path(__file__).parent.parent / "vectors"
WIRE = json.loads((VECTORS / "wire.json").read_text())


def endpoints(entries: list[dict[str, object]]) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(Kind(each["kind"]), each["host"], each["port"]) for each in entries)


def test_the_vectors_are_what_their_generator_writes(tmp_path):
    subprocess.run(
        [sys.executable, "-W", "error", VECTORS / "generate_wire.py", tmp_path], check=True
    )
    assert (tmp_path / "wire.json").read_bytes() == (VECTORS / "wire.json").read_bytes()


@pytest.mark.parametrize("case", WIRE["peer_ids"], ids=lambda case: case["peer_id"][:7])
def test_peer_ids(case):
    key = PublicKey(bytes.fromhex(case["public_key"]))
    assert key.peer_id == case["peer_id"]
    assert PublicKey.from_peer_id(case["peer_id"]) == key


@pytest.mark.parametrize("case", WIRE["invites"], ids=lambda case: str(len(case["endpoints"])))
def test_invites(case):
    invite = Invite(
        key=PublicKey(bytes.fromhex(case["public_key"])),
        token=bytes.fromhex(case["token"]),
        expires=case["expires"],
        endpoints=endpoints(case["endpoints"]),
        name=case["name"],
    )
    assert invite.encode() == case["text"]
    assert Invite.parse(case["text"]) == invite


@pytest.mark.parametrize("case", WIRE["payloads"]["message_2"])
def test_payloads_of_message_2(case):
    hello = ServerHello(case["features"], case["max_message"])
    assert hello.encode().hex() == case["payload"]
    assert ServerHello.decode(bytes.fromhex(case["payload"])) == hello


@pytest.mark.parametrize("case", WIRE["payloads"]["message_3"])
def test_payloads_of_message_3(case):
    hello = ClientHello(
        case["name"],
        case["features"],
        case["max_message"],
        token=bytes.fromhex(case["token"]) or None,
        standing=case["standing"],
        takes_files=case["takes_files"],
    )
    assert hello.encode().hex() == case["payload"]
    assert ClientHello.decode(bytes.fromhex(case["payload"])) == hello


def message(case: dict[str, object]) -> Message:
    """What the vector's fields say, as a value."""
    match case["type"]:
        case ItemType.READY:
            return Ready(case["name"], case["waiting"])
        case ItemType.DENY:
            return Deny()
        case ItemType.TEXT:
            return Text(bytes.fromhex(case["id"]), case["sent_at"], case["text"])
        case ItemType.RECEIPT:
            return Receipt(bytes.fromhex(case["id"]))
        case ItemType.REFUSED:
            return Refused(bytes.fromhex(case["id"]), case["permanent"], case["code"])
        case ItemType.PING:
            return Ping()
        case ItemType.CLOSE:
            return Close(case["count"])
    return Announce(endpoints(case["endpoints"]))


@pytest.mark.parametrize("case", WIRE["items"], ids=lambda case: ItemType(case["type"]).name)
def test_items(case):
    kind, body = messages.encode(message(case))
    assert (kind, body.hex()) == (case["type"], case["body"])
    assert messages.decode(case["type"], bytes.fromhex(case["body"])) == message(case)


def test_there_is_an_item_of_each_type():
    assert [case["type"] for case in WIRE["items"]] == list(ItemType)


def file_message(case: dict[str, object]) -> FileMessage:
    """What the vector's fields say of a file, as a value."""
    fields = {key: value for key, value in case.items() if key not in {"type", "body"}}
    for key in {"id", "group", "digest", "data"} & fields.keys():
        fields[key] = fields[key] and bytes.fromhex(fields[key])
    values = {
        FileItem.OFFER: Offer,
        FileItem.ACCEPT: Accept,
        FileItem.PREFIX: Prefix,
        FileItem.BEGIN: Begin,
        FileItem.CHUNK: Chunk,
        FileItem.END: End,
        FileItem.CANCEL: Cancel,
    }
    return values[case["type"]](**fields)


@pytest.mark.parametrize("case", WIRE["file_items"], ids=lambda case: FileItem(case["type"]).name)
def test_items_of_files(case):
    kind, body = messages.encode(file_message(case))
    assert (kind, body.hex()) == (case["type"], case["body"])
    assert messages.decode(case["type"], bytes.fromhex(case["body"])) == file_message(case)


def test_there_is_an_item_of_a_file_of_each_type():
    assert {case["type"] for case in WIRE["file_items"]} == set(FileItem)


@pytest.mark.parametrize("case", WIRE["records"], ids=lambda case: str(len(case["record"]) // 2))
def test_records(case):
    packer = records.Packer()
    for each in case["items"]:
        packer.put(each["type"], bytes.fromhex(each["body"]))
    record = bytearray(records.LARGEST)
    size = packer.fill(memoryview(record))
    assert record[:size].hex() == case["record"]
    unpacked = records.unpack(memoryview(bytes.fromhex(case["record"])))
    found = [{"type": each.type, "body": bytes(each.body).hex()} for each in unpacked]
    assert found == case["items"]


def test_a_text_in_two_records():
    case = WIRE["split_text"]
    text = case["text_byte"] * case["text_size"]
    packer = records.Packer()
    packer.put(*messages.encode(Text(bytes.fromhex(case["id"]), case["sent_at"], text)))
    packed = []
    record = memoryview(bytearray(records.LARGEST))
    while size := packer.fill(record):
        packed.append(bytes(record[:size]))
    assert [len(each) for each in packed] == case["record_sizes"]
    assert [hashlib.sha256(each).hexdigest() for each in packed] == case["record_sha256"]
    assert packed[1].hex() == case["second_record"]


def sides(case: dict[str, str], hello: ClientHello) -> tuple[Session, Session]:
    """A client and a server whose randomness is the vector's."""

    def private(name: str) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(bytes.fromhex(case[name]))

    kem = MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(case["client_kem_seed"]))
    ciphertext = bytes.fromhex(case["kem_ciphertext"])
    limits, scratch = Limits(), Scratch()
    client = HandshakeState(
        PATTERNS["XKhfs"],
        initiator=True,
        prologue=PROLOGUE,
        s=private("client_static"),
        rs=Identity(private("server_static")).public.raw,
        generate_keypair=lambda: private("client_ephemeral"),
        generate_kem_keypair=lambda: kem,
    )
    server = HandshakeState(
        PATTERNS["XKhfs"],
        initiator=False,
        prologue=PROLOGUE,
        s=private("server_static"),
        generate_keypair=lambda: private("server_ephemeral"),
        generate_kem_ciphertext=lambda _: (ciphertext, kem.decapsulate(ciphertext)),
    )
    return (
        Session(client, hello, limits=limits, now=0.0, scratch=scratch),
        Session(
            server,
            ServerHello(hello.features, 1 << 20),
            limits=limits,
            now=0.0,
            scratch=scratch,
        ),
    )


def test_a_whole_conversation():
    """Both sides say exactly the vector's frames, each given the other's from the vector."""
    client, server = sides(WIRE["conversation"], ClientHello("bob", 0, 1 << 20))
    sender = {"client": client, "server": server}
    text = message(
        {"type": 3, "id": WIRE["items"][2]["id"], "sent_at": 1730470400000, "text": "0123456789"}
    )
    before = {
        "message 3": client.proceed,
        "READY": lambda: server.admit("alice", 0),
        "TEXT": lambda: client.send(text),
        "RECEIPT": lambda: server.send(Receipt(text.id)),
    }
    for step in WIRE["conversation"]["frames"]:
        speaks = sender[step["from"]]
        hears = server if speaks is client else client
        before.get(step["what"], speaks.close if step["what"] == "CLOSE" else lambda: None)()
        assert bytes(speaks.data_to_send(0.0)).hex() == step["frame"]
        hears.receive_data(bytes.fromhex(step["frame"]), 0.0)
    assert client.state is server.state is State.CLOSED


class Source(deque):
    """Says of files what it holds."""

    def next(self) -> FileMessage | None:
        return self.popleft() if self else None


def test_a_whole_conversation_about_files():
    """Likewise; and each side hears what the other has said."""
    case = WIRE["conversation_about_files"]
    client, server = sides(case, ClientHello("bob", 1, 1 << 20, takes_files=True))
    sender = {"client": client, "server": server}
    source = Source()
    small = Offer(
        id=bytes.fromhex("0192e4a1c9007000b1b2c3d4e5f60718"),
        group=bytes.fromhex("0192e4a1c9007000b1b2c3d4e5f60718"),
        number=0,
        name="a.txt",
        size=10,
        mtime=1_730_470_400_123_456_789,
        mode=0o600,
    )
    other = bytes.fromhex("0192e4a1ca007000c1b2c3d4e5f60718")
    asked = replace(
        small,
        id=other,
        group=other,
        number=1,
        name="log.txt",
        size=14,
        ask=True,
        checksum=True,
    )
    log = b"one\ntwo\nthree\n"
    files = {
        "a file": [small, Chunk(0, b"0123456789"), End(0, 10)],
        "OFFER": [asked],
        "the rest": [Begin(1, 4), Chunk(1, log[4:]), End(1, 14, hashlib.sha256(log).digest())],
    }
    answers = {
        "its receipt": Receipt(small.id),
        "ACCEPT": Accept(1, 4),
        "PREFIX": Prefix(1, hashlib.sha256(log[:4]).digest()),
        "its receipt too": Receipt(other),
    }
    for step in case["frames"]:
        speaks, what = sender[step["from"]], step["what"]
        hears = server if speaks is client else client
        match what:
            case "message 3":
                client.proceed()
            case "READY":
                server.admit("alice", 0)
                client.send_files(source)
            case "CLOSE":
                speaks.close()
            case _ if what in answers:
                server.send(answers[what])
            case _:
                source.extend(files.get(what, []))
        assert bytes(speaks.data_to_send(0.0)).hex() == step["frame"]
        heard = hears.receive_data(bytes.fromhex(step["frame"]), 0.0)
        if what in files:
            assert heard == files[what]
        elif what in answers:
            assert heard == [answers[what]]
    assert client.state is server.state is State.CLOSED


def test_record_1024_is_under_the_next_key():
    case = WIRE["conversation"]["record_1024_of_the_client"]
    sending, receiving = CipherState(), CipherState()
    for cipher in (sending, receiving):
        cipher.initialize_key(bytes.fromhex(WIRE["conversation"]["client_to_server_key"]))
        cipher.set_nonce(1024)
    channel = Channel(sending, receiving, max_message=1 << 20, scratch=Scratch())
    channel.put(*messages.encode(Ping()))
    batch = Batch()
    channel.seal(batch)
    out = batch.take()
    assert out.hex() == case["frame"]
    assert channel.open(memoryview(out)[4:]) == [(ItemType.PING, b"")]
