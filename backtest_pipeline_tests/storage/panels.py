"""Random panels that fit `cmc_features`, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import sqlalchemy as sa

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.sources.base import AssetInfo
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.dimensions import register_assets

PERIODS = (9, 21, 50)
_KEYS = ("id", "ts", "tf", "tf_days", "asset_class", "updated_at")


def ensure_assets(
    database: Database, symbols: Sequence[str], known_ids: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Register assets by their symbols; their ids."""
    infos = [AssetInfo(s, s, "crypto", (known_ids or {}).get(s), synthetic=False) for s in symbols]
    with database.begin() as connection:
        return register_assets(connection, infos, "test")


def feature_types(database: Database) -> dict[str, str]:
    query = sa.text(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_name = 'cmc_features' ORDER BY ordinal_position"
    )
    with database.begin() as connection:
        types = dict(tuple(row) for row in connection.execute(query))
    return {name: type_ for name, type_ in types.items() if name not in _KEYS}


def random_panel(database: Database, lengths: dict[str, int], seed: int = 0) -> Panel:
    """Daily rows from 2020 on for each asset, the first two of most columns NaN."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum(list(lengths.values())))).astype(np.int64)
    days = np.concatenate([np.arange(n) for n in lengths.values()] or [np.empty(0, int)])
    n = len(days)

    def column(type_: str) -> np.ndarray:
        if type_ == "boolean":
            return rng.random(n) < 0.1
        if type_ == "integer":
            return rng.integers(0, 3, n).astype(np.float64)
        return np.where(days < 2, np.nan, rng.random(n) * 100)

    columns = {name: column(type_) for name, type_ in feature_types(database).items()}
    columns |= {name: rng.random(n) * 100 for name in ("open", "high", "low", "close", "volume")}
    columns |= {f"ema_{period}": column("double") for period in PERIODS}
    ts = np.datetime64("2020-01-01", "us").astype(np.int64) + days * DAY_US
    return Panel(timeframe("1D"), tuple(lengths), offsets, ts, columns)


def first_rows(panel: Panel, n: int) -> Panel:
    """The first n rows of each asset."""
    return panel.take(np.arange(len(panel)) - panel.offsets[panel.segment_of_row] < n)


def assert_equal(one: Panel, other: Panel) -> None:
    assert one.assets == other.assets
    np.testing.assert_array_equal(one.offsets, other.offsets)
    np.testing.assert_array_equal(one.ts, other.ts)
    assert set(one.columns) == set(other.columns)
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)
