"""`securelink.noise` against implementations that are not ours, and against kept vectors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import hfs_reference as hfs
import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from noise.connection import Keypair, NoiseConnection
from noise_rows import ROWS

from securelink.noise import PATTERNS, CipherState, HandshakeState

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
PROLOGUE = b"securelinkSL\x01\x01"
CLASSIC = sorted(name for name in ROWS if not name.endswith("hfs"))


def load(name: str) -> list[dict]:
    return json.loads((VECTORS / name).read_text(encoding="ascii"))["vectors"]


def private(raw: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(raw))


def needs_static(name: str, role: int) -> bool:
    row = ROWS[name]
    return any("s" in tokens for tokens in (row.pre_messages[role], *row.messages[role::2]))


class Pair:
    """One side of ours and one of noiseprotocol's."""

    def __init__(self, name: str, *, we_initiate: bool) -> None:
        row = ROWS[name]
        us, them = (0, 1) if we_initiate else (1, 0)
        self.our_static = X25519PrivateKey.generate() if needs_static(name, us) else None
        their_static = X25519PrivateKey.generate() if needs_static(name, them) else None
        self.their_public = hfs.raw(their_static) if their_static else None
        self.ours = HandshakeState(
            row,
            initiator=we_initiate,
            prologue=PROLOGUE,
            s=self.our_static,
            rs=self.their_public if "s" in row.pre_messages[them] else None,
        )
        self.theirs = NoiseConnection.from_name(row.protocol_name)
        self.theirs.set_prologue(PROLOGUE)
        if we_initiate:
            self.theirs.set_as_responder()
        else:
            self.theirs.set_as_initiator()
        if their_static:
            self.theirs.set_keypair_from_private_bytes(
                Keypair.STATIC, their_static.private_bytes_raw()
            )
        if "s" in row.pre_messages[us]:
            self.theirs.set_keypair_from_public_bytes(
                Keypair.REMOTE_STATIC, hfs.raw(self.our_static)
            )
        self.theirs.start_handshake()


@pytest.mark.parametrize("we_initiate", [True, False], ids=["initiator", "responder"])
@pytest.mark.parametrize("name", CLASSIC)
def test_noiseprotocol_agrees_live(name, we_initiate):
    pair = Pair(name, we_initiate=we_initiate)
    for number in range(len(ROWS[name].messages)):
        payload = bytes([number]) * 20 * number
        if pair.ours.is_my_turn:
            message = pair.ours.write_message(payload)
            assert bytes(pair.theirs.read_message(message)) == payload
        else:
            message = bytes(pair.theirs.write_message(payload))
            assert pair.ours.read_message(message) == payload
    assert pair.ours.finished
    assert pair.theirs.handshake_finished
    assert pair.ours.handshake_hash == pair.theirs.get_handshake_hash()
    assert pair.ours.rs == pair.their_public

    c1, c2 = pair.ours.split()
    sending, receiving = (c1, c2) if we_initiate else (c2, c1)
    for round_ in range(6):
        if round_ % 2:
            sending.rekey()
            pair.theirs.rekey_inbound_cipher()
        if round_ % 3 == 0:
            receiving.rekey()
            pair.theirs.rekey_outbound_cipher()
        text = b"from us, round %d" % round_
        out = bytearray(len(text) + 16)
        assert sending.encrypt_into(text, out) == len(out)
        assert pair.theirs.decrypt(bytes(out)) == text
        assert pair.theirs.decrypt(sending.encrypt_with_ad(b"", b"")) == b""
        text = b"from them, round %d" % round_
        out = bytearray(len(text))
        assert receiving.decrypt_into(pair.theirs.encrypt(text), out) == len(text)
        assert out == text


def states_of(vector: dict) -> dict[str, HandshakeState]:
    """Both sides of a vector, with all that is random replaced by what the vector holds."""
    pattern = ROWS[vector["protocol_name"].split("_")[1]]
    assert pattern.protocol_name.decode() == vector["protocol_name"]

    def encapsulate(public_key: MLKEM768PublicKey) -> tuple[bytes, bytes]:
        e1 = MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(vector["init_kem_seed"]))
        assert public_key == e1.public_key()
        return bytes.fromhex(vector["kem_ciphertext"]), bytes.fromhex(vector["kem_output"])

    return {
        side: HandshakeState(
            pattern,
            initiator=side == "init",
            prologue=bytes.fromhex(vector["prologue"]),
            s=private(vector[f"{side}_static"]) if f"{side}_static" in vector else None,
            rs=bytes.fromhex(vector[f"{side}_remote_static"])
            if f"{side}_remote_static" in vector
            else None,
            generate_keypair=lambda side=side: private(vector[f"{side}_ephemeral"]),
            generate_kem_keypair=lambda: MLKEM768PrivateKey.from_seed_bytes(
                bytes.fromhex(vector["init_kem_seed"])
            ),
            generate_kem_ciphertext=encapsulate,
        )
        for side in ("init", "resp")
    }


