"""One asset on plain pandas objects: the batch of one that a notebook asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel, stamps_us, utc_index
from backtest_pipeline.market.timeframes import TIMEFRAMES, Timeframe, timeframe
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.simulation.metrics import undefined_reasons
from backtest_pipeline.simulation.orders import (
    LONG_ENTRY,
    LONG_EXIT,
    NOTHING_PENDING,
    SHORT_ENTRY,
    SHORT_EXIT,
)
from backtest_pipeline.simulation.sizing import FixedFractional
from backtest_pipeline.simulation.trades import trade_columns

_SIDES = {1: "long", -1: "short", 0: "flat"}


@dataclass(frozen=True)
class SimulationResult:
    """What one run came to.

    Attributes:
        equity: account value at each bar's close, in the quote currency.
        benchmark: the same of buy and hold at the same costs.
        trades: one row per trade.
        metrics: the dictionary of docs/metrics.md; None where undefined.
        undefined: why a metric is None.
        pending: side that the last bar's signal asks for at the next open, None where none.
    """

    equity: pd.Series
    benchmark: pd.Series
    trades: pd.DataFrame
    metrics: dict[str, float | None]
    undefined: dict[str, str]
    pending: str | None


def simulate(
    bars: pd.DataFrame,
    entries: pd.Series,
    exits: pd.Series,
    short_entries: pd.Series | None = None,
    short_exits: pd.Series | None = None,
    *,
    costs: CostModel | None = None,
    sizing: FixedFractional | None = None,
    initial_cash: float = 10_000.0,
    timeframe: str | None = None,
) -> SimulationResult:
    """Trade signals on one asset's bars; a signal of bar t fills at the open of bar t + 1.

    Args:
        bars: columns open, high, low, close; tz-aware, strictly increasing index of T stamps.
        entries: boolean, T; enter long.
        exits: boolean, T; leave a long.
        short_entries: boolean, T; enter short.
        short_exits: boolean, T; leave a short.
        costs: fees and slippage; 10 and 5 basis points where not given.
        sizing: fraction of equity per entry; all of it where not given.
        initial_cash: starting equity.
        timeframe: name of the bars' timeframe; found from their spacing where not given.

    Raises:
        InvalidInput: for fewer than two bars, naive, unsorted or duplicate stamps, prices that
            are not positive numbers, an open or close outside low..high, or signals that do not
            fit the bars. Nothing is skipped or filled.
        UnknownName: for a timeframe that does not exist.
    """
    panel = bars_panel(bars, timeframe)
    if len(panel) < 2:
        raise InvalidInput(
            f"{len(panel)} bars; a signal fills at the next bar's open, so give at least two"
        )
    if short_exits is not None and short_entries is None:
        raise InvalidInput("short_exits without short_entries; give both or neither")
    events = np.zeros((1, len(panel)), np.uint8)
    for signal, bit, name in (
        (entries, LONG_ENTRY, "entries"),
        (exits, LONG_EXIT, "exits"),
        (short_entries, SHORT_ENTRY, "short_entries"),
        (short_exits, SHORT_EXIT, "short_exits"),
    ):
        if signal is not None or bit in (LONG_ENTRY, LONG_EXIT):
            events[0] |= _flags(signal, bars.index, name) * np.uint8(bit)
    config = SimulationConfig(
        costs=costs or CostModel(),
        sizing=sizing or FixedFractional(),
        direction=Direction.LONG if short_entries is None else Direction.BOTH,
        initial_cash=initial_cash,
    )
    return single_result(simulate_batch(panel, events, config))


def single_result(batch: BatchResult) -> SimulationResult:
    """The only column of a batch of one."""
    index = utc_index(batch.panel.ts)
    values = {name: float(column[0]) for name, column in batch.metrics.items()}
    pending = int(batch.pending[0])
    return SimulationResult(
        equity=pd.Series(batch.equity[0], index, name="equity"),
        benchmark=pd.Series(batch.benchmark, index, name="benchmark"),
        trades=_trade_frame(batch),
        metrics={name: None if np.isnan(value) else value for name, value in values.items()},
        undefined=undefined_reasons(values),
        pending=None if pending == NOTHING_PENDING else _SIDES[pending],
    )


def _trade_frame(batch: BatchResult) -> pd.DataFrame:
    columns = trade_columns(batch.trades)
    stamps = {name: utc_index(columns[name]) for name in ("entry_ts", "exit_ts")}
    return pd.DataFrame({**columns, **stamps})


def bars_panel(bars: pd.DataFrame, timeframe_name: str | None, asset: str = "asset") -> Panel:
    """One asset's bars as a panel; volume and gap_bars are taken along where they are there.

    Raises:
        InvalidInput: for a missing, repeated or non-numeric column, bad stamps, stamps of which
            two lie in one period, or too few to tell the timeframe.
    """
    if not isinstance(bars, pd.DataFrame):
        raise InvalidInput(f"bars must be a data frame, not {type(bars).__name__}")
    required = ("open", "high", "low", "close")
    for name in required:
        if name not in bars.columns:
            given = ", ".join(map(str, bars.columns))
            raise InvalidInput(
                f"bars have no column {name!r}, but {given or 'none at all'}; columns must be "
                f"called {', '.join(required)}"
            )
    optional = [name for name in ("volume", "gap_bars") if name in bars.columns]
    columns = (*required, *optional)
    _require_numbers(bars, columns)
    chosen = timeframe(timeframe_name) if timeframe_name else infer_timeframe(bars.index)
    panel = Panel.stack(chosen, {asset: bars}, columns)
    _require_one_bar_per_period(panel)
    return panel


def _require_numbers(bars: pd.DataFrame, columns: tuple[str, ...]) -> None:
    for name in columns:
        column = bars[name]
        if not isinstance(column, pd.Series):
            raise InvalidInput(f"bars have {column.shape[1]} columns {name!r}; keep one")
        try:
            column.to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"bars: column {name!r} does not hold numbers: {error}") from error


def _require_one_bar_per_period(panel: Panel) -> None:
    start = panel.timeframe.period_bounds(panel.ts)[0]
    shared = np.flatnonzero(start[1:] == start[:-1])
    if len(shared):
        first, second = panel.ts[shared[0] : shared[0] + 2].view("M8[us]")
        raise InvalidInput(
            f"the bars at {first} and {second} UTC lie in one period of {panel.timeframe.name}; "
            "pass the timeframe= that they have"
        )


def infer_timeframe(index: pd.Index) -> Timeframe:
    """The fixed-length timeframe that most steps of an index have.

    Raises:
        InvalidInput: where there are fewer than two stamps, they are not strictly increasing, or
            no timeframe is that long.
    """
    steps, counts = np.unique(np.diff(stamps_us(index, "bars")), return_counts=True)
    if len(steps) == 0:
        raise InvalidInput(f"cannot tell the timeframe of {len(index)} bars; give at least two")
    if steps[0] <= 0:
        raise InvalidInput(
            "bars: stamps are not strictly increasing; sort them and drop duplicates"
        )
    step_us = int(steps[counts.argmax()])
    for candidate in TIMEFRAMES.values():
        if candidate.length_us == step_us:
            return candidate
    raise InvalidInput(
        f"no timeframe is {pd.Timedelta(step_us, 'us')} long; pass timeframe= with its name"
    )


def _flags(signal: pd.Series | None, index: pd.Index, name: str) -> np.ndarray:
    if signal is None or np.shape(signal) != (len(index),):
        given = type(signal).__name__ if signal is None else f"shape {np.shape(signal)}"
        raise InvalidInput(f"{name} must be one boolean for each of {len(index)} bars, not {given}")
    if isinstance(signal, pd.Series) and not signal.index.equals(index):
        raise InvalidInput(f"{name} has another index than the bars; align it first")
    values = np.asarray(signal)
    if values.dtype != bool:
        raise InvalidInput(f"{name} must be boolean, not {values.dtype}; fill what is missing")
    return values.astype(np.uint8)
