"""Many assets in one account: cash is shared, and the order of assets plays no part."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.blocked_entries import Refusals, refusal_log
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.engine import Simulated
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.inputs import account_inputs, holding, require_events
from backtest_pipeline.simulation.marks import held_marks, marks_of
from backtest_pipeline.simulation.metrics.equity import position_values
from backtest_pipeline.simulation.metrics.metrics import compute_metrics_batch
from backtest_pipeline.simulation.orders import (
    LONG_ENTRY,
    NOTHING_PENDING,
    conflicts,
    pending_sides,
)
from backtest_pipeline.simulation.trades import Trades, trade_log
from backtest_pipeline.trading.sizing import EqualWeight


@dataclass(frozen=True)
class BookResult:
    """The result of books, one for each run.

    Attributes:
        panel: the bars.
        ts: int64 `(n_times,)`, every stamp that any asset has, ascending.
        equity: float64 `(n_runs, n_times)`.
        gross, net: float64 `(n_runs, n_times)`, value of the positions over the equity: the sum
            without and with regard to their side.
        benchmark: float64 `(n_times,)`.
        trades: all trades; `column` is `run * n_assets + asset`.
        refusals: all entries that were not made, by column as well.
        metrics: one `(n_runs,)` array per metric of the dictionary.
        pending: int8 `(n_runs * n_assets,)`, as in `BatchResult`.
        liquidated: bool `(n_runs,)`.
        refused: int64 `(n_runs,)`, count of the refusals.
        conflicts: int64 `(n_runs,)`, bars on which both sides would have been entered.
    """

    panel: Panel
    ts: np.ndarray
    equity: np.ndarray
    gross: np.ndarray
    net: np.ndarray
    benchmark: np.ndarray
    trades: Trades
    refusals: Refusals
    metrics: dict[str, np.ndarray]
    pending: np.ndarray
    liquidated: np.ndarray
    refused: np.ndarray
    conflicts: np.ndarray


def simulate_book(
    panel: Panel,
    events: np.ndarray,
    config: SimulationConfig,
    *,
    funding: FundingRates | None = None,
    finer: Panel | None = None,
    benchmark: np.ndarray | None = None,
) -> BookResult:
    """Trade each run's signals on all assets of the panel out of one account.

    Args:
        panel, events, config, funding, finer: as `batch.simulate_batch` takes them.
        benchmark: float64 `(n_times,)`, equity to compare with; the assets of the book bought and
            held in equal parts, each from its second bar on, where not given.

    Raises:
        InvalidInput: as `batch.simulate_batch`.
    """
    require_events(panel, events)
    members = by_name(panel)
    ts, table = instants_of(panel, members)
    inputs = account_inputs(panel, events, config, len(panel.assets), funding, finer)
    simulated = inputs.simulate_together(table, members)
    pending = pending_sides(inputs.events, panel.offsets, simulated)
    of_ruined = np.repeat(simulated.ruined, len(panel.assets))
    if benchmark is None:
        benchmark = held_equally(panel, table, members, config)
    return book_result(
        panel,
        (ts, table),
        simulated,
        config,
        benchmark,
        pending=np.where(of_ruined, np.int8(NOTHING_PENDING), pending),
        conflicts=conflicts(inputs.events, panel.offsets).reshape(len(events), -1).sum(axis=1),
    )


def book_result(
    panel: Panel,
    instants: tuple[np.ndarray, np.ndarray],
    simulated: Simulated,
    config: SimulationConfig,
    benchmark: np.ndarray,
    *,
    pending: np.ndarray,
    conflicts: np.ndarray,
) -> BookResult:
    """The result of books that were simulated.

    Args:
        panel, config: as `simulate_book` takes them.
        instants: from `instants_of`.
        simulated: the accounts.
        benchmark, pending, conflicts: as `BookResult` has them.
    """
    ts, table = instants
    n_runs, n_assets = len(simulated.equity), len(panel.assets)
    trades = trade_log(panel, simulated.trades)
    refusals = refusal_log(panel, simulated.refusals)
    gross, net = _exposure(panel, table, trades, simulated.equity)
    book = Panel(panel.timeframe, ("book",), np.array([0, len(ts)]), ts, {})
    of_run = replace(trades, column=trades.column // max(n_assets, 1))
    metrics = compute_metrics_batch(
        book, marks_of(book), simulated.equity, benchmark, of_run, risk_free=config.risk_free
    )
    if len(ts):
        metrics["exposure"] = np.mean(gross > 0, axis=1)
    return BookResult(
        panel=panel,
        ts=ts,
        equity=simulated.equity,
        gross=gross,
        net=net,
        benchmark=benchmark,
        trades=trades,
        refusals=refusals,
        metrics=metrics,
        pending=pending,
        liquidated=simulated.ruined,
        refused=np.bincount(refusals.column // max(n_assets, 1), minlength=n_runs),
        conflicts=conflicts,
    )


def instants_of(panel: Panel, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All stamps, and the row that each member has at each of them, -1 for none."""
    ts, step = np.unique(panel.ts, return_inverse=True)
    table = np.full((len(ts), len(panel.assets)), -1, np.int64)
    table[step, panel.segment_of_row] = np.arange(len(panel))
    return ts, table[:, members]


