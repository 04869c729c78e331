"""Funding rates from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.sources.tables import CSV, PARQUET

_SPELLINGS = {
    "symbol": ("symbol",),
    "ts": ("ts", "timestamp", "fundingtime", "funding_time", "calc_time"),
    "rate": ("rate", "fundingrate", "funding_rate", "last_funding_rate"),
}


def read_funding(path: Path) -> dict[str, pd.Series]:
    """Rates by symbol from a Parquet or CSV file of symbol, ts and rate.

    Stamps are text or timestamps in UTC, or milliseconds since 1970, as exchanges export them.

    Raises:
        BarsError: for a file that cannot be read or lacks a column.
    """
    if not path.name.lower().endswith((*PARQUET, *CSV)):
        raise BarsError(f"{path}: funding rates are read from {', '.join((*PARQUET, *CSV))}")
    try:
        parquet = path.name.lower().endswith(PARQUET)
        table = pd.read_parquet(path) if parquet else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise BarsError(f"{path}: cannot be read as funding rates: {error}") from error
    columns = {str(name).strip().lower(): name for name in table.columns}
    found = {}
    for field, spellings in _SPELLINGS.items():
        name = next((columns[s] for s in spellings if s in columns), None)
        if name is None:
            raise BarsError(f"{path}: no column {field!r}; there are {', '.join(columns)}")
        found[field] = table[name]
    try:
        unit = "ms" if pd.api.types.is_numeric_dtype(found["ts"]) else None
        stamps = pd.DatetimeIndex(pd.to_datetime(found["ts"], unit=unit, utc=True))
        rates = pd.Series(np.asarray(pd.to_numeric(found["rate"]), np.float64), stamps)
    except (TypeError, ValueError) as error:
        raise BarsError(f"{path}: stamps or rates cannot be read: {error}") from error
    blank = int(pd.isna(found["symbol"]).sum())
    if blank:
        raise BarsError(f"{path}: {blank} rows have no symbol")
    if len(stamps) and np.datetime64("2000") > np.max(stamps.tz_localize(None).to_numpy()):
        raise BarsError(f"{path}: the stamps end on {stamps.max()}; numbers are milliseconds")
    by_symbol = rates.groupby(np.asarray(found["symbol"]))
    return {str(symbol): pd.Series(part.sort_index()) for symbol, part in by_symbol}
