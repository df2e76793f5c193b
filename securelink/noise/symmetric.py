"""The symmetric half: a cipher that counts, and a handshake's running hash and keys."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from securelink.errors import DecryptError, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    Buffer: TypeAlias = bytes | bytearray | memoryview
    WritableBuffer: TypeAlias = bytearray | memoryview

HASHLEN: Final = 32
TAGLEN: Final = 16
MAX_MESSAGE_LEN: Final = 65535
MAX_NONCE: Final = 2**64 - 1  # reserved for REKEY; no message has it (section 5.1)


class CipherState:
    """One direction's AES-256-GCM key, if any, and its counter `n` (section 5.1).

    The nonce of AES-GCM is 4 zero bytes, then n big-endian (section 12.4). Where there must be a
    key and there is none, or n has reached 2^64 - 1, every method raises LocalProtocolError.

    Args:
        cipher: makes the AEAD of a 32-byte key; only tests pass another than AES-GCM.
    """

    __slots__ = ("_aead", "_cipher", "n")

    def __init__(self, *, cipher: Callable[[bytes], AESGCM] = AESGCM) -> None:
        self._cipher = cipher
        # Building the AEAD costs about as much as sealing a short record: it is built once a key.
        self._aead: AESGCM | None = None
        self.n = 0

    def initialize_key(self, key: bytes | None) -> None:
        """Take the 32 bytes *key*, or none, and count from 0."""
        self._aead = None if key is None else self._cipher(key)
        self.n = 0

    def has_key(self) -> bool:
        """Tell whether there is a key."""
        return self._aead is not None

    def set_nonce(self, n: int) -> None:
        """Let the next message have the nonce *n*, 0 to 2^64 - 2."""
        self.n = n

    def encrypt_with_ad(self, ad: bytes, plaintext: bytes) -> bytes:
        """Return *plaintext* sealed, 16 bytes longer; without a key return it as it is."""
        aead, n = self._aead, self.n
        if aead is None:
            return plaintext
        if n >= MAX_NONCE:
            raise self._unusable()
        self.n = n + 1  # first, so that no interruption can let a nonce seal twice
        return aead.encrypt(n.to_bytes(12, "big"), plaintext, ad)

    def decrypt_with_ad(self, ad: bytes, ciphertext: bytes) -> bytes:
        """Return *ciphertext* opened, 16 bytes shorter; without a key return it as it is.

        Raises:
            DecryptError: if the tag does not verify; the counter stays where it was.
        """
        aead, n = self._aead, self.n
        if aead is None:
            return ciphertext
        if n >= MAX_NONCE:
            raise self._unusable()
        try:
            plaintext = aead.decrypt(n.to_bytes(12, "big"), ciphertext, ad)
        except InvalidTag:
            raise _bad_tag() from None
        self.n = n + 1
        return plaintext

    def encrypt_into(self, plaintext: Buffer, out: WritableBuffer) -> int:
        """Seal *plaintext*, with empty associated data, into *out*; return the bytes written.

        Raises:
            LocalProtocolError: if *out* is not exactly 16 bytes longer than *plaintext*.
        """
        aead, n = self._aead, self.n
        if aead is None or n >= MAX_NONCE:
            raise self._unusable()
        self.n = n + 1  # first, as above
        try:
            return aead.encrypt_into(n.to_bytes(12, "big"), plaintext, None, out)
        except ValueError:
            raise _bad_buffer() from None

    def decrypt_into(self, ciphertext: Buffer, out: WritableBuffer) -> int:
        """Open *ciphertext*, with empty associated data, into *out*; return the bytes written.

        Beware: when this raises DecryptError, *out* holds plaintext that is *not* authenticated.
        Pass only a buffer that nobody else sees, and throw it away then.

        Raises:
            DecryptError: if the tag does not verify; the counter stays where it was.
            LocalProtocolError: if *out* is not exactly 16 bytes shorter than *ciphertext*.
        """
        aead, n = self._aead, self.n
        if aead is None or n >= MAX_NONCE:
            raise self._unusable()
        try:
            written = aead.decrypt_into(n.to_bytes(12, "big"), ciphertext, None, out)
        except InvalidTag:
            raise _bad_tag() from None
        except ValueError:
            raise _bad_buffer() from None
        self.n = n + 1
        return written

    def rekey(self) -> None:
        """Replace the key by REKEY(k) (sections 4.2 and 11.3); the counter goes on."""
        if self._aead is None:
            raise self._unusable()
        self._aead = self._cipher(
            self._aead.encrypt(MAX_NONCE.to_bytes(12, "big"), bytes(32), None)[:32]
        )

    def _unusable(self) -> LocalProtocolError:
        if self._aead is None:
            return LocalProtocolError("the cipher has no key")
        return LocalProtocolError("the cipher's counter is at its end")


def _bad_tag() -> DecryptError:
    return DecryptError("an authentication tag did not verify")


def _bad_buffer() -> LocalProtocolError:
    return LocalProtocolError("the output buffer does not have the length of the result")


class SymmetricState:
    """A handshake's chaining key, hash and cipher (section 5.2).

    Args:
        protocol_name: the name that InitializeSymmetric begins with, as section 8 composes it.
        cipher: as for `CipherState`.
    """

    def __init__(self, protocol_name: bytes, *, cipher: Callable[[bytes], AESGCM] = AESGCM) -> None:
        if len(protocol_name) <= HASHLEN:
            self._h = protocol_name.ljust(HASHLEN, b"\0")
        else:
            self._h = hashlib.sha256(protocol_name).digest()
        self._ck = self._h
        self._cipher = cipher
        self._cipher_state = CipherState(cipher=cipher)

    def has_key(self) -> bool:
        """Tell whether `encrypt_and_hash` encrypts yet, and so adds 16 bytes."""
        return self._cipher_state.has_key()

    def mix_key(self, input_key_material: bytes) -> None:
        """Mix a secret into the chaining key, and give the cipher a new key."""
        self._ck, temp_k = _hkdf(self._ck, input_key_material)
        self._cipher_state.initialize_key(temp_k)

    def mix_hash(self, data: bytes) -> None:
        """Mix *data* into the handshake hash."""
        self._h = hashlib.sha256(self._h + data).digest()

    def get_handshake_hash(self) -> bytes:
        """Return the hash, 32 bytes, of all that was mixed in so far."""
        return self._h

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Return *plaintext* sealed (as it is while there is no key), and mix that in."""
        ciphertext = self._cipher_state.encrypt_with_ad(self._h, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Return *ciphertext* opened (as it is while there is no key), and mix it in.

        Raises:
            DecryptError: if the tag does not verify.
        """
        plaintext = self._cipher_state.decrypt_with_ad(self._h, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the transport's ciphers: initiator to responder, responder to initiator."""
        c1, c2 = CipherState(cipher=self._cipher), CipherState(cipher=self._cipher)
        temp_k1, temp_k2 = _hkdf(self._ck, b"")
        c1.initialize_key(temp_k1)
        c2.initialize_key(temp_k2)
        return c1, c2


def _hkdf(chaining_key: bytes, input_key_material: bytes) -> tuple[bytes, bytes]:
    """HKDF with two outputs (section 4.3)."""
    temp_key = hmac.digest(chaining_key, input_key_material, "sha256")
    output1 = hmac.digest(temp_key, b"\x01", "sha256")
    output2 = hmac.digest(temp_key, output1 + b"\x02", "sha256")
    return output1, output2
