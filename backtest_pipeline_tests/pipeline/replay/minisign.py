"""A pair of keys of minisign, and how it verifies signatures."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# A pair without a password in the format of minisign, made for this test alone.
PAIR = (
    "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAANujxjCqu4kSMDzMqneykaI2g"
    "eXjaurQ9w8xD/zUeLUBli6yLP7++u2fO32FIgiP3xV+dmTS++v3GPuEDDNccmZqxcsKUrcNJwSDu2E66ixnaffh1D2JsUsF6"
    "B0pOO99asmvqG/MzD6s="
)
PUBLIC = "RWQ26PGMKq7iRGfO32FIgiP3xV+dmTS++v3GPuEDDNccmZqxcsKUrcNJ"


def write_key(path: Path, key: str = PAIR) -> Path:
    path.write_text(f"untrusted comment: minisign secret key\n{key}\n")
    return path


def require_valid(data: bytes, signature: bytes, public: str = PUBLIC) -> str:
    """The trusted comment; raises InvalidSignature unless data and comment are those signed."""
    _, of_data, comment, of_comment = signature.decode().splitlines()
    raw, key = base64.b64decode(of_data), base64.b64decode(public)
    assert (raw[:2], raw[2:10]) == (b"ED", key[2:10])
    verifier = Ed25519PublicKey.from_public_bytes(key[10:])
    verifier.verify(raw[10:], hashlib.blake2b(data).digest())
    trusted = comment.removeprefix("trusted comment: ")
    verifier.verify(base64.b64decode(of_comment), raw[10:] + trusted.encode())
    return trusted
