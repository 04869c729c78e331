"""What scheduler, workers and clients of a cluster show each other: one CA, and one certificate.

Whoever holds a certificate of the CA may have the workers run code, and nobody else.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from backtest_pipeline.market.errors import ConfigurationError

if TYPE_CHECKING:
    from distributed import Security

_CA, _CERTIFICATE, _KEY = "ca.pem", "cert.pem", "key.pem"
_YEARS = 5
_DAYS_LEFT = 30
_ANEW = (
    "remove the three files, make new ones, give them to all, and restart scheduler, workers and "
    "clients"
)
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "UNKNOWN_CA", "certificate verify failed")


def security_of(address: str, folder: Path | None) -> Security | None:
    """TLS with the certificates of a folder; None for an address without TLS.

    Raises:
        ConfigurationError: where one of the files is missing.
    """
    from distributed import Security

    if not address.startswith("tls://"):
        return None
    given = files_of(folder)
    return Security(
        tls_ca_file=str(given[_CA]),
        require_encryption=True,
        **{
            f"tls_{side}_{what}": str(given[name])
            for side in ("client", "scheduler", "worker")
            for what, name in (("cert", _CERTIFICATE), ("key", _KEY))
        },
    )


def environment_of(address: str, folder: Path | None) -> dict[str, str]:
    """The same for programs of Dask, by which they are told in their environment."""
    if not address.startswith("tls://"):
        return {}
    given = files_of(folder)
    prefix = "DASK_DISTRIBUTED__COMM__"
    return {
        f"{prefix}REQUIRE_ENCRYPTION": "True",
        f"{prefix}TLS__CA_FILE": str(given[_CA]),
        **{
            f"{prefix}TLS__{side}__{what}": str(given[name])
            for side in ("CLIENT", "SCHEDULER", "WORKER")
            for what, name in (("CERT", _CERTIFICATE), ("KEY", _KEY))
        },
    }


def files_of(folder: Path | None) -> dict[str, Path]:
    """The files of the folder, by name; raises ConfigurationError where one cannot be read."""
    if folder is None:
        raise ConfigurationError("BACKTEST_POOL_TLS is not set, and a tls:// address needs it")
    given = {name: folder / name for name in (_CA, _CERTIFICATE, _KEY)}
    for path in given.values():
        if not os.access(path, os.R_OK):
            raise ConfigurationError(
                f"BACKTEST_POOL_TLS: {path} is missing or cannot be read; "
                "copy the folder that the scheduler has; `backtest-pipeline pool certificates` "
                "makes the first one"
            )
    return given


def is_foreign(error: BaseException) -> bool:
    """Whether a connection failed because one side does not trust the certificate of the other."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError) and "CERT" in (seen.reason or "").upper():
            return True
        if any(word in str(seen) for word in _UNTRUSTED):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def validity(folder: Path) -> str:
    """Until when the certificate of the folder holds, in words.

    Raises:
        ConfigurationError: where a file is missing or cannot be read, or the certificate ends
            within 30 days.
    """
    ends_at = _end_of(files_of(folder)[_CERTIFICATE])
    if ends_at is None:
        raise ConfigurationError(
            f"{folder / _CERTIFICATE} is no certificate; copy the folder that the scheduler has"
        )
    if ends_at - datetime.now(UTC) < timedelta(days=_DAYS_LEFT):
        raise ConfigurationError(f"the certificate in {folder} ends on {ends_at:%Y-%m-%d}; {_ANEW}")
    return f"the certificate in {folder} holds until {ends_at:%Y-%m-%d}"


def make_certificates(folder: Path) -> bool:
    """Write a CA and one certificate of it for scheduler, workers and clients.

    The key of the CA is not kept: another certificate means a new folder for all.

    Returns:
        Whether it wrote them; False where the folder has some that hold for another month.

    Raises:
        ConfigurationError: where the folder cannot be written, holds some that end sooner, or holds
            a part of them, or what is no certificate: others may have copies that still hold.
    """
    if any((folder / name).exists() for name in (_CA, _CERTIFICATE, _KEY)):
        ends_at = _end_of(folder / _CERTIFICATE)
        if ends_at is None or not all((folder / name).exists() for name in (_CA, _KEY)):
            raise ConfigurationError(
                f"{folder} has a part of ca.pem, cert.pem and key.pem, or a cert.pem that cannot "
                "be read: copy the three files from a host that has them, or remove them to make "
                "new ones for all hosts"
            )
        if ends_at - datetime.now(UTC) > timedelta(days=_DAYS_LEFT):
            return False
        raise ConfigurationError(f"{folder}: the certificate ends on {ends_at:%Y-%m-%d}; {_ANEW}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in _made().items():
            _write(folder / name, content)
    except OSError as error:
        raise ConfigurationError(f"cannot write {folder}: {error.strerror}") from error
    return True


def _write(path: Path, content: bytes) -> None:
    """Write a file for this user alone, whole or not at all."""
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    unfinished.replace(path)


def _end_of(certificate: Path) -> datetime | None:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return None


def _made() -> dict[str, bytes]:
    """The files by name, the certificate last: where it is, the others are."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    now = datetime.now(UTC) - timedelta(minutes=5)  # clocks differ
    authority, node = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )

    signs = x509.KeyUsage(
        **dict.fromkeys(
            (
                *("digital_signature", "content_commitment", "key_encipherment"),
                *("data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
            ),
            False,
        ),
        key_cert_sign=True,
        crl_sign=True,
    )

    def certificate(
        of: ec.EllipticCurvePrivateKey, name: str, *, is_authority: bool
    ) -> x509.Certificate:
        made = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("backtest_pipeline pool CA"))
            .public_key(of.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=365 * _YEARS))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            # Python 3.13 refuses certificates that do not name keys and their use.
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(of.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
                critical=False,
            )
        )
        if is_authority:
            made = made.add_extension(signs, critical=True)
        return made.sign(authority, hashes.SHA256())

    return {
        _CA: certificate(authority, "backtest_pipeline pool CA", is_authority=True).public_bytes(
            Encoding.PEM
        ),
        _KEY: node.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        _CERTIFICATE: certificate(node, "backtest_pipeline pool", is_authority=False).public_bytes(
            Encoding.PEM
        ),
    }