def check_transport(vector: dict, ciphers: dict[str, tuple[CipherState, CipherState]]) -> None:
    for message in vector["transport_messages"]:
        sealing, opening = ciphers[message["sender"]]
        if message.get("rekey"):
            sealing.rekey()
            opening.rekey()
        payload, wire = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        assert sealing.encrypt_with_ad(b"", payload) == wire
        assert opening.decrypt_with_ad(b"", wire) == payload


@pytest.mark.parametrize(
    "vector",
    load("noise.json") + load("noise_hfs.json"),
    ids=lambda vector: f"{vector['protocol_name']}-{len(vector['prologue']) // 2}",
)
def test_vector(vector):
    states = states_of(vector)
    for message in vector["handshake_messages"]:
        reader = states["resp" if message["sender"] == "init" else "init"]
        payload, wire = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        assert states[message["sender"]].write_message(payload) == wire
        assert reader.read_message(wire) == payload
    i, r = states["init"], states["resp"]
    assert i.handshake_hash == r.handshake_hash == bytes.fromhex(vector["handshake_hash"])
    for state, other in ((i, "resp"), (r, "init")):
        static = vector.get(f"{other}_static")
        assert state.rs == (hfs.raw(private(static)) if static else None)
    (c1, c2), (d1, d2) = i.split(), r.split()
    check_transport(vector, {"init": (c1, d1), "resp": (d2, c2)})


def test_vectors_cover_every_row_and_the_sizes_on_the_wire():
    names = {vector["protocol_name"] for vector in load("noise.json") + load("noise_hfs.json")}
    rows = [ROWS[name] for name in [*CLASSIC, "XKhfs"]]
    assert names == {row.protocol_name.decode() for row in rows}
    sizes = [
        len(message["ciphertext"]) // 2
        for message in load("noise_hfs.json")[0]["handshake_messages"]
    ]
    assert sizes == [1248, 1216, 320]


def test_vectors_are_what_their_generator_writes(tmp_path):
    subprocess.run(
        [sys.executable, "-W", "error", VECTORS / "generate_noise.py", tmp_path], check=True
    )
    for name in ("noise.json", "noise_hfs.json"):
        assert (tmp_path / name).read_bytes() == (VECTORS / name).read_bytes()


def hybrid(*, initiator: bool, s: X25519PrivateKey, rs: bytes | None = None) -> HandshakeState:
    return HandshakeState(PATTERNS["XKhfs"], initiator=initiator, prologue=PROLOGUE, s=s, rs=rs)


def check_reference_transport(
    ours: HandshakeState, reference: hfs.Variables, *, we_initiate: bool
) -> None:
    assert ours.handshake_hash == reference.h
    keys = list(hfs.split(reference))
    for index, cipher in enumerate(ours.split()):
        we_send = we_initiate == (index == 0)
        for n in range(4):
            if n == 2:
                cipher.rekey()
                keys[index] = hfs.rekey(keys[index])
            if we_send:
                assert (
                    hfs.unseal(keys[index], n, b"", cipher.encrypt_with_ad(b"", b"text")) == b"text"
                )
            else:
                assert (
                    cipher.decrypt_with_ad(b"", hfs.seal(keys[index], n, b"", b"text")) == b"text"
                )


def test_hfs_reference_agrees_live_when_we_initiate():
    s, rs, re = (X25519PrivateKey.generate() for _ in range(3))
    ours = hybrid(initiator=True, s=s, rs=hfs.raw(rs))
    theirs = hfs.begin(PROLOGUE, hfs.raw(rs))

    first = ours.write_message()
    assert hfs.read_1(theirs, rs, first) == b""
    encapsulation_key = MLKEM768PublicKey.from_public_bytes(theirs.read["e1"])
    kem_output, kem_ciphertext = encapsulation_key.encapsulate()
    second = hfs.write_2(theirs, re, kem_ciphertext, kem_output, bytes(64))
    assert ours.read_message(second) == bytes(64)
    third = ours.write_message(bytes(256))
    assert hfs.read_3(theirs, re, third) == bytes(256)

    assert [len(first), len(second), len(third)] == [1248, 1216, 320]
    assert theirs.read["s"] == hfs.raw(s)
    check_reference_transport(ours, theirs, we_initiate=True)


def test_hfs_reference_agrees_live_when_we_respond():
    s, rs, re = (X25519PrivateKey.generate() for _ in range(3))
    e1 = MLKEM768PrivateKey.generate()
    ours = hybrid(initiator=False, s=s)
    theirs = hfs.begin(PROLOGUE, hfs.raw(s))

    first = hfs.write_1(theirs, re, hfs.raw(s), e1, b"")
    assert ours.read_message(first) == b""
    second = ours.write_message(bytes(64))
    assert hfs.read_2(theirs, re, e1, second) == bytes(64)
    third = hfs.write_3(theirs, rs, bytes(256))
    assert ours.read_message(third) == bytes(256)

    assert [len(first), len(second), len(third)] == [1248, 1216, 320]
    assert ours.rs == hfs.raw(rs)
    check_reference_transport(ours, theirs, we_initiate=False)
