"""Noise_XKhfs_25519+MLKEM768_AESGCM_SHA256, transcribed a second time.

It shares no code with `securelink.noise`: no pattern, no loop over tokens, no classes with
methods, but one function for each message and role, line by line what the Noise specification
(revision 34) and "KEM-based Hybrid Forward Secrecy for Noise" (revision 1) say for

    <- s
    ...
    -> e, es, e1
    <- e, ee, ekem1
    -> s, se

over other primitives (HKDF of RFC 5869, AES in GCM mode). Public keys are raw bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PROTOCOL_NAME = b"Noise_XKhfs_25519+MLKEM768_AESGCM_SHA256"


@dataclass
class Variables:
    """What both sides have in common at every moment."""

    h: bytes = hashlib.sha256(PROTOCOL_NAME).digest()
    ck: bytes = hashlib.sha256(PROTOCOL_NAME).digest()
    k: bytes = b""
    n: int = 0
    read: dict[str, bytes] = field(default_factory=dict)


def raw(key: X25519PrivateKey | MLKEM768PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def dh(private: X25519PrivateKey, public: bytes) -> bytes:
    return private.exchange(X25519PublicKey.from_public_bytes(public))


def seal(k: bytes, n: int, ad: bytes, plaintext: bytes) -> bytes:
    gcm = Cipher(algorithms.AES(k), modes.GCM(bytes(4) + n.to_bytes(8, "big"))).encryptor()
    gcm.authenticate_additional_data(ad)
    return gcm.update(plaintext) + gcm.finalize() + gcm.tag


def unseal(k: bytes, n: int, ad: bytes, ciphertext: bytes) -> bytes:
    tag = ciphertext[-16:]
    gcm = Cipher(algorithms.AES(k), modes.GCM(bytes(4) + n.to_bytes(8, "big"), tag)).decryptor()
    gcm.authenticate_additional_data(ad)
    return gcm.update(ciphertext[:-16]) + gcm.finalize()


def rekey(k: bytes) -> bytes:
    return seal(k, 2**64 - 1, b"", bytes(32))[:32]


def mix_hash(v: Variables, data: bytes) -> None:
    v.h = hashlib.sha256(v.h + data).digest()


def mix_key(v: Variables, secret: bytes) -> None:
    both = HKDF(SHA256(), 64, salt=v.ck, info=b"").derive(secret)
    v.ck, v.k, v.n = both[:32], both[32:], 0


def encrypt_and_hash(v: Variables, plaintext: bytes) -> bytes:
    ciphertext = seal(v.k, v.n, v.h, plaintext)
    v.n += 1
    mix_hash(v, ciphertext)
    return ciphertext


def decrypt_and_hash(v: Variables, ciphertext: bytes) -> bytes:
    plaintext = unseal(v.k, v.n, v.h, ciphertext)
    v.n += 1
    mix_hash(v, ciphertext)
    return plaintext


def begin(prologue: bytes, responder_static: bytes) -> Variables:
    v = Variables()
    mix_hash(v, prologue)
    mix_hash(v, responder_static)
    return v


def write_1(
    v: Variables, e: X25519PrivateKey, rs: bytes, e1: MLKEM768PrivateKey, payload: bytes
) -> bytes:
    mix_hash(v, raw(e))
    mix_key(v, dh(e, rs))
    encapsulation_key = encrypt_and_hash(v, raw(e1))
    return raw(e) + encapsulation_key + encrypt_and_hash(v, payload)


def read_1(v: Variables, s: X25519PrivateKey, message: bytes) -> bytes:
    v.read["e"] = message[:32]
    mix_hash(v, message[:32])
    mix_key(v, dh(s, message[:32]))
    v.read["e1"] = decrypt_and_hash(v, message[32 : 32 + 1184 + 16])
    return decrypt_and_hash(v, message[1232:])


def write_2(
    v: Variables, e: X25519PrivateKey, kem_ciphertext: bytes, kem_output: bytes, payload: bytes
) -> bytes:
    mix_hash(v, raw(e))
    mix_key(v, dh(e, v.read["e"]))
    ciphertext = encrypt_and_hash(v, kem_ciphertext)
    mix_key(v, kem_output)
    return raw(e) + ciphertext + encrypt_and_hash(v, payload)


def read_2(v: Variables, e: X25519PrivateKey, e1: MLKEM768PrivateKey, message: bytes) -> bytes:
    v.read["e"] = message[:32]
    mix_hash(v, message[:32])
    mix_key(v, dh(e, message[:32]))
    kem_ciphertext = decrypt_and_hash(v, message[32 : 32 + 1088 + 16])
    mix_key(v, e1.decapsulate(kem_ciphertext))
    return decrypt_and_hash(v, message[1136:])


def write_3(v: Variables, s: X25519PrivateKey, payload: bytes) -> bytes:
    static = encrypt_and_hash(v, raw(s))
    mix_key(v, dh(s, v.read["e"]))
    return static + encrypt_and_hash(v, payload)


def read_3(v: Variables, e: X25519PrivateKey, message: bytes) -> bytes:
    v.read["s"] = decrypt_and_hash(v, message[: 32 + 16])
    mix_key(v, dh(e, v.read["s"]))
    return decrypt_and_hash(v, message[48:])


def split(v: Variables) -> tuple[bytes, bytes]:
    """The keys of the transport: initiator to responder, responder to initiator."""
    both = HKDF(SHA256(), 64, salt=v.ck, info=b"").derive(b"")
    return both[:32], both[32:]
