"""What the columns of a user's own hold, on the bars that are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backtest_pipeline.market.errors import ColumnsError
from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.pipeline.columns.column_sets import ColumnSet, known_sets
from backtest_pipeline.pipeline.stages.features import load_batch
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.storage.tables.datasets import stored_partitions

_JUST_AFTER_US = 1_000_000


@dataclass(frozen=True)
class ColumnReport:
    """One column on the stored bars of a timeframe.

    Attributes:
        column: its name.
        origin: the file or table that it comes from.
        timeframe: the bars that it was looked at on; empty where none are stored.
        bars: number of those bars, over all assets.
        with_value: share of them at which it has a value, 0 to 1; None without bars.
        assets: number of assets that have one at any bar.
        first, last: close of the first and last bar with a value, ISO 8601; None without one.
        remarks: what a reader should know.
    """

    column: str
    origin: str
    timeframe: str
    bars: int
    with_value: float | None
    assets: int
    first: str | None
    last: str | None
    remarks: tuple[str, ...]


@retried
def column_reports(
    workspace: Workspace, timeframe: str | None = None
) -> tuple[list[ColumnReport], dict[str, str]]:
    """A report of each column that strategies can read, and why others cannot be, by origin.

    Args:
        workspace: the open store.
        timeframe: the bars to look at; by default days, or the first timeframe that is stored.
    """
    with workspace.database.begin() as connection:
        stored = stored_partitions(connection, "features")
    names = list(dict.fromkeys(partition.timeframe for partition in stored))
    tf = timeframe or ("1D" if "1D" in names or not names else names[0])
    assets = sorted(partition.asset for partition in stored if partition.timeframe == tf)
    bars = load_batch(workspace, "features", tf, assets, ()).panel
    known = known_sets(workspace)
    known = known_sets(workspace, known.of_table)
    reports: list[ColumnReport] = []
    refused = dict(known.refused)
    for one in known.sets:
        try:
            reports += _reports(one, bars)
        except ColumnsError as error:
            refused[one.origin] = str(error)
    return sorted(reports, key=lambda report: report.column), refused


def _reports(one: ColumnSet, bars: Panel) -> list[ColumnReport]:
    values = one.values(bars)
    soon = one.values(replace(bars, ts=bars.ts + _JUST_AFTER_US))
    shared = one.remarks()
    n_assets = len(bars.assets)
    found = []
    for name in one.names:
        column = values[name]
        has = np.isfinite(column)
        at = np.flatnonzero(has)
        first, last = _span(bars.ts[has])
        with_any = len(np.unique(bars.segment_of_row[has]))
        remarks = list(shared)
        if len(at) and np.ptp(column[has]) == 0:
            remarks.append(f"it is {column[at[0]]:g} at every bar")
        if not len(at) and len(bars):
            remarks.append("no stored bar has a value: compare its symbols and dates")
        elif 2 * with_any <= n_assets and n_assets > 1:
            remarks.append(f"{n_assets - with_any} of {n_assets} assets have no value at any bar")
        late = float(np.mean(_differ(column, soon[name]))) if len(bars) else 0.0
        if late > 0.5:
            remarks.append(
                f"at {late:.0%} of the bars a row arrives within a second after the close, and is "
                "read at the next bar; stamp it at the close if it was known then"
            )
        found.append(
            ColumnReport(
                name,
                one.origin,
                bars.timeframe.name,
                len(bars),
                float(has.mean()) if len(bars) else None,
                with_any,
                first,
                last,
                tuple(remarks),
            )
        )
    return found


def _span(ts: np.ndarray) -> tuple[str | None, str | None]:
    """The earliest and the latest stamp, ISO 8601."""
    if not len(ts):
        return None, None
    first, last = utc_index(np.array([ts.min(), ts.max()]))
    return first.isoformat(), last.isoformat()


def _differ(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one != other) & ~(np.isnan(one) & np.isnan(other))
