"""Keys of the HTTP service: 256 random bits each, of which only the hash is stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from backtest_pipeline.market.errors import InvalidInput, UnknownName

Role = Literal["viewer", "runner", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "runner", "admin")
PREFIX = "btp_"

_SHAPE = re.compile(r"btp_([0-9a-f]{12})_[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,63}")
_NO_HASH = "0" * 64
_COLUMNS = "key_id, name, role, rate_per_minute, created_at, expires_at, revoked_at"


@dataclass(frozen=True)
class ApiKey:
    """A stored key, without its secret.

    Attributes:
        key_id: the public beginning of the key, by which it is revoked.
        name: name of its owner, recorded with requests.
        role: a `viewer` may read, a `runner` may also compute, an `admin` may also remove what
            others made.
        rate_per_minute: maximum number of requests per minute.
        created_at, expires_at, revoked_at: times, None for never.
    """

    key_id: str
    name: str
    role: Role
    rate_per_minute: int
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def require_terms(
    name: str, role: str, rate_per_minute: int, expires_days: float | None = None
) -> None:
    """Raise what `create_key` raises."""
    if role not in ROLES:
        raise UnknownName("role", role, ROLES)
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"a key's name must be 1 to 64 letters, digits, @ . _ or -, not {name!r}"
        )
    if not 1 <= rate_per_minute <= 1_000_000:
        raise InvalidInput(
            f"a key's rate must be from 1 to 1,000,000 per minute, not {rate_per_minute}"
        )
    if expires_days is not None and not 0 < expires_days <= 36_500:
        raise InvalidInput(
            f"a key's expiry must be above 0 and at most 36,500 days, not {expires_days}"
        )


def create_key(
    connection: sa.Connection,
    name: str,
    role: str,
    rate_per_minute: int,
    expires_days: float | None = None,
) -> str:
    """Create a key and return it; it cannot be shown again.

    Args:
        connection: connection of the transaction; the key is valid once it commits.
        name: name of the owner; several keys may share a name, as when one replaces another.
        role: `viewer`, `runner` or `admin`.
        rate_per_minute: maximum number of requests per minute.
        expires_days: days until it expires; never where None.

    Raises:
        UnknownName: for an unknown role.
        InvalidInput: for an invalid name, rate or expiry.
    """
    require_terms(name, role, rate_per_minute, expires_days)
    key_id = secrets.token_hex(6)
    key = f"{PREFIX}{key_id}_{secrets.token_hex(32)}"
    connection.execute(
        sa.text("""
            INSERT INTO api_keys (key_id, key_hash, name, role, rate_per_minute, expires_at)
            VALUES (:key_id, :key_hash, :name, :role, :rate,
                    now() + CAST(:days AS double precision) * interval '1 day')
        """),
        {
            "key_id": key_id,
            "key_hash": _hash(key),
            "name": name,
            "role": role,
            "rate": rate_per_minute,
            "days": expires_days,
        },
    )
    return key


def find_key(connection: sa.Connection, presented: str) -> ApiKey | None:
    """The stored key if the presented one is valid, in constant time; None otherwise."""
    shape = _SHAPE.fullmatch(presented)
    row = connection.execute(
        sa.text(f"""
            SELECT {_COLUMNS}, key_hash,
                   revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS counts
            FROM api_keys WHERE key_id = :key_id
        """),  # noqa: S608 - our own column names
        {"key_id": shape.group(1) if shape else ""},
    ).one_or_none()
    fits = hmac.compare_digest(_hash(presented), row.key_hash if row else _NO_HASH)
    return _key_of(row) if row and fits and row.counts else None


def list_keys(connection: sa.Connection) -> Sequence[ApiKey]:
    """All keys, including revoked and expired ones, newest first."""
    rows = connection.execute(
        sa.text(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at DESC, key_id")  # noqa: S608
    )
    return [_key_of(row) for row in rows]


def revoke_key(connection: sa.Connection, key_id: str) -> ApiKey:
    """Revoke a key and return it; revoking it again changes nothing.

    Raises:
        UnknownName: where there is no such key.
    """
    row = connection.execute(
        sa.text(f"""
            UPDATE api_keys SET revoked_at = coalesce(revoked_at, now())
            WHERE key_id = :key_id RETURNING {_COLUMNS}
        """),  # noqa: S608
        {"key_id": key_id},
    ).one_or_none()
    if row is None:
        raise UnknownName("key", key_id, [key.key_id for key in list_keys(connection)])
    return _key_of(row)


def _key_of(row: sa.Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(**{name: getattr(row, name) for name in _COLUMNS.split(", ")})


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
