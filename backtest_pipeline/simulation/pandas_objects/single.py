"""Simulate one asset on pandas objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import stamps_us, utc_index
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.columns import columns_read
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.marks import marks_of
from backtest_pipeline.simulation.metrics.benchmarks import (
    benchmark_equity,
    carried_forward,
    equity_values,
)
from backtest_pipeline.simulation.metrics.equity import drawdowns, position_values
from backtest_pipeline.simulation.metrics.metrics import (
    AGAINST_BENCHMARK,
    METRIC_NAMES,
    TRADE_COLUMNS,
    equity_metrics,
    trade_metrics,
    undefined_reasons,
)
from backtest_pipeline.simulation.orders import NOTHING_PENDING
from backtest_pipeline.simulation.pandas_objects.frames import bars_panel, daily_panel, events_of
from backtest_pipeline.simulation.trades import Trades, trade_columns
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.engine_names import EngineName
from backtest_pipeline.trading.sizing import FixedFractional, Sizing
from backtest_pipeline.trading.stops import IntrabarOrder, StopRules

SIDES = {1: "long", -1: "short", 0: "flat"}
_ASSET = "asset"


@dataclass(frozen=True)
class SimulationResult:
    """The result of one run.

    Attributes:
        equity: account value at each bar's close, and at each day's end where daily bars mark it;
            in the quote currency.
        drawdown: equity over its running maximum, minus 1.
        exposure: value of the position over equity, a fraction; negative while short.
        benchmark: equity of the benchmark.
        trades: one row per trade, see docs/simulation.md.
        metrics: metrics of docs/metrics.md by name; None where undefined.
        undefined: why a metric is None.
        pending: side to take at the next open after the last bar's signal: "long", "short" or
            "flat"; None if nothing is to be done.
        blocked_entries: number of entries that could not be sized, or were too small.
        conflicts: number of bars with entries of both sides, on which nothing was done.
        liquidated: whether the account lost all of its equity.
    """

    equity: pd.Series
    drawdown: pd.Series
    exposure: pd.Series
    benchmark: pd.Series
    trades: pd.DataFrame
    metrics: dict[str, float | None]
    undefined: dict[str, str]
    pending: str | None
    blocked_entries: int
    conflicts: int
    liquidated: bool

    @property
    def returns(self) -> pd.Series:
        """Return from mark to mark of the equity, a fraction; the first is NaN."""
        return pd.Series(self.equity.pct_change().rename("returns"))


def simulate(
    bars: pd.DataFrame,
    entries: pd.Series,
    exits: pd.Series,
    short_entries: pd.Series | None = None,
    short_exits: pd.Series | None = None,
    *,
    costs: CostModel | None = None,
    sizing: Sizing | None = None,
    stops: StopRules | None = None,
    funding: pd.Series | None = None,
    finer: pd.DataFrame | None = None,
    daily: pd.DataFrame | None = None,
    benchmark: str | pd.Series = "asset",
    initial_cash: float = 10_000.0,
    max_leverage: float = 1.0,
    lot_size: float = 0.0,
    min_notional: float = 0.0,
    delay_bars: int = 0,
    cooldown_bars: int = 0,
    intrabar: str = IntrabarOrder.STOP_FIRST.value,
    risk_free: float = 0.0,
    engine: str = EngineName.ACCOUNT.value,
    timeframe: str | None = None,
) -> SimulationResult:
    """Simulate conditions on one asset; those at the close of bar t act at the open of bar t + 1.

    An entry that holds while the account is flat is made, whatever ended the position before.
    docs/simulation.md has the rules.

    Args:
        bars: columns open, high, low, close; tz-aware, strictly increasing index, `n_bars` rows.
        entries: bool `(n_bars,)`, long entry conditions.
        exits: bool `(n_bars,)`, long exit conditions.
        short_entries: bool `(n_bars,)`, short entry conditions.
        short_exits: bool `(n_bars,)`, short exit conditions.
        costs: fees, slippage, funding; 10, 5 and 0 basis points by default.
        sizing: how much of the equity an entry uses; all of it by default. An expression may read
            further columns of `bars`.
        stops: price levels and holding time that close a position; none by default.
        funding: funding rates that longs pay, by tz-aware timestamp; replaces the flat rate.
        finer: bars of the same asset at a finer timeframe, which decide whether stop or target was
            hit first.
        daily: daily bars of the same asset, by which equity is marked at each day's end where
            `bars` are longer than a day and these lie within them (docs/metrics.md).
        benchmark: "asset" (buy and hold at the same costs), "cash", or any other equity by tz-aware
            timestamp, carried forward from its last value.
        initial_cash: starting equity, in the quote currency.
        max_leverage: largest gross exposure after an entry, as a multiple of equity.
        lot_size, min_notional: order limits of the venue; 0 for none.
        delay_bars: bars to delay each fill beyond the next open.
        cooldown_bars: bars without an entry, from the one that a position closes in.
        intrabar: `stop_first` or `target_first`, if one bar reaches both and finer bars do not
            decide.
        risk_free: risk-free return per day, a fraction.
        engine: `account`, or `vectorbt` for what it can hold (docs/vectorbt.md).
        timeframe: name of the bars' timeframe; inferred from their spacing by default.

    Raises:
        InvalidInput: for fewer than two bars, timestamps without a time zone, unsorted or repeated,
            prices that are not positive, an open or close outside low..high, or signals that do not
            match the bars. Nothing is skipped or filled silently.
        UnknownName: for a timeframe, intrabar order, engine or benchmark that does not exist.

    Examples:
        >>> import pandas as pd
        >>> from backtest_pipeline import simulate
        >>> index = pd.date_range("2024-01-01", periods=4, tz="UTC")
        >>> prices = pd.Series([100.0, 100.0, 110.0, 121.0], index)
        >>> bars = pd.DataFrame({name: prices for name in ("open", "high", "low", "close")})
        >>> entries = pd.Series([True, False, False, False], index)
        >>> exits = pd.Series([False, False, True, False], index)
        >>> result = simulate(bars, entries, exits)
        >>> result.trades["exit_reason"].tolist()
        ['signal']
        >>> round(result.metrics["total_return"], 4)
        0.2064
    """
    panel = bars_panel(bars, timeframe, _ASSET)
    if len(panel) < 2:
        raise InvalidInput(
            f"{len(panel)} bars are too few: a signal fills at the next open; give at least two"
        )
    signals = {
        "entries": entries,
        "exits": exits,
        "short_entries": short_entries,
        "short_exits": short_exits,
    }
    config = SimulationConfig(
        costs=costs or CostModel(),
        sizing=sizing or FixedFractional(),
        stops=stops or StopRules(),
        direction=Direction.LONG if short_entries is None else Direction.BOTH,
        initial_cash=initial_cash,
        max_leverage=max_leverage,
        lot_size=lot_size,
        min_notional=min_notional,
        delay_bars=delay_bars,
        cooldown_bars=cooldown_bars,
        intrabar=IntrabarOrder.of(intrabar),
        risk_free=risk_free,
        engine=EngineName.of(engine),
    )
    own = [name for name in columns_read([config.rules]) if name in bars.columns]
    panel = panel.with_columns({name: bars[name].to_numpy(np.float64) for name in own})
    rates = None if funding is None else FundingRates.of({_ASSET: funding})
    marks = marks_of(panel, daily_panel(daily, _ASSET))
    batch = simulate_batch(
        panel,
        events_of(signals, bars.index),
        config,
        funding=rates,
        finer=None if finer is None else bars_panel(finer, None, _ASSET),
        marks=marks,
        benchmark=benchmark_equity(panel, marks, benchmark, config),
    )
    return single_result(batch)


def single_result(batch: BatchResult) -> SimulationResult:
    """The result of a batch of one run on one asset."""
    index = utc_index(batch.marks.ts)
    equity = batch.equity[:1]
    values = {name: float(column[0]) for name, column in batch.metrics.items()}
    pending = int(batch.pending[0])
    held = position_values(batch.panel, batch.marks, batch.trades, batch.held, 1)[0]
    exposure = np.divide(held, equity[0], out=np.zeros_like(held), where=equity[0] > 0)
    return SimulationResult(
        equity=pd.Series(equity[0], index, name="equity"),
        drawdown=pd.Series(drawdowns(equity, batch.marks.offsets)[0], index, name="drawdown"),
        exposure=pd.Series(exposure, index, name="exposure"),
        benchmark=pd.Series(batch.benchmark, index, name="benchmark"),
        trades=trade_frame(batch.trades),
        metrics=defined(values),
        undefined=undefined_reasons(values),
        pending=None if pending == NOTHING_PENDING else SIDES[pending],
        blocked_entries=int(batch.refused[0]),
        conflicts=int(batch.conflicts[0]),
        liquidated=bool(batch.liquidated[0]),
    )


def compute_metrics(
    equity: pd.Series,
    benchmark: pd.Series | None = None,
    trades: pd.DataFrame | None = None,
    *,
    risk_free: float = 0.0,
) -> dict[str, float | None]:
    """Metrics of an equity curve; docs/metrics.md has the formulas.

    Args:
        equity: account value by tz-aware, strictly increasing timestamp; the first is the start.
        benchmark: equity to compare with, carried forward from its last value.
        trades: one row per trade, columns as in `SimulationResult.trades`.
        risk_free: risk-free return per day, a fraction.

    Returns:
        Every metric by name; None if undefined, or if it needs a benchmark or trades.

    Raises:
        InvalidInput: for an equity or benchmark that is not finite, is negative, or rises from 0;
            or for trades with a missing or non-numeric column.

    Examples:
        >>> import pandas as pd
        >>> from backtest_pipeline import compute_metrics
        >>> index = pd.date_range("2024-01-01", periods=4, tz="UTC")
        >>> metrics = compute_metrics(pd.Series([100.0, 110.0, 99.0, 104.5], index))
        >>> round(metrics["total_return"], 4), round(metrics["max_drawdown"], 4)
        (0.045, -0.1)
    """
    if not np.isfinite(risk_free):
        raise InvalidInput(f"risk_free must be a finite number, not {risk_free!r}")
    ts, values = equity_values(equity, "equity")
    against = np.ones(len(ts)) if benchmark is None else carried_forward(ts, benchmark, values[0])
    offsets = np.array([0, len(ts)])
    metrics = equity_metrics(ts, offsets, values[None, :], against, risk_free=risk_free)
    mean_equity, n_days = metrics.pop("mean_equity"), metrics.pop("n_days")
    if benchmark is None:
        metrics = {
            name: column for name, column in metrics.items() if name not in AGAINST_BENCHMARK
        }
    if trades is not None:
        columns = _trade_arrays(trades)
        with np.errstate(divide="ignore", invalid="ignore"):
            metrics |= trade_metrics(columns, np.zeros(len(trades), np.int64), 1)
            metrics["turnover"] = metrics["notional"] / mean_equity / n_days * 365.0
            metrics["exposure"] = np.array([np.mean(_held_at(ts, columns))])
    nan = np.array([np.nan])
    return defined({name: float(metrics.get(name, nan)[0]) for name in METRIC_NAMES})


def _held_at(ts: np.ndarray, trades: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether any trade is open at each timestamp."""
    entered = np.searchsorted(np.sort(trades["entry_ts"]), ts, side="right")
    exits = np.sort(trades["exit_ts"][~trades["is_open"]])
    return entered > np.searchsorted(exits, ts, side="right")


def _trade_arrays(trades: pd.DataFrame) -> dict[str, np.ndarray]:
    if not isinstance(trades, pd.DataFrame):
        raise InvalidInput(f"trades must be a pandas DataFrame, not {type(trades).__name__}")
    missing = [name for name in TRADE_COLUMNS if name not in trades.columns]
    if missing:
        raise InvalidInput(f"trades have no column {', '.join(map(repr, missing))}")
    columns = {}
    for name in TRADE_COLUMNS:
        if name in ("entry_ts", "exit_ts"):
            columns[name] = stamps_us(pd.Index(trades[name]), f"trades: {name}")
            continue
        try:
            columns[name] = trades[name].to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"trades: column {name!r} must be numeric: {error}") from error
        if not np.all(np.isfinite(columns[name])):
            raise InvalidInput(f"trades: column {name!r} has missing or infinite values")
    columns["is_open"] = columns["is_open"] != 0
    return columns


def defined(values: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics with None where they are undefined."""
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def trade_frame(trades: Trades) -> pd.DataFrame:
    """The trade log as a data frame."""
    columns = trade_columns(trades)
    stamps = {name: utc_index(columns[name]) for name in ("entry_ts", "exit_ts")}
    return pd.DataFrame({**columns, **stamps})
