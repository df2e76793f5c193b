"""The Noise handshake: an X25519 and ML-KEM-768 key agreement, and the ciphers it ends in.

A transcription of the Noise Protocol Framework, revision 34 (noiseprotocol.org/noise.html), under
the names of its section 5, and of the `hfs` modifier of "KEM-based Hybrid Forward Secrecy for
Noise", revision 1 (github.com/noiseprotocol/noise_hfs_spec), called HFS in this package. AES-GCM
and SHA-256 throughout; no pre-shared keys, no fallback. The rules:

- Whatever a peer can cause by the bytes it sends is a RemoteProtocolError; whatever only a
  mistake of the caller can cause is a LocalProtocolError.
- A public key from the wire is used only if it is canonical and not of low order: otherwise one
  node would have several names, and a handshake message could be altered unnoticed.
- A handshake that failed, in reading or in writing, is never continued or repeated.
- No key is used twice with one nonce: a cipher counts for itself, and a handshake yields its
  ciphers once.
"""

from __future__ import annotations

from securelink.noise.handshake import (
    PATTERNS,
    HandshakePattern,
    HandshakeState,
    Token,
    generate_kem_ciphertext,
)
from securelink.noise.symmetric import (
    MAX_MESSAGE_LEN,
    MAX_NONCE,
    TAGLEN,
    CipherState,
    SymmetricState,
)

__all__ = [
    "MAX_MESSAGE_LEN",
    "MAX_NONCE",
    "PATTERNS",
    "TAGLEN",
    "CipherState",
    "HandshakePattern",
    "HandshakeState",
    "SymmetricState",
    "Token",
    "generate_kem_ciphertext",
]
