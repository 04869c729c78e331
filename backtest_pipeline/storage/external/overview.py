"""Descriptions of the external table, for `doctor`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from backtest_pipeline.market.errors import TableDrift
from backtest_pipeline.market.panel import utc_index
from backtest_pipeline.market.timeframes import is_timeframe, timeframe
from backtest_pipeline.storage.external.probe import FeatureTable
from backtest_pipeline.storage.external.watermarks import Look, Watermark, look_at


def describe_columns(table: FeatureTable) -> str:
    """One line with location, columns, keys and filters, and the sources of EMAs and symbols."""
    features = table.features
    filters = ", ".join(f"{name}={'|'.join(v)}" for name, v in table.filters.items())
    parts = [
        f"{features.name} in {table.database.where}: {len(features.columns)} columns",
        f"key columns besides id, ts, tf: {', '.join(table.keys) or 'none'}",
        f"filters: {filters or 'none'}",
        f"EMAs from {table.emas.name}" if table.emas else "EMAs computed from closes",
        f"symbols from {table.assets.name}" if table.assets else "symbols by id",
    ]
    if not table.stamped:
        parts.append(
            "no updated_at: every refresh reads all rows, and the sensor misses restatements"
        )
    return "; ".join(parts)


def describe_rows(table: FeatureTable, timeframes: Sequence[str]) -> str:
    """One line with rows, assets and newest timestamp by timeframe, and the unused timeframes.

    Raises:
        TableDrift: where no row has a timeframe of this project.
    """
    by_timeframe: dict[str, list[Watermark]] = defaultdict(list)
    look = look_at(table)
    for (_, tf), mark in look.watermarks.items():
        by_timeframe[tf].append(mark)
    known = sorted(filter(is_timeframe, by_timeframe), key=lambda tf: timeframe(tf).sort_key)
    parts = [_of_timeframe(tf, by_timeframe[tf]) for tf in known if tf in timeframes]
    unused = [
        *(tf for tf in known if tf not in timeframes),
        *sorted(set(by_timeframe) - set(known)),
    ]
    if not parts:
        raise TableDrift(
            f"{table.features.name} has no rows of {', '.join(timeframes)}, only of "
            f"{', '.join(unused) or 'nothing'}; set BACKTEST_TIMEFRAMES"
        )
    left = [f"not among BACKTEST_TIMEFRAMES: {', '.join(unused)}"] if unused else []
    return "; ".join([*parts, *left, *left_out(look)])


def left_out(look: Look) -> list[str]:
    """A sentence on the rows of each id that cannot be used, and why."""
    by_id: dict[int | None, int] = defaultdict(int)
    for (id_, _), n in look.unusable.items():
        by_id[id_] += n
    return [_unusable(id_, n) for id_, n in sorted(by_id.items(), key=lambda item: str(item[0]))]


def _unusable(id_: int | None, n: int) -> str:
    rows = f"{n:,} {'row' if n == 1 else 'rows'}"
    if id_ is None:
        return f"{rows} without an id left out"
    if not -(2**31) <= id_ < 2**31:
        return f"{rows} of id {id_} left out: an asset's id is at most 2147483647"
    return f"{rows} of id {id_} left out: the stamp is missing, infinite or outside 1900 to 2261"


def _of_timeframe(tf: str, marks: Sequence[Watermark]) -> str:
    newest = utc_index(np.array([max(mark.last_ts for mark in marks)]))[0]
    rows = sum(mark.n_rows for mark in marks)
    return f"{tf} {rows:,} rows of {len(marks)} assets until {newest:%Y-%m-%d %H:%M:%S}"
