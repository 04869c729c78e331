"""Certificates: what is made, what is kept, and who trusts whom."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.pipeline.pools.tls import (
    environment_of,
    files_of,
    is_foreign,
    make_certificates,
    security_of,
    validity,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert make_certificates(tmp_path / "tls")
    return tmp_path / "tls"


def context(folder: Path, side: int) -> ssl.SSLContext:
    """What a side trusts, as strict as Python 3.13 is by itself."""
    made = ssl.SSLContext(side)
    made.check_hostname, made.verify_mode = False, ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(folder / "ca.pem")
    made.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return made


def shake_hands(client: Path, server: Path) -> None:
    """Raise ssl.SSLError where one of both does not trust the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        context(client, ssl.PROTOCOL_TLS_CLIENT).wrap_bio(to_client, to_server),
        context(server, ssl.PROTOCOL_TLS_SERVER).wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)


def test_those_with_certificates_of_one_folder_trust_each_other_alone(
    folder: Path, tmp_path: Path
) -> None:
    shake_hands(folder, folder)
    make_certificates(tmp_path / "others")
    for client, server in ((folder, tmp_path / "others"), (tmp_path / "others", folder)):
        with pytest.raises(ssl.SSLError, match="certificate") as caught:
            shake_hands(client, server)
        assert is_foreign(OSError("a connection failed")) is False
        assert is_foreign(caught.value)


def test_only_its_user_can_read_them_and_they_are_kept(folder: Path) -> None:
    files = files_of(folder)
    before = {name: path.read_bytes() for name, path in files.items()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert not make_certificates(folder)
    assert {name: path.read_bytes() for name, path in files.items()} == before


def ending(in_days: int) -> bytes:
    """A certificate that ends in so many days."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=365))
        .not_valid_after(now + timedelta(days=in_days))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


@pytest.mark.parametrize("in_days", [-1, 10])
def test_one_that_ends_soon_has_to_be_removed_first(folder: Path, in_days: int) -> None:
    (folder / "cert.pem").write_bytes(ending(in_days))
    with pytest.raises(ConfigurationError, match=r"the certificate ends on .* remove the three"):
        make_certificates(folder)
    with pytest.raises(ConfigurationError, match=r"ends on .*; remove the three files"):
        validity(folder)


def test_how_long_it_holds_is_told(folder: Path) -> None:
    ends_at = datetime.now(UTC) + timedelta(days=5 * 365, minutes=-5)
    days = {ends_at.date(), (ends_at - timedelta(hours=1)).date()}  # it was made before midnight
    assert any(f"holds until {day:%Y-%m-%d}" in validity(folder) for day in days)
    (folder / "cert.pem").write_text("nonsense")
    with pytest.raises(ConfigurationError, match=r"cert\.pem is no certificate"):
        validity(folder)


@pytest.mark.parametrize("missing", ["ca.pem", "cert.pem", "key.pem"])
def test_where_one_is_missing_the_others_are_kept(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    why = f"{missing} is missing or cannot be read; copy the folder that the scheduler has"
    with pytest.raises(ConfigurationError, match=why):
        files_of(folder)
    with pytest.raises(ConfigurationError, match="has a part of"):
        make_certificates(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == kept


def test_what_is_no_certificate_is_not_replaced(folder: Path) -> None:
    (folder / "cert.pem").write_text("nonsense")
    authority = (folder / "ca.pem").read_bytes()
    with pytest.raises(ConfigurationError, match=r"cert\.pem that cannot be read"):
        make_certificates(folder)
    assert (folder / "ca.pem").read_bytes() == authority


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"cannot write .*file"):
        make_certificates(tmp_path / "file" / "tls")


def test_without_tls_there_is_none_and_with_it_everybody_needs_a_certificate(folder: Path) -> None:
    assert security_of("tcp://127.0.0.1:1", None) is None
    assert environment_of("tcp://127.0.0.1:1", folder) == {}
    with pytest.raises(ConfigurationError, match="BACKTEST_POOL_TLS is not set"):
        security_of("tls://scheduler:1", None)
    security = security_of("tls://scheduler:1", folder)
    assert security is not None
    assert security.require_encryption is True
    told = environment_of("tls://scheduler:1", folder)
    assert told["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
    paths = {value for name, value in told.items() if "__TLS__" in name}
    assert paths == {str(path) for path in files_of(folder).values()}
