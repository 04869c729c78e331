"""Keys of the service from the command line."""

from __future__ import annotations

from backtest_pipeline.storage.tables.api_keys import find_key
from backtest_pipeline_tests.cli.conftest import CommandLine


def test_a_key_is_printed_once_listed_without_its_secret_and_revoked(cli: CommandLine) -> None:
    made = cli("keys", "create", "--name", "desk", "--role", "runner", "--expires-days", "30")
    key = made.out.strip()
    assert made.code == 0
    assert len(key.split("_")) == 3
    (row,) = cli.json("keys", "list")["keys"]
    assert (row["name"], row["role"], row["revoked"]) == ("desk", "runner", None)
    secret = key.rpartition("_")[2]
    assert secret not in cli("keys", "list").out
    assert cli("keys", "revoke", row["id"]).code == 0
    with cli.database.begin() as connection:
        assert find_key(connection, key) is None


def test_a_key_that_cannot_be_is_refused(cli: CommandLine) -> None:
    assert "unknown role" in cli("keys", "create", "--name", "x", "--role", "root").message
    assert "unknown key" in cli("keys", "revoke", "123").message
    assert "no key yet" in cli("keys", "list").out


def test_a_service_without_keys_is_refused_where_others_can_reach_it(cli: CommandLine) -> None:
    refused = cli("serve", "--no-auth", "--host", "0.0.0.0")  # noqa: S104
    assert refused.code == 1
    assert "BACKTEST_SERVICE_AUTH: off is for 127.0.0.1" in refused.message
