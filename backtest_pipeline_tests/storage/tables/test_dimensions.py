from __future__ import annotations

import pytest

from backtest_pipeline.market.errors import StoreError, UnknownName
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.dimensions import asset_ids
from backtest_pipeline_tests.storage.panels import ensure_assets


def ids_of(database: Database, symbols: list[str]) -> dict[str, int]:
    with database.begin() as connection:
        return asset_ids(connection, symbols)


def test_known_ids_are_kept_and_others_begin_at_100001(database: Database) -> None:
    ids = ensure_assets(database, ["BTC", "NEW", "OTHER"], known_ids={"BTC": 1})
    assert ids["BTC"] == 1
    assert sorted((ids["NEW"], ids["OTHER"])) == [100001, 100002]


def test_an_asset_keeps_its_id(database: Database) -> None:
    first = ensure_assets(database, ["BTC", "ETH"])
    assert ensure_assets(database, ["ETH", "BTC", "SOL"]).items() >= first.items()
    assert ids_of(database, ["ETH"]) == {"ETH": first["ETH"]}


@pytest.mark.parametrize("symbol", ["A|B", "A,B", "A[B", "A B", ""])
def test_a_symbol_that_cannot_be_a_partition_key_is_refused(
    database: Database, symbol: str
) -> None:
    with pytest.raises(StoreError, match="check constraint"):
        ensure_assets(database, [symbol])


def test_an_unknown_symbol_is_refused_with_the_nearest(database: Database) -> None:
    ensure_assets(database, ["BTC"])
    with pytest.raises(UnknownName, match="unknown asset 'BTX'; did you mean BTC"):
        ids_of(database, ["BTC", "BTX"])


def test_a_symbol_is_a_value_and_never_sql(database: Database) -> None:
    evil = "x');DROP/**/TABLE/**/signals;--"
    ids = ensure_assets(database, [evil])
    assert ids_of(database, [evil]) == ids
