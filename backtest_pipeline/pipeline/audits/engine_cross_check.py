"""Cross-check of stored runs: vectorbt fills the orders of each new one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtest_pipeline.pipeline.monitoring.counters import count_engine_checks
from backtest_pipeline.pipeline.pools.work_pool import PoolWork, Threads, done
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.simulation.vectorbt_engine.cross_check import (
    Orders,
    fill_orders,
    known_fraction,
    why_not_followed,
)
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.engine_checks import (
    EngineAgreement,
    EngineCheck,
    engine_agreement,
    record_checks,
    runs_to_check,
)
from backtest_pipeline.storage.run_tables.recorded_runs import trades_of

TOLERANCE = 1e-9
"""Largest relative difference of two engines that agree."""
_RUNS_AT_ONCE = 2_000
_COLUMNS = ("direction", "size", "entry_price", "exit_price", "is_open")


@dataclass
class SecondOpinion:
    """Results of vectorbt on the runs that it had not seen before.

    Attributes:
        agrees: number of runs with the same sizes and the same equity within TOLERANCE.
        differing: the largest relative difference of each other run, by its name.
        not_followed: number of runs that assume what vectorbt does not know, by the reason.
        worst: the largest relative difference.
        standing: how far all current runs are checked.
    """

    agrees: int = 0
    differing: dict[str, float] = field(default_factory=dict)
    not_followed: Counter[str] = field(default_factory=Counter)
    worst: float = 0.0
    standing: EngineAgreement = field(default_factory=EngineAgreement)

    @property
    def runs(self) -> int:
        """Number of runs that were new."""
        return self.agrees + len(self.differing) + self.not_followed.total()


@retried
def second_opinion(workspace: Workspace) -> SecondOpinion:
    """Let vectorbt fill the orders of each current run that it has not seen, and remember which.

    A run is seen once for each result that it has and each version of vectorbt. What was checked
    before an interruption stays checked. Runs of plan books, which share their cash, are left out.

    Raises:
        ProvenanceMissing: for a run without recorded inputs.
        ConfigurationError: where vectorbt is missing or of another version.
    """
    opinion = SecondOpinion()
    with workspace.database.begin() as connection:
        waiting = runs_to_check(connection)
    names = {row["run_id"]: row["name"] for row in waiting}
    ids = list(names)
    pieces = [tuple(ids[i : i + _RUNS_AT_ONCE]) for i in range(0, len(ids), _RUNS_AT_ONCE)]
    pool = Threads(1) if workspace.pool.is_here or len(pieces) == 1 else workspace.pool
    work = PoolWork("second_opinion", partial(checked_again, workspace), checked_again)
    known: dict[UUID, EngineCheck] = {}
    n_seen = 0
    for piece, checks in done(pool, work, pieces):
        with workspace.database.begin() as connection:
            recorded = record_checks(connection, checks)
        known |= {check.run_id: check for check in checks if check.run_id in recorded}
        n_seen += len(piece)
        workspace.progress("second_opinion", n_seen, len(ids))
    for run_id, name in names.items():
        if run_id in known:
            _enter(opinion, known[run_id], name)
    with workspace.database.begin() as connection:
        opinion.standing = engine_agreement(connection)
    by_verdict = {
        "agrees": opinion.agrees,
        "differs": len(opinion.differing),
        "not_followed": opinion.not_followed.total(),
    }
    standing = opinion.standing
    count_engine_checks(workspace, by_verdict, standing.followed, standing.worst or 0.0)
    return opinion


def checked_again(workspace: Workspace, run_ids: Sequence[UUID]) -> list[EngineCheck]:
    """What vectorbt comes to of some of the runs that it has not seen, in any process."""
    with workspace.database.begin() as connection:
        waiting = runs_to_check(connection, run_ids)
    return list(_checked(workspace, waiting))


def _enter(opinion: SecondOpinion, check: EngineCheck, name: str) -> None:
    if check.difference is None:
        opinion.not_followed[str(check.reason)] += 1
        return
    opinion.worst = max(opinion.worst, check.difference)
    if check.verdict == "differs":
        opinion.differing[name] = check.difference
    else:
        opinion.agrees += 1


def _checked(workspace: Workspace, rows: Sequence[Mapping[str, Any]]) -> Iterator[EngineCheck]:
    followed = []
    for row in rows:
        liquidated = "liquidation" if row["results"]["liquidated"] else None
        reason = why_not_followed(row["config"]) or liquidated
        if reason is None:
            followed.append(row)
        else:
            yield EngineCheck(
                row["run_id"], row["result_fingerprint"], "not_followed", reason, None
            )
    for (fee, slippage, cash), group in groupby(sorted(followed, key=_charged), key=_charged):
        own = list(group)
        orders = _orders(workspace, own)
        filled = fill_orders(
            orders, len(own), fee=fee / 1e4, slippage=slippage / 1e4, initial_cash=cash
        )
        stored = cash * (1.0 + np.array([row["total_return"] for row in own]))
        off = np.maximum(np.abs(filled.equity / stored - 1.0), filled.size_difference)
        for row, difference in zip(own, off.tolist(), strict=True):
            verdict = "agrees" if difference <= TOLERANCE else "differs"
            yield EngineCheck(row["run_id"], row["result_fingerprint"], verdict, None, difference)


def _charged(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Fee and slippage in basis points, and the starting cash."""
    config = row["config"]
    costs = config["costs"]
    return costs["fee_bps"], costs["slippage_bps"], config["initial_cash"]


def _orders(workspace: Workspace, rows: Sequence[Mapping[str, Any]]) -> Orders:
    ids: list[UUID] = [row["run_id"] for row in rows]
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        trades = trades_of(cursor, list(map(str, ids)), _COLUMNS)
    known = pa.array(map(str, ids), pa.string())
    found: Any = pc.index_in(trades["run_id"].cast(pa.string()), known)  # pyright: ignore[reportAttributeAccessIssue]
    column = found.to_numpy().astype(np.int64)
    is_long: Any = pc.equal(trades["direction"].cast(pa.string()), "long")  # pyright: ignore[reportAttributeAccessIssue]
    fractions = np.array([known_fraction(row["config"]) for row in rows], np.float64)
    order = np.argsort(column, kind="stable")
    orders = Orders(
        column=column,
        side=np.where(is_long.to_numpy(zero_copy_only=False), 1, -1),
        size=copy.numbers(trades["size"]),
        fraction=fractions[column],
        entry_price=copy.numbers(trades["entry_price"]),
        exit_price=copy.numbers(trades["exit_price"]),
        is_open=copy.numbers(trades["is_open"]).astype(bool),
    )
    return orders.take(order)
