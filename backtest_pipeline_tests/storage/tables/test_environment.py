"""What a hash of an environment stands for can be read."""

from __future__ import annotations

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.environment import (
    differences,
    environment,
    environment_hash,
    record_environment,
    recorded_environments,
)


def test_an_environment_is_written_down_once_and_read_back(database: Database) -> None:
    for _ in range(2):
        with database.arrow() as connection, connection.cursor() as cursor:
            record_environment(cursor)
    with database.begin() as connection:
        found = recorded_environments(connection, [environment_hash(), "unknown"])
    assert found == {environment_hash(): environment()}
    assert found[environment_hash()]["versions"]["numba"].count(".") == 2


def test_differences_name_the_package_and_both_versions() -> None:
    here = environment()
    there = {**here, "machine": "aarch64x", "versions": {**here["versions"], "numpy": "1.0"}}
    del there["versions"]["pandas"]
    assert differences(here, here) == []
    assert differences(here, there) == [
        f"machine {here['machine']} -> aarch64x",
        f"numpy {here['versions']['numpy']} -> 1.0",
        f"pandas {here['versions']['pandas']} -> absent",
    ]
