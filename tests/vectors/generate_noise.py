"""Write noise.json and noise_hfs.json: Noise handshakes that others computed.

    python tests/vectors/generate_noise.py [FOLDER]

noise.json comes from the PyPI package `noiseprotocol`, noise_hfs.json from the transcription in
tests/unit/hfs_reference.py; neither runs a line of securelink. The fields are named as in the
vectors of cacophony and snow; all bytes are hexadecimal. Messages follow each other on the
wire; `rekey` says that their sender's direction was rekeyed first. Key pairs are digests of
their names, so the output is always the same. ML-KEM's encapsulation cannot be seeded: its
ciphertext is an input, kept in noise_hfs_ciphertext.hex beside this file, and the secret in it is
what decapsulation makes of it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import warnings
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from noise.connection import Keypair, NoiseConnection

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "unit"))

import hfs_reference as hfs  # noqa: E402 - found only through the line above

PROLOGUE = b"securelinkSL\x01\x01"
# Who has a static key pair, and who knows the other's beforehand (i: initiator, r: responder).
PATTERNS = {
    "XK": ("ir", "i"),
    "XX": ("ir", ""),
    "IK": ("ir", "i"),
    "NK": ("r", "i"),
    "KK": ("ir", "ir"),
    "IX": ("ir", ""),
}
LENGTHS = {"XK": 3, "XX": 3, "IK": 2, "NK": 2, "KK": 2, "IX": 2}
# What is sent after the handshake: sender, whether rekeyed first, payload.
TRANSPORT = [
    ("init", False, b"first"),
    ("resp", False, b""),
    ("resp", False, bytes(range(256))),
    ("init", True, b"after a rekey"),
    ("resp", False, b"the other direction has its old key"),
    ("resp", True, b"and now a new one"),
    ("init", True, b"rekeyed twice"),
]


def seed(name: str, size: int = 32) -> bytes:
    return hashlib.shake_256(b"securelink vector: " + name.encode()).digest(size)


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def classic_vector(pattern: str, prologue: bytes) -> dict[str, object]:
    name = f"Noise_{pattern}_25519_AESGCM_SHA256"
    has_static, knows = PATTERNS[pattern]
    vector: dict[str, object] = {"protocol_name": name, "prologue": prologue.hex()}
    sides = {"init": NoiseConnection.from_name(name.encode())}
    sides["resp"] = NoiseConnection.from_name(name.encode())
    sides["init"].set_as_initiator()
    sides["resp"].set_as_responder()
    for side, other in (("init", "resp"), ("resp", "init")):
        connection = sides[side]
        connection.set_prologue(prologue)
        ephemeral = seed(f"{pattern} {side} ephemeral")
        vector[f"{side}_ephemeral"] = ephemeral.hex()
        connection.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
        if side[0] in has_static:
            static = seed(f"{pattern} {side} static")
            vector[f"{side}_static"] = static.hex()
            connection.set_keypair_from_private_bytes(Keypair.STATIC, static)
        if side[0] in knows:
            remote = public(seed(f"{pattern} {other} static"))
            vector[f"{side}_remote_static"] = remote.hex()
            connection.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote)
        with warnings.catch_warnings():
            # Fixed ephemeral keys are what a vector is about.
            warnings.filterwarnings("ignore", "One of ephemeral keypairs is already set")
            connection.start_handshake()
    messages: list[dict[str, object]] = []
    turns = itertools.cycle([("init", "resp"), ("resp", "init")])
    for number, (sender, receiver) in zip(range(LENGTHS[pattern]), turns, strict=False):
        payload = seed(f"{pattern} payload {number}", 17 * number)
        wire = bytes(sides[sender].write_message(payload))
        assert sides[receiver].read_message(wire) == payload
        messages.append(entry(sender, payload, wire))
    for sender, rekeyed, payload in TRANSPORT:
        receiver = "resp" if sender == "init" else "init"
        if rekeyed:
            sides[sender].rekey_outbound_cipher()
            sides[receiver].rekey_inbound_cipher()
        wire = sides[sender].encrypt(payload)
        assert sides[receiver].decrypt(wire) == payload
        messages.append(entry(sender, payload, wire, rekeyed=rekeyed))
    vector["handshake_hash"] = sides["init"].get_handshake_hash().hex()
    vector["handshake_messages"] = messages[: LENGTHS[pattern]]
    vector["transport_messages"] = messages[LENGTHS[pattern] :]
    return vector


def entry(sender: str, payload: bytes, wire: bytes, *, rekeyed: bool = False) -> dict[str, object]:
    return {
        "sender": sender,
        "payload": payload.hex(),
        "ciphertext": wire.hex(),
        **({"rekey": True} if rekeyed else {}),
    }


def hybrid_vector(prologue: bytes, sizes: tuple[int, int, int]) -> dict[str, object]:
    secrets = {
        f"{side}_{kind}": seed(f"XKhfs {side} {kind}")
        for side in ("init", "resp")
        for kind in ("static", "ephemeral")
    }
    keys = {name: X25519PrivateKey.from_private_bytes(secret) for name, secret in secrets.items()}
    kem_seed = seed("XKhfs init kem", 64)
    e1 = MLKEM768PrivateKey.from_seed_bytes(kem_seed)
    kem_ciphertext = bytes.fromhex((HERE / "noise_hfs_ciphertext.hex").read_text())
    kem_output = e1.decapsulate(kem_ciphertext)
    payloads = [seed(f"XKhfs payload {number}", size) for number, size in enumerate(sizes)]

    rs = hfs.raw(keys["resp_static"])
    i, r = hfs.begin(prologue, rs), hfs.begin(prologue, rs)
    first = hfs.write_1(i, keys["init_ephemeral"], rs, e1, payloads[0])
    assert hfs.read_1(r, keys["resp_static"], first) == payloads[0]
    second = hfs.write_2(r, keys["resp_ephemeral"], kem_ciphertext, kem_output, payloads[1])
    assert hfs.read_2(i, keys["init_ephemeral"], e1, second) == payloads[1]
    third = hfs.write_3(i, keys["init_static"], payloads[2])
    assert hfs.read_3(r, keys["resp_ephemeral"], third) == payloads[2]
    assert (i.h, i.ck) == (r.h, r.ck)

    transport = []
    ciphers = dict(zip(("init", "resp"), hfs.split(i), strict=True))
    counters = {"init": 0, "resp": 0}
    for sender, rekeyed, payload in TRANSPORT:
        if rekeyed:
            ciphers[sender] = hfs.rekey(ciphers[sender])
        wire = hfs.seal(ciphers[sender], counters[sender], b"", payload)
        counters[sender] += 1
        transport.append(entry(sender, payload, wire, rekeyed=rekeyed))
    return {
        "protocol_name": hfs.PROTOCOL_NAME.decode(),
        "prologue": prologue.hex(),
        **{name: secret.hex() for name, secret in secrets.items()},
        "init_remote_static": rs.hex(),
        "init_kem_seed": kem_seed.hex(),
        "kem_ciphertext": kem_ciphertext.hex(),
        "kem_output": kem_output.hex(),
        "handshake_hash": i.h.hex(),
        "handshake_messages": [
            entry(sender, payload, wire)
            for sender, payload, wire in zip(
                ("init", "resp", "init"), payloads, (first, second, third), strict=True
            )
        ],
        "transport_messages": transport,
    }


def write(path: Path, vectors: list[dict[str, object]]) -> None:
    path.write_text(json.dumps({"vectors": vectors}, indent=1) + "\n", encoding="ascii")


def main(folder: Path) -> None:
    prologues = (PROLOGUE, b"")
    classic = [classic_vector(pattern, prologue) for pattern in PATTERNS for prologue in prologues]
    write(folder / "noise.json", classic)
    # What securelink itself sends, and something else.
    sizes = ((0, 64, 256), (5, 0, 33))
    hybrid = [hybrid_vector(*each) for each in zip(prologues, sizes, strict=True)]
    write(folder / "noise_hfs.json", hybrid)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
