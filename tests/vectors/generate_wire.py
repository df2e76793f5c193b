"""Write wire.json: peer IDs, invites, payloads, records and two whole conversations, as bytes.

    python tests/vectors/generate_wire.py [FOLDER]

For whoever writes a second implementation of docs/protocol.md. Nothing here runs a line of
securelink: the formats are transcribed from that page, the handshake is the transcription in
tests/unit/hfs_reference.py. All bytes are hexadecimal. Key pairs are digests of their names, so
the output is always the same; ML-KEM's ciphertext is an input, as in generate_noise.py.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import struct
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "unit"))

import hfs_reference as hfs  # noqa: E402 - found only through the line above

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
KINDS = ("loopback", "lan", "public")
RECORD_SIZES = (64, 256, 1024, 4096, 16384, 65519)
HEADER = b"SL\x01\x01"
PROLOGUE = b"securelink" + HEADER
READY, TEXT, RECEIPT, REFUSED, PING, CLOSE, ANNOUNCE = 1, 3, 4, 5, 6, 7, 8
OFFER, ACCEPT, PREFIX, BEGIN, CHUNK, END, CANCEL = 16, 17, 18, 19, 20, 21, 22
FOLDER, UNKNOWN_SIZE, ASK, CHECKSUM = 1, 2, 4, 8
MORE = 0x80
MESSAGE_ID = bytes.fromhex("0192e4a1c8007000a1b2c3d4e5f60718")
FILE_ID = bytes.fromhex("0192e4a1c9007000b1b2c3d4e5f60718")
OTHER_FILE_ID = bytes.fromhex("0192e4a1ca007000c1b2c3d4e5f60718")
GROUP = bytes.fromhex("0192e4a1cb007000d1b2c3d4e5f60718")
SENT_AT = 1_730_470_400_000
CHANGED_AT = 1_730_470_400_123_456_789
MAX_MESSAGE = 1 << 20

Endpoint = tuple[str, str, int]


def seed(name: str, size: int = 32) -> bytes:
    return hashlib.shake_256(b"securelink vector: " + name.encode()).digest(size)


def key_pair(name: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(seed(name))


# ---- text forms


def check_character(group: str) -> str:
    total = 0
    for place, character in enumerate(group[::-1]):
        value = ALPHABET.index(character) * (2 if place % 2 == 0 else 1)
        total += value // 32 + value % 32
    return ALPHABET[(32 - total % 32) % 32]


def peer_id(public_key: bytes) -> str:
    plain = base64.b32encode(public_key).decode().rstrip("=")
    groups = [plain[at : at + 13] for at in (0, 13, 26, 39)]
    checked = "".join(group + check_character(group) for group in groups)
    return "-".join(checked[at : at + 7] for at in range(0, 56, 7))


def endpoint_bytes(endpoint: Endpoint) -> bytes:
    kind, host, port = endpoint
    high = KINDS.index(kind) << 4
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return struct.pack(">BB", high, len(host)) + host.encode("ascii") + struct.pack(">H", port)
    return bytes([high | address.version]) + address.packed + struct.pack(">H", port)


def endpoints_bytes(endpoints: list[Endpoint]) -> bytes:
    return bytes([len(endpoints)]) + b"".join(map(endpoint_bytes, endpoints))


def invite_text(key: bytes, token: bytes, expires: int, where: list[Endpoint], name: str) -> str:
    called = name.encode()
    content = struct.pack(">BB32s16sI", 1, 1, key, token, expires)
    content += endpoints_bytes(where) + bytes([len(called)]) + called
    content += hashlib.sha256(content).digest()[:4]
    return "slinv1" + base64.b32encode(content).decode().rstrip("=").lower()


# ---- payloads, items, records


def server_payload(features: int, max_message: int) -> bytes:
    return struct.pack(">QI", features, max_message).ljust(64, b"\0")


def client_payload(
    features: int, max_message: int, token: bytes, name: str, *, standing: bool, takes_files: bool
) -> bytes:
    flags = (1 if token else 0) + (2 if standing else 0) + (4 if takes_files else 0)
    called = name.encode()
    payload = struct.pack(">QIB", features, max_message, flags) + token
    return (payload + bytes([len(called)]) + called).ljust(256, b"\0")


def ready_body(name: str, waiting: int) -> bytes:
    return bytes([len(name.encode())]) + name.encode() + struct.pack(">I", waiting)


def text_body(text: str) -> bytes:
    return MESSAGE_ID + struct.pack(">Q", SENT_AT) + text.encode()


def close_body(count: int) -> bytes:
    return struct.pack(">Q", count)


def offer_body(
    file_id: bytes,
    group: bytes,
    number: int,
    name: str,
    *,
    flags: int = 0,
    mode: int = 0o600,
    mtime: int = CHANGED_AT,
    size: int = 0,
) -> bytes:
    head = file_id + group + struct.pack(">IBHqQ", number, flags, mode, mtime, size)
    return head + name.encode()


def offset_body(number: int, offset: int) -> bytes:
    """ACCEPT, BEGIN and, but for its digest, END."""
    return struct.pack(">IQ", number, offset)


def number_body(number: int, rest: bytes = b"") -> bytes:
    """PREFIX, CHUNK and CANCEL."""
    return struct.pack(">I", number) + rest


def record(*items: tuple[int, bytes]) -> bytes:
    plain = b"".join(struct.pack(">BH", kind, len(body)) + body for kind, body in items)
    return plain.ljust(next(size for size in RECORD_SIZES if len(plain) <= size), b"\0")


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


# ---- the file


def peer_ids() -> list[dict[str, object]]:
    keys = [hfs.raw(key_pair(name)) for name in ("alice", "bob")]
    keys.append((9).to_bytes(32, "little"))
    return [{"public_key": key.hex(), "peer_id": peer_id(key)} for key in keys]


def invites() -> list[dict[str, object]]:
    key, token = hfs.raw(key_pair("alice")), seed("token", 16)
    cases: list[tuple[list[Endpoint], str]] = [
        ([("lan", "192.168.1.20", 24819)], "alice"),
        (
            [
                ("public", "home.example.org", 24819),
                ("public", "2001:db8::20", 24819),
                ("lan", "192.168.1.20", 24819),
                ("loopback", "127.0.0.1", 24819),
            ],
            "alice",
        ),
        ([], ""),
    ]
    expires = 1_893_456_000
    return [
        {
            "public_key": key.hex(),
            "token": token.hex(),
            "expires": expires,
            "endpoints": [dict(zip(("kind", "host", "port"), each, strict=True)) for each in where],
            "name": name,
            "text": invite_text(key, token, expires, where, name),
        }
        for where, name in cases
    ]


def payloads() -> dict[str, list[dict[str, object]]]:
    clients = [
        (0, {"token": b"", "name": "bob", "standing": False, "takes_files": False}),
        (1, {"token": seed("token", 16), "name": "bob", "standing": True, "takes_files": True}),
        (1, {"token": b"", "name": "\u00e9" * 16, "standing": True, "takes_files": False}),
    ]
    return {
        "message_2": [
            {
                "features": features,
                "max_message": MAX_MESSAGE,
                "payload": server_payload(features, MAX_MESSAGE).hex(),
            }
            for features in (0, 1, 1 << 63)
        ],
        "message_3": [
            {
                "features": features,
                "max_message": MAX_MESSAGE,
                **{key: value.hex() if key == "token" else value for key, value in each.items()},
                "payload": client_payload(features, MAX_MESSAGE, **each).hex(),
            }
            for features, each in clients
        ],
    }


def items() -> list[dict[str, object]]:
    where: list[Endpoint] = [("public", "192.0.2.7", 24819), ("lan", "fd00::7", 4000)]
    return [
        {"type": READY, "name": "alice", "waiting": 2, "body": ready_body("alice", 2).hex()},
        {"type": 2, "body": ""},
        {
            "type": TEXT,
            "id": MESSAGE_ID.hex(),
            "sent_at": SENT_AT,
            "text": "gr\u00fc\u00df dich\n",
            "body": text_body("gr\u00fc\u00df dich\n").hex(),
        },
        {"type": RECEIPT, "id": MESSAGE_ID.hex(), "body": MESSAGE_ID.hex()},
        {
            "type": REFUSED,
            "id": MESSAGE_ID.hex(),
            "permanent": False,
            "code": 3,
            "body": (MESSAGE_ID + b"\x00\x03").hex(),
        },
        {"type": PING, "body": ""},
        {"type": CLOSE, "count": 3, "body": close_body(3).hex()},
        {
            "type": ANNOUNCE,
            "endpoints": [dict(zip(("kind", "host", "port"), each, strict=True)) for each in where],
            "body": endpoints_bytes(where).hex(),
        },
    ]


def offer(name: str, body: bytes, **fields: object) -> dict[str, object]:
    """An OFFER with the ID, the group and the number 7, and what differs from a plain file."""
    return {
        "type": OFFER,
        "id": FILE_ID.hex(),
        "group": GROUP.hex(),
        "number": 7,
        "name": name,
        "size": 0,
        "mtime": CHANGED_AT,
        "mode": 0o600,
        "folder": False,
        "ask": False,
        "checksum": False,
        **fields,
        "body": body.hex(),
    }


def file_items() -> list[dict[str, object]]:
    here = (FILE_ID, GROUP, 7)
    digest = hashlib.sha256(b"0123456789").digest()
    large = 1 << 40
    return [
        offer("a.txt", offer_body(*here, "a.txt", size=10), size=10),
        offer(
            "photos/2026/gr\u00fc\u00df.jpg",
            offer_body(
                *here,
                "photos/2026/gr\u00fc\u00df.jpg",
                flags=ASK | CHECKSUM,
                mode=0o400,
                size=large,
            ),
            size=large,
            mode=0o400,
            ask=True,
            checksum=True,
        ),
        offer(
            "photos/2026",
            offer_body(*here, "photos/2026", flags=FOLDER, mode=0o700, mtime=-1),
            mode=0o700,
            mtime=-1,
            folder=True,
        ),
        offer(
            "stdin",
            offer_body(*here, "stdin", flags=UNKNOWN_SIZE | CHECKSUM),
            size=None,
            checksum=True,
        ),
        {"type": ACCEPT, "number": 7, "offset": large, "body": offset_body(7, large).hex()},
        {
            "type": PREFIX,
            "number": 7,
            "digest": digest.hex(),
            "body": number_body(7, digest).hex(),
        },
        {"type": BEGIN, "number": 7, "offset": large, "body": offset_body(7, large).hex()},
        {
            "type": CHUNK,
            "number": 7,
            "data": b"0123456789".hex(),
            "body": number_body(7, b"0123456789").hex(),
        },
        {"type": END, "number": 7, "size": 10, "digest": None, "body": offset_body(7, 10).hex()},
        {
            "type": END,
            "number": 7,
            "size": 10,
            "digest": digest.hex(),
            "body": (offset_body(7, 10) + digest).hex(),
        },
        {"type": CANCEL, "number": 7, "body": number_body(7).hex()},
    ]


def records() -> list[dict[str, object]]:
    ten = (TEXT, text_body("0123456789"))
    cases = [
        [ten],
        [(RECEIPT, MESSAGE_ID), ten],
        [(TEXT, text_body("x" * 37))],
        [(TEXT, text_body("x" * 38))],
        [
            (OFFER, offer_body(FILE_ID, FILE_ID, 0, "a.txt", size=10)),
            (CHUNK, number_body(0, b"0123456789")),
            (END, offset_body(0, 10)),
        ],
    ]
    return [
        {
            "items": [{"type": kind, "body": body.hex()} for kind, body in case],
            "record": record(*case).hex(),
        }
        for case in cases
    ]


def split_text() -> dict[str, object]:
    """A text of 65,517 bytes of body: it takes a full record, and one byte of a second."""
    body = text_body("y" * (65_517 - 24))
    plain = [record((TEXT | MORE, body[:65_516])), record((TEXT, body[65_516:]))]
    return {
        "type": TEXT,
        "id": MESSAGE_ID.hex(),
        "sent_at": SENT_AT,
        "text_size": len(body) - 24,
        "text_byte": "y",
        "record_sizes": [len(each) for each in plain],
        "record_sha256": [hashlib.sha256(each).hexdigest() for each in plain],
        "second_record": plain[1].hex(),
    }


Step = tuple[str, str, list[tuple[int, bytes]]]
"""Who speaks, what it is called here, and the items of one record."""


class Conversation:
    """Alice listens and bob, whom she knows, dials: the handshake, and the records after it."""

    def __init__(self, features: int, *, takes_files: bool) -> None:
        self.alice, self.bob = key_pair("alice"), key_pair("bob")
        e_bob, e_alice = key_pair("bob ephemeral"), key_pair("alice ephemeral")
        # The committed ciphertext is for this key.
        self.kem_seed = seed("XKhfs init kem", 64)
        e1 = MLKEM768PrivateKey.from_seed_bytes(self.kem_seed)
        self.kem_ciphertext = bytes.fromhex((HERE / "noise_hfs_ciphertext.hex").read_text())

        rs = hfs.raw(self.alice)
        i, r = hfs.begin(PROLOGUE, rs), hfs.begin(PROLOGUE, rs)
        first = hfs.write_1(i, e_bob, rs, e1, b"")
        hfs.read_1(r, self.alice, first)
        second = hfs.write_2(
            r,
            e_alice,
            self.kem_ciphertext,
            e1.decapsulate(self.kem_ciphertext),
            server_payload(features, MAX_MESSAGE),
        )
        hfs.read_2(i, e_bob, e1, second)
        payload = client_payload(
            features, MAX_MESSAGE, b"", "bob", standing=False, takes_files=takes_files
        )
        third = hfs.write_3(i, self.bob, payload)
        hfs.read_3(r, e_alice, third)

        self.handshake_hash = i.h
        self.keys = dict(zip(("client", "server"), hfs.split(i), strict=True))
        self.frames: list[dict[str, object]] = [
            {"from": "client", "what": "message 1", "frame": frame(HEADER + first).hex()},
            {"from": "server", "what": "message 2", "frame": frame(second).hex()},
            {"from": "client", "what": "message 3", "frame": frame(third).hex()},
        ]

    def go_on(self, steps: list[Step]) -> None:
        counters = {"client": 0, "server": 0}
        for sender, what, items in steps:
            plain = record(*items)
            sealed = hfs.seal(self.keys[sender], counters[sender], b"", plain)
            counters[sender] += 1
            self.frames.append(
                {"from": sender, "what": what, "record": plain.hex(), "frame": frame(sealed).hex()}
            )

    def written(self) -> dict[str, object]:
        return {
            "server_static": seed("alice").hex(),
            "server_ephemeral": seed("alice ephemeral").hex(),
            "client_static": seed("bob").hex(),
            "client_ephemeral": seed("bob ephemeral").hex(),
            "client_kem_seed": self.kem_seed.hex(),
            "kem_ciphertext": self.kem_ciphertext.hex(),
            "handshake_hash": self.handshake_hash.hex(),
            "client_to_server_key": self.keys["client"].hex(),
            "server_to_client_key": self.keys["server"].hex(),
            "frames": self.frames,
        }


def conversation() -> dict[str, object]:
    """Bob sends alice one text, gets its receipt, and both close. Neither knows files."""
    said = Conversation(0, takes_files=False)
    said.go_on(
        [
            ("server", "READY", [(READY, ready_body("alice", 0))]),
            ("client", "TEXT", [(TEXT, text_body("0123456789"))]),
            ("server", "RECEIPT", [(RECEIPT, MESSAGE_ID)]),
            ("client", "CLOSE", [(CLOSE, close_body(2))]),
            ("server", "CLOSE", [(CLOSE, close_body(3))]),
        ]
    )
    ping = record((PING, b""))
    key = hfs.rekey(said.keys["client"])
    return {
        **said.written(),
        # What the client would send as its record 1,024, had the conversation been that long.
        "record_1024_of_the_client": {
            "key": key.hex(),
            "record": ping.hex(),
            "frame": frame(hfs.seal(key, 1024, b"", ping)).hex(),
        },
    }


def conversation_about_files() -> dict[str, object]:
    """Bob sends alice a small file, then the rest of one of which she has 4 bytes already."""
    log = b"one\ntwo\nthree\n"
    asked = offer_body(
        OTHER_FILE_ID, OTHER_FILE_ID, 1, "log.txt", flags=ASK | CHECKSUM, size=len(log)
    )
    said = Conversation(1, takes_files=True)
    said.go_on(
        [
            ("server", "READY", [(READY, ready_body("alice", 0))]),
            (
                "client",
                "a file",
                [
                    (OFFER, offer_body(FILE_ID, FILE_ID, 0, "a.txt", size=10)),
                    (CHUNK, number_body(0, b"0123456789")),
                    (END, offset_body(0, 10)),
                ],
            ),
            ("server", "its receipt", [(RECEIPT, FILE_ID)]),
            ("client", "OFFER", [(OFFER, asked)]),
            ("server", "ACCEPT", [(ACCEPT, offset_body(1, 4))]),
            ("server", "PREFIX", [(PREFIX, number_body(1, hashlib.sha256(log[:4]).digest()))]),
            (
                "client",
                "the rest",
                [
                    (BEGIN, offset_body(1, 4)),
                    (CHUNK, number_body(1, log[4:])),
                    (END, offset_body(1, len(log)) + hashlib.sha256(log).digest()),
                ],
            ),
            ("server", "its receipt too", [(RECEIPT, OTHER_FILE_ID)]),
            ("client", "CLOSE", [(CLOSE, close_body(4))]),
            ("server", "CLOSE", [(CLOSE, close_body(6))]),
        ]
    )
    return said.written()


def main(folder: Path) -> None:
    vectors = {
        "peer_ids": peer_ids(),
        "invites": invites(),
        "payloads": payloads(),
        "items": items(),
        "file_items": file_items(),
        "records": records(),
        "split_text": split_text(),
        "conversation": conversation(),
        "conversation_about_files": conversation_about_files(),
    }
    (folder / "wire.json").write_text(json.dumps(vectors, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
