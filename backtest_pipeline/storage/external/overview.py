"""What there is to tell of the user's own table, for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from backtest_pipeline.market.errors import TableDrift
from backtest_pipeline.market.panel import utc_index
from backtest_pipeline.market.timeframes import TIMEFRAMES
from backtest_pipeline.storage.external.probe import FeatureTable
from backtest_pipeline.storage.external.watermarks import Look, Watermark, look_at


def columns_told(table: FeatureTable) -> str:
    """Where it is, its columns and keys, the filters, and where EMAs and symbols come from."""
    features = table.features
    filters = ", ".join(f"{name}={'|'.join(v)}" for name, v in table.filters.items())
    told = [
        f"{features.name} in {table.database.where}: {len(features.columns)} columns",
        f"key columns besides id, ts, tf: {', '.join(table.keys) or 'none'}",
        f"filters: {filters or 'none'}",
        f"EMAs from {table.emas.name}" if table.emas else "EMAs computed from closes",
        f"symbols from {table.assets.name}" if table.assets else "symbols by id",
    ]
    if not table.stamped:
        told.append(
            "no updated_at: every refresh reads all rows, and the sensor sees no restatement"
        )
    return "; ".join(told)


def rows_told(table: FeatureTable, timeframes: Sequence[str]) -> str:
    """Rows, assets and newest stamp by timeframe, and which timeframes are left aside.

    Raises:
        TableDrift: where no row is of a timeframe of this project.
    """
    by_timeframe: dict[str, list[Watermark]] = defaultdict(list)
    look = look_at(table)
    for (_, tf), mark in look.watermarks.items():
        by_timeframe[tf].append(mark)
    known = [tf for tf in TIMEFRAMES if tf in by_timeframe]
    told = [_of_timeframe(tf, by_timeframe[tf]) for tf in known if tf in timeframes]
    aside = [*(tf for tf in known if tf not in timeframes), *sorted(set(by_timeframe) - set(known))]
    if not told:
        raise TableDrift(
            f"{table.features.name} has no row of {', '.join(timeframes)}, but of "
            f"{', '.join(aside) or 'nothing'}; set BACKTEST_TIMEFRAMES"
        )
    left = [f"not among BACKTEST_TIMEFRAMES: {', '.join(aside)}"] if aside else []
    return "; ".join([*told, *left, *left_out(look)])


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
