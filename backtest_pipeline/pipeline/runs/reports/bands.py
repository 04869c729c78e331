"""The 90 % band of a run: computed once, by the first command that shows it, and stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.report.thinning import thinned_rows
from backtest_pipeline.research.robustness.bootstrap import BAND_PERCENTILES, daily_equity
from backtest_pipeline.research.robustness.run_bands import (
    BANDED,
    BANDS_VERSION,
    DRAWS,
    SEED,
    RunBands,
    bands_of,
)
from backtest_pipeline.storage.run_tables.run_bands import store_bands, stored_bands

Intervals = dict[str, tuple[float | None, float | None]]
_MOST_DAYS = 250


@retried
def run_bands(workspace: Workspace, run: Mapping[str, Any], risk_free: float) -> Intervals | None:
    """The intervals of a run by metric, from the store, or computed and stored.

    Args:
        workspace: the open store.
        run: a row of `storage.run_tables.runs.runs_by_id`.
        risk_free: risk-free return per day, a fraction.

    Returns:
        None for too few daily returns, or constant ones.
    """
    run_id = UUID(str(run["run_id"]))
    with workspace.database.begin() as connection:
        row = stored_bands(connection, run_id)
    if row is None or row["bands_version"] != BANDS_VERSION:
        bands = _computed(workspace, run, risk_free)
        if bands is None:
            return None
        row = _row(bands)
        with workspace.database.begin() as connection:
            store_bands(connection, run_id, row)
    return intervals_of(row)


def stored_intervals(row: Mapping[str, Any] | None) -> Intervals | None:
    """The intervals in a row of `run_bands`; None without one, or for one of another version."""
    if row is None or row["bands_version"] != BANDS_VERSION:
        return None
    return intervals_of(row)


def intervals_of(row: Mapping[str, Any]) -> Intervals:
    """The intervals in a row of `run_bands`."""
    return {name: (row[f"{name}_low"], row[f"{name}_high"]) for name in BANDED}


def _computed(workspace: Workspace, run: Mapping[str, Any], risk_free: float) -> RunBands | None:
    own = [("run_id", "=", str(run["run_id"]))]
    table = workspace.artifacts.read_table(
        run["artifact_uri"], "equity.parquet", ["ts", "equity"], own
    )
    daily = daily_equity(table["ts"].cast(pa.int64()).to_numpy(), table["equity"].to_numpy())
    return bands_of(daily, holding_days=run["avg_holding_days"], risk_free=risk_free)


def _row(bands: RunBands) -> dict[str, Any]:
    curves = {
        f"p{percent:02}": values
        for percent, values in zip(BAND_PERCENTILES, bands.percentiles, strict=True)
        if percent != 50
    }
    rows = thinned_rows(list(curves.values()), _MOST_DAYS)
    ends = {
        f"{name}_{end}": float(value) if math.isfinite(value) else None
        for name, (low, high) in bands.intervals.items()
        for end, value in (("low", low), ("high", high))
    }
    return {
        "bands_version": BANDS_VERSION,
        "draws": DRAWS,
        "seed": SEED,
        **ends,
        "days": [np.datetime64(int(day), "D").item() for day in bands.day[rows]],
        **{name: values[rows].tolist() for name, values in curves.items()},
    }
