"""A book under its plans, simulated: the account as a run of one column, with its rows."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import NotEnoughBars
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.pipeline.runs.identity import fingerprints, hash_of
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.blocked_entries import Refusals
from backtest_pipeline.simulation.book import in_order_of_entry
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.marks import marks_of
from backtest_pipeline.simulation.metrics.metrics import compute_metrics_batch
from backtest_pipeline.simulation.orders import NOTHING_PENDING
from backtest_pipeline.simulation.planned.planned_book import (
    NO_TRIGGER,
    PlannedResult,
    simulate_planned,
)
from backtest_pipeline.strategist.known import microseconds_of
from backtest_pipeline.strategist.standing import BookPath
from backtest_pipeline.trading.stops import StopRules

_FEWEST_BARS = 2
_MOST_NAMED = 5


@dataclass(frozen=True)
class PlannedAccount:
    """A book under its plans, from the first bar on that a plan decides at.

    Attributes:
        result: of the simulation, over all bars.
        account: the book as a batch of one run on one asset, whose name is that of the book's
            symbols together; its trades by entry.
        exposure: float64 `(n_marks,)`, value of the positions over the equity, shorts negative.
        symbols, triggers, categories, exit_triggers: of each of those trades; None where no
            trigger asked for the exit.
        is_part: whether a part of the position went on after it.
    """

    result: PlannedResult
    account: BatchResult
    exposure: np.ndarray
    symbols: list[str]
    triggers: list[str]
    categories: list[str]
    exit_triggers: list[str | None]
    is_part: list[bool]

    @property
    def fingerprint(self) -> str:
        """Hash of trades, equity, benchmark, blocks, and who asked for what."""
        digest = hashlib.sha256(fingerprints(self.account)[0].encode())
        for lines in (self._trade_lines(), block_lines(self.blocks("").to_pylist())):
            digest.update("\n".join(lines).encode() + b"\0")
        return digest.hexdigest()

    def _trade_lines(self) -> list[str]:
        rows = zip(
            self.symbols,
            self.triggers,
            self.categories,
            self.exit_triggers,
            self.is_part,
            strict=True,
        )
        return ["|".join((s, t, c, e or "", "part" if p else "")) for s, t, c, e, p in rows]

    def blocks(self, run_id: str) -> pa.Table:
        """Rows of `block_events`, `run_id` as text."""
        columns = self.result.blocks.columns()
        words = ("symbol", "timeframe", "trigger_id", "side", "reason", "class", "detail")
        return pa.table(
            {
                "run_id": pa.array([run_id] * len(self.result.blocks), pa.string()),
                **{name: pa.array(columns[name], pa.string()) for name in words},
                "event_no": pa.array(columns["event_no"], pa.int64()),
                "ts": pa.array(columns["ts"], pa.timestamp("us", "UTC")),
                "qty": pa.array(columns["qty"], pa.float64(), from_pandas=True),
            }
        )

    def trade_columns(self) -> dict[str, pa.Array]:
        """The columns of `backtest_trades` that only trades under plans have."""
        return {
            "symbol": pa.array(self.symbols, pa.string()),
            "trigger_id": pa.array(self.triggers, pa.string()),
            "category": pa.array(self.categories, pa.string()),
            "exit_trigger_id": pa.array(self.exit_triggers, pa.string()),
            "is_part": pa.array(self.is_part, pa.bool_()),
        }

    def limit_enforcement(self) -> dict[str, Any]:
        """What triggers asked for, what was made of it, and what was blocked, by reason.

        Of entries and of exits, those that were made and those that were blocked are those that
        were asked for, but for one that is due at the next open.
        """
        blocks = self.result.blocks
        counts = {reason.value: n for reason, n in blocks.counts().items()}
        exits = int(np.count_nonzero(blocks.is_exit))
        return {
            "total": len(blocks),
            "by_reason": counts,
            "entries": {
                "triggered": int(self.result.triggered.sum()),
                "made": int(self.result.entered.sum()),
                "blocked": len(blocks) - exits,
            },
            "exits": {
                "triggered": int(self.result.exits_triggered),
                "made": int(self.result.exits),
                "blocked": exits,
            },
        }


def planned_config(config: SimulationConfig) -> SimulationConfig:
    """The costs and the account of a configuration; what plans say is left out."""
    return replace(config, sizing=None, stops=StopRules(), cooldown_bars=0)


def label_of(symbols: Sequence[str]) -> str:
    """What symbols that share an account are called together: the symbol, where it is one.

    Examples:
        >>> label_of(["BTC"]), label_of(["ETH", "BTC"])
        ('BTC', 'BTC+ETH')
    """
    ordered = sorted(symbols)
    if len(ordered) <= _MOST_NAMED:
        return "+".join(ordered)
    return f"{len(ordered)}+symbols+{hash_of(ordered)[:8]}"


def planned_account(
    panel: Panel, plans: Sequence[Plan], config: SimulationConfig, label: str
) -> PlannedAccount:
    """Simulate a book under plans.

    Args:
        panel: bars and features of its symbols that have any, from each one's first bar on.
        plans: its plans, at least one.
        config: from `planned_config`.
        label: what all its symbols are called together, from `label_of`.

    Raises:
        NotEnoughBars: where fewer than two bars follow the first plan.
    """
    result = simulate_planned(panel, plans, config)
    book, first_us = result.book, microseconds_of(result.plans[0].effective_ts)
    first = int(np.searchsorted(book.ts, first_us))
    if len(book.ts) - first < _FEWEST_BARS:
        raise NotEnoughBars(
            f"{label}|{panel.timeframe.name}: fewer than {_FEWEST_BARS} bars from "
            f"the first plan on, which takes effect at {result.plans[0].effective_ts.isoformat()}"
        )
    ts, equity, benchmark = book.ts[first:], book.equity[:, first:], book.benchmark[first:]
    if first:
        benchmark = benchmark / benchmark[0] * equity[0, 0]
    account = Panel(panel.timeframe, (label,), np.array([0, len(ts)]), ts, {})
    marks = marks_of(account)
    order, trades = in_order_of_entry(book.trades, panel, account)
    metrics = compute_metrics_batch(
        account, marks, equity, benchmark, trades, risk_free=config.risk_free
    )
    metrics["exposure"] = np.mean(book.gross[:, first:] > 0, axis=1)
    nothing = np.zeros(0, np.int64)
    pending = book.pending if len(panel.assets) == 1 else np.array([NOTHING_PENDING], np.int8)
    batch = BatchResult(
        panel=account,
        marks=marks,
        equity=equity,
        benchmark=benchmark,
        trades=trades,
        held=np.zeros((len(order), 2), np.int64),
        refusals=Refusals(nothing, nothing, nothing, nothing, nothing, nothing),
        metrics=metrics,
        pending=pending,
        liquidated=book.liquidated,
        refused=np.array([len(result.blocks)]),
        conflicts=book.conflicts,
    )
    entered = [result.triggers[t] for t in result.trade_trigger[order].tolist()]
    left = result.exit_trigger[order].tolist()
    return PlannedAccount(
        result=result,
        account=batch,
        exposure=book.net[0, first:],
        symbols=[trigger.symbol for trigger in entered],
        triggers=[trigger.id for trigger in entered],
        categories=[trigger.category.value for trigger in entered],
        exit_triggers=[None if t == NO_TRIGGER else result.triggers[t].id for t in left],
        is_part=result.is_part[order].tolist(),
    )


def block_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows of `block_events` as canonical text, which the verifier of a bundle repeats."""
    return [
        "|".join(
            (
                str(row["event_no"]),
                row["ts"].isoformat(),
                *(row[name] for name in ("symbol", "timeframe", "trigger_id", "side")),
                *(repr(row["qty"]), row["reason"], row["class"], row["detail"]),
            )
        )
        for row in rows
    ]


