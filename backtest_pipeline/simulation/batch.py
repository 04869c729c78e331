"""One batch: conditions of many runs on one panel, simulated at once, each column alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.blocked_entries import Refusals, refusal_log
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.inputs import (
    account_inputs,
    buy_and_hold,
    require_events,
)
from backtest_pipeline.simulation.marks import Marks, held_marks, marked_equity, marks_of
from backtest_pipeline.simulation.metrics.metrics import compute_metrics_batch
from backtest_pipeline.simulation.orders import NOTHING_PENDING, conflicts, pending_sides
from backtest_pipeline.simulation.rules import RulesOfRuns
from backtest_pipeline.simulation.trades import Trades, trade_log


@dataclass(frozen=True)
class BatchResult:
    """The result of a batch of runs.

    Attributes:
        panel: the bars.
        marks: when equity is marked; see `simulation.marks.marks_of`.
        equity: float64 `(n_runs, n_marks)`.
        benchmark: float64 `(n_marks,)`, equity of each asset's benchmark.
        trades: all trades.
        held: int64 `(n_trades, 2)`, the marks that each trade is held at, half-open.
        refusals: all entries that could not be sized, or for which there was too little room.
        metrics: one `(n_columns,)` array per metric of the dictionary.
        pending: int8 `(n_columns,)`, side to take at the next open, or NOTHING_PENDING.
        liquidated: bool `(n_columns,)`.
        refused: int64 `(n_columns,)`, count of the refusals.
        conflicts: int64 `(n_columns,)`, bars on which both sides would have been entered.
    """

    panel: Panel
    marks: Marks
    equity: np.ndarray
    benchmark: np.ndarray
    trades: Trades
    held: np.ndarray
    refusals: Refusals
    metrics: dict[str, np.ndarray]
    pending: np.ndarray
    liquidated: np.ndarray
    refused: np.ndarray
    conflicts: np.ndarray


def simulate_batch(
    panel: Panel,
    events: np.ndarray,
    config: SimulationConfig,
    *,
    rules: RulesOfRuns | None = None,
    funding: FundingRates | None = None,
    finer: Panel | None = None,
    marks: Marks | None = None,
    benchmark: np.ndarray | None = None,
) -> BatchResult:
    """Trade every run's conditions on every asset of the panel, each column on its own.

    Args:
        panel: bars with open, high, low, close.
        events: uint8 `(n_runs, n_rows)`, see `simulation.orders`.
        config: costs, sizing, stops, direction and starting cash.
        rules: stops and cooldowns that differ between runs; those of `config` where not given.
        funding: rates by symbol, in place of the flat rate of the costs.
        finer: bars of the same assets at a finer timeframe, which tell whether a stop or a target
            came first; an asset that is not among them does without.
        marks: when to mark equity; at the bars' closes where not given.
        benchmark: float64 `(n_marks,)`, equity to compare with; buy and hold of each asset at the
            same costs where not given.

    Raises:
        InvalidInput: where the shapes do not fit, stamps are not strictly increasing, a price is
            not a positive number, or an open or close lies outside low..high.
    """
    require_events(panel, events)
    inputs = account_inputs(panel, events, config, 1, funding, finer, rules)
    simulated = inputs.simulate_each(panel)
    trades = trade_log(panel, simulated.trades)
    refusals = refusal_log(panel, simulated.refusals)
    marks = marks or marks_of(panel)
    held = held_marks(panel, marks, trades, config.costs.slippage_bps / 1e4)
    equity = marked_equity(panel, marks, simulated.equity, trades, held, config.costs, funding)
    if benchmark is None:
        benchmark = buy_and_hold(panel, marks, config)
    pending = pending_sides(inputs.events, panel.offsets, simulated)
    return BatchResult(
        panel=panel,
        marks=marks,
        equity=equity,
        benchmark=benchmark,
        trades=trades,
        held=held,
        refusals=refusals,
        metrics=compute_metrics_batch(
            panel, marks, equity, benchmark, trades, risk_free=config.risk_free
        ),
        pending=np.where(simulated.ruined, np.int8(NOTHING_PENDING), pending),
        liquidated=simulated.ruined,
        refused=np.bincount(refusals.column, minlength=len(pending)),
        conflicts=conflicts(inputs.events, panel.offsets),
    )
