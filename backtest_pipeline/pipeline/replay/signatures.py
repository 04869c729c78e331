"""Signatures of files in the format of minisign, which `minisign -V` verifies."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from backtest_pipeline.market.errors import InvalidInput

SUFFIX = ".minisig"
_KEY = b"Ed"
_OF_HASH = b"ED"  # the signature is of the BLAKE2b hash of the data
_NO_PASSWORD, _PASSWORD = b"\0\0", b"Sc"


@dataclass(frozen=True)
class SigningKey:
    """A secret key of minisign: the id of the pair, and the private half."""

    key_id: bytes
    private: Ed25519PrivateKey

    @staticmethod
    def of_file(path: Path) -> SigningKey:
        """Read a secret key that `minisign -G -W` wrote.

        Raises:
            InvalidInput: for a file that cannot be read, is no such key, or needs a password.
        """
        try:
            raw = base64.b64decode(path.read_text().splitlines()[1], validate=True)
        except (OSError, IndexError, UnicodeDecodeError, binascii.Error) as error:
            raise InvalidInput(f"{path} cannot be read as a secret key of minisign") from error
        if raw[2:4] == _PASSWORD:
            raise InvalidInput(
                f"the key {path} has a password; make one for this purpose with `minisign -G -W`, "
                "and let nobody else read it"
            )
        key_id, pair, checksum = raw[54:62], raw[62:126], raw[126:158]
        whole = hashlib.blake2b(_KEY + key_id + pair, digest_size=32).digest()
        if raw[:4] != _KEY + _NO_PASSWORD or checksum != whole:
            raise InvalidInput(f"{path} is not a secret key of minisign, or is damaged")
        return SigningKey(key_id, Ed25519PrivateKey.from_private_bytes(pair[:32]))

    def signature(self, data: bytes, comment: str) -> bytes:
        """The signature of data as a file; the comment, one line, is signed as well."""
        of_data = self.private.sign(hashlib.blake2b(data).digest())
        lines = (
            "untrusted comment: signature of backtest-pipeline, for minisign",
            _text(_OF_HASH + self.key_id + of_data),
            f"trusted comment: {comment}",
            _text(self.private.sign(of_data + comment.encode())),
        )
        return "".join(f"{line}\n" for line in lines).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
