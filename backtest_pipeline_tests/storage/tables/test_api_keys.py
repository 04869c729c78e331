"""Keys of the service are shown once, stored as a hash, and count until they do not."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.api_keys import create_key, find_key, list_keys, revoke_key
from backtest_pipeline_tests.sql import scalar


def test_a_key_is_found_by_what_was_shown_and_stored_only_as_its_hash(database: Database) -> None:
    with database.begin() as connection:
        key = create_key(connection, "desk", "runner", 60)
        found = find_key(connection, key)
        (row,) = connection.execute(sa.text("SELECT api_keys::text FROM api_keys")).scalars()
    assert found is not None
    assert (found.name, found.role, found.rate_per_minute) == ("desk", "runner", 60)
    secret = key.rpartition("_")[2]
    assert len(secret) == 64
    assert secret not in row


def test_no_other_text_is_a_key(database: Database) -> None:
    with database.begin() as connection:
        key = create_key(connection, "desk", "viewer", 60)
        last = "0" if key[-1] != "0" else "1"
        head, _, secret = key.rpartition("_")
        for other in ("", "btp_", head, key[:-1], key[:-1] + last, key + "0", key.upper()):
            assert find_key(connection, other) is None, other
        assert find_key(connection, f"{head}_{secret[::-1]}") is None
        assert find_key(connection, key + "\x00") is None
        assert find_key(connection, "btp_' OR '1'='1_" + secret) is None


def test_a_revoked_key_and_an_expired_one_count_no_more(database: Database) -> None:
    with database.begin() as connection:
        revoked = create_key(connection, "desk", "viewer", 60)
        expired = create_key(connection, "guest", "viewer", 60, expires_days=1)
        lasting = create_key(connection, "guest", "viewer", 60, expires_days=1)
    with database.begin() as connection:
        assert find_key(connection, expired) is not None
        key = revoke_key(connection, revoked.split("_")[1])
        assert key.revoked_at is not None
        connection.execute(
            sa.text("UPDATE api_keys SET expires_at = now() WHERE key_id = :id"),
            {"id": expired.split("_")[1]},
        )
        assert find_key(connection, revoked) is None
        assert find_key(connection, expired) is None
        assert find_key(connection, lasting) is not None
        assert {k.name for k in list_keys(connection)} == {"desk", "guest"}
    with database.begin() as connection:
        assert revoke_key(connection, key.key_id).revoked_at == key.revoked_at


def test_a_key_that_cannot_be_is_refused(database: Database) -> None:
    with database.begin() as connection:
        with pytest.raises(UnknownName, match="role 'owner'"):
            create_key(connection, "desk", "owner", 60)
        with pytest.raises(InvalidInput, match="name"):
            create_key(connection, "oidc:me", "viewer", 60)
        with pytest.raises(InvalidInput, match="rate"):
            create_key(connection, "desk", "viewer", 0)
        with pytest.raises(InvalidInput, match="expiry must be above 0"):
            create_key(connection, "desk", "viewer", 60, expires_days=-1)
        with pytest.raises(UnknownName, match="unknown key 'abc'"):
            revoke_key(connection, "abc")


def test_who_may_only_read_the_store_does_not_read_keys(database: Database) -> None:
    may = scalar(database, "SELECT has_table_privilege('backtest_reader', 'api_keys', 'SELECT')")
    assert may is False