def plan_log_counts(reasons: Sequence[Sequence[str]], suppressed: int) -> dict[str, Any]:
    """`results.plan_log` of a run: its plans in all and by reason, and suppressed replans."""
    by_reason = Counter(reason for one in reasons for reason in one)
    return {
        "total": len(reasons),
        "by_reason": dict(sorted(by_reason.items())),
        "suppressed": suppressed,
    }


def book_path(panel: Panel, plans: Sequence[Plan], config: SimulationConfig) -> BookPath:
    """How a book fares under plans, stamp by stamp; an order counts at the bar that it is due in.

    Args:
        panel: as `planned_account` takes it; symbols without bars may be among its assets.
        plans, config: as `planned_account` takes them.
    """
    result = simulate_planned(panel, plans, config)
    ts, trades, blocks = result.book.ts, result.book.trades, result.blocks
    n = len(ts)

    def counted(stamps: np.ndarray) -> np.ndarray:
        return np.bincount(np.minimum(np.searchsorted(ts, stamps), n - 1), minlength=n)

    whole = ~result.is_part
    closed = ~trades.is_open
    taken = counted(trades.entry_ts[whole])
    blocked = counted(panel.ts[blocks.row[~blocks.is_exit]])
    return BookPath(
        ts=ts,
        equity=result.book.equity[0],
        triggered=taken + blocked,
        blocked=blocked,
        taken=taken,
        closed=counted(trades.exit_ts[closed]),
        won=counted(trades.exit_ts[closed & (trades.pnl > 0)]),
    )
