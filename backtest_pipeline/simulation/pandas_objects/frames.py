"""Convert pandas objects to panels and events."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.panel import Panel, stamps_us
from backtest_pipeline.market.timeframes import SHIPPED, Timeframe, of_length, timeframe
from backtest_pipeline.simulation.inputs import require_bars
from backtest_pipeline.simulation.marks import DAILY
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT

_BITS = {
    "entries": LONG_ENTRY,
    "exits": LONG_EXIT,
    "short_entries": SHORT_ENTRY,
    "short_exits": SHORT_EXIT,
}


def bars_panel(bars: pd.DataFrame, timeframe_name: str | None, asset: str = "asset") -> Panel:
    """One asset's bars as a panel, with volume and gap_bars if present.

    Raises:
        InvalidInput: for a missing, repeated or non-numeric column, invalid timestamps, two bars in
            one period, or too few bars to infer the timeframe.
    """
    if not isinstance(bars, pd.DataFrame):
        raise InvalidInput(f"bars must be a pandas DataFrame, not {type(bars).__name__}")
    required = ("open", "high", "low", "close")
    for name in required:
        if name not in bars.columns:
            given = ", ".join(map(str, bars.columns))
            raise InvalidInput(
                f"bars have no column {name!r}, only {given or 'no columns at all'}; rename them "
                f"to {', '.join(required)}"
            )
    optional = [name for name in ("volume", "gap_bars") if name in bars.columns]
    columns = (*required, *optional)
    _require_numbers(bars, columns)
    chosen = timeframe_of(bars, timeframe_name)
    panel = Panel.stack(chosen, {asset: bars}, columns)
    _require_one_bar_per_period(panel)
    return panel


def daily_panel(daily: pd.DataFrame | None, asset: str = "asset") -> Panel | None:
    """One asset's daily bars, to mark runs on longer ones by, as a panel; None where not given.

    Raises:
        InvalidInput: as `bars_panel`; and for prices that are not positive numbers, an open or
            close outside low..high, or a jump of LARGEST_STEP.
    """
    if daily is None:
        return None
    panel = bars_panel(daily, DAILY, asset)
    require_bars(panel)
    return panel


def _require_numbers(bars: pd.DataFrame, columns: tuple[str, ...]) -> None:
    for name in columns:
        column = bars[name]
        if not isinstance(column, pd.Series):
            raise InvalidInput(f"bars have {column.shape[1]} columns named {name!r}; keep one")
        try:
            column.to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"bars: column {name!r} must be numeric: {error}") from error


def _require_one_bar_per_period(panel: Panel) -> None:
    if len(panel) > 1:
        steps = (
            panel.timeframe.period_bounds(panel.ts)[0][1:]
            - panel.timeframe.period_bounds(panel.ts[:-1])[1]
        )
        if steps.min() > 0:
            raise InvalidInput(
                f"no two bars are one {panel.timeframe.name} period apart; pass the timeframe= of "
                "these bars"
            )
    start = panel.timeframe.period_bounds(panel.ts)[0]
    shared = np.flatnonzero(start[1:] == start[:-1])
    if len(shared):
        first, second = panel.ts[shared[0] : shared[0] + 2].view("M8[us]")
        raise InvalidInput(
            f"the bars at {first} and {second} UTC are in the same {panel.timeframe.name} period; "
            "pass the timeframe= of these bars"
        )


def timeframe_of(frame: pd.DataFrame, name: str | None) -> Timeframe:
    """The timeframe that is named, else that of the frame's `attrs`, else that of most steps.

    Raises:
        UnknownName, InvalidInput: as `timeframe` and `infer_timeframe`.
    """
    name = name or frame.attrs.get("timeframe")
    return timeframe(name) if name else infer_timeframe(frame.index)


def infer_timeframe(index: pd.Index) -> Timeframe:
    """The timeframe whose length is the most common step of an index.

    Raises:
        InvalidInput: for fewer than two timestamps, timestamps that are not strictly increasing, or
            a step that no shipped timeframe has.
    """
    steps, counts = np.unique(np.diff(stamps_us(index, "bars")), return_counts=True)
    if len(steps) == 0:
        raise InvalidInput(
            f"cannot infer the timeframe of {len(index)} bars; give at least two, or timeframe="
        )
    if steps[0] <= 0:
        raise InvalidInput(
            "bars: timestamps not strictly increasing; sort them and drop duplicates"
        )
    step_us = int(steps[counts.argmax()])
    found = of_length(step_us)
    if found is None or found.name not in SHIPPED:  # odd steps may be those of bars with holes
        raise InvalidInput(
            f"no shipped timeframe is {pd.Timedelta(step_us, 'us')} long; pass timeframe= by name"
        )
    return found


def events_of(signals: Mapping[str, pd.Series | None], index: pd.Index) -> np.ndarray:
    """Signals of one run on one asset, uint8 `(1, n_bars)`; bits as in `simulation.orders`.

    Args:
        signals: boolean series on the bars' index by name: entries and exits, and optionally
            short_entries and short_exits.
        index: timestamps of the bars.

    Raises:
        UnknownName: for another name.
        InvalidInput: for signals that are not boolean or not on the bars' index.
    """
    for name in signals:
        if name not in _BITS:
            raise UnknownName("signal column", name, _BITS)
    if signals.get("short_exits") is not None and signals.get("short_entries") is None:
        raise InvalidInput("short_exits without short_entries: give both, or neither")
    events = np.zeros((1, len(index)), np.uint8)
    for name, bit in _BITS.items():
        signal = signals.get(name)
        if signal is not None or name in ("entries", "exits"):
            events[0] |= _flags(signal, index, name) * np.uint8(bit)
    return events


def _flags(signal: pd.Series | None, index: pd.Index, name: str) -> np.ndarray:
    if signal is None or np.shape(signal) != (len(index),):
        given = type(signal).__name__ if signal is None else f"shape {np.shape(signal)}"
        raise InvalidInput(
            f"{name} must have one boolean for each of the {len(index)} bars, not {given}"
        )
    if isinstance(signal, pd.Series) and not signal.index.equals(index):
        raise InvalidInput(f"{name} has a different index from the bars; reindex it first")
    values = np.asarray(signal)
    if values.dtype != bool:
        raise InvalidInput(
            f"{name} must be boolean, not {values.dtype}; fill missing values and use .astype(bool)"
        )
    return values.astype(np.uint8)