def by_name(panel: Panel) -> np.ndarray:
    """Positions of the assets in the order of their names.

    Traded in this order, sums over assets come out the same to the last bit for any order given.
    """
    return np.argsort(np.array(list(map(str, panel.assets))), kind="stable")


def held_equally(
    panel: Panel,
    table: np.ndarray,
    members: np.ndarray,
    config: SimulationConfig,
) -> np.ndarray:
    """Equity of holding all assets in equal parts, each from its second bar on, float64."""
    events = np.zeros((1, len(panel)), np.uint8)
    events[0, panel.offsets[:-1][panel.lengths > 0]] = LONG_ENTRY
    held = holding(config, EqualWeight())
    inputs = account_inputs(panel, events, held, len(panel.assets))
    return inputs.simulate_together(table, members).equity[0]


def in_order_of_entry(trades: Trades, panel: Panel, account: Panel) -> tuple[np.ndarray, Trades]:
    """The trades of all assets of a book by entry, exit and symbol, as those of its account.

    Args:
        trades: trades on the panel.
        panel: bars of the book's assets.
        account: the book as one asset, with its stamps.

    Returns:
        Position of each among `trades`, and the trades with numbers and bars of the account.
    """
    names = np.array([str(panel.assets[column]) for column in trades.column.tolist()], str)
    order = np.lexsort((trades.number, names, trades.exit_ts, trades.entry_ts))
    columns = {field.name: getattr(trades, field.name)[order] for field in fields(Trades)}
    opens = account.timeframe.period_bounds(account.ts)[0]
    return order, Trades(
        **{
            **columns,
            "column": np.zeros(len(order), np.int64),
            "number": np.arange(len(order), dtype=np.int64) + 1,
            "entry_bar": np.searchsorted(opens, columns["entry_ts"]),
        }
    )


def _exposure(
    panel: Panel, table: np.ndarray, trades: Trades, equity: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gross and net exposure; an asset without a bar keeps the value that it had last."""
    gross, net = np.zeros_like(equity), np.zeros_like(equity)
    latest = np.maximum.accumulate(table, axis=0)
    marks = marks_of(panel)
    # At the bars' closes, so that no exit has to be found within a bar.
    at = held_marks(panel, marks, trades, 0.0)
    for run, values in enumerate(position_values(panel, marks, trades, at, len(equity))):
        held = np.where(latest >= 0, values[latest], 0.0)
        alive = equity[run] > 0
        np.divide(np.abs(held).sum(axis=1), equity[run], out=gross[run], where=alive)
        np.divide(held.sum(axis=1), equity[run], out=net[run], where=alive)
    return gross, net
