"""Stored runs as they are looked for and looked at; those that are being deleted are not there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from backtest_pipeline.market.errors import InvalidInput, RunNotFound
from backtest_pipeline.storage.postgres.pages import (
    Page,
    equal,
    key_of,
    older,
    page_of,
    require_limit,
)
from backtest_pipeline.storage.postgres.removals import hold_off_removals

STATUSES = ("completed", "failed", "cancelled")
_SHORTEST_ID = 4


@dataclass(frozen=True)
class RunFilter:
    """Which runs are wanted; None is any.

    Attributes:
        requested_by: who asked for them.
        strategy: type of the signal, such as `ema_crossover`.
        symbol, timeframe: what was traded.
        completed_from, completed_until: half-open range of UTC dates in which they ended.
        status: `completed`, `failed` or `cancelled`; what is under way is a job.
        text: part of the signal's name or type, of the symbol, or of the parameters as JSON, in
            small letters or capitals; or the beginning of the id.
    """

    requested_by: str | None = None
    strategy: str | None = None
    symbol: str | None = None
    timeframe: str | None = None
    completed_from: date | None = None
    completed_until: date | None = None
    status: str | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.status is not None and self.status not in STATUSES:
            raise InvalidInput(
                f"a stored run is {', '.join(STATUSES[:-1])} or {STATUSES[-1]}, never "
                f"{self.status!r}; what is under way is a job"
            )
        first, end = self.completed_from, self.completed_until
        if first is not None and end is not None and end <= first:
            raise InvalidInput(
                f"the range ends on {end}, which is not after its start {first}; the end is the "
                "day after the last"
            )


def list_runs(
    connection: Connection, wanted: RunFilter, limit: int, after: str | None = None
) -> Page[dict[str, Any]]:
    """Runs, the newest first.

    Args:
        connection: where to look.
        wanted: which.
        limit: rows of the page.
        after: cursor of the page before.

    Returns:
        Rows with run_id, signal_name, strategy, params, symbol, timeframe, split, window_start,
        window_end, status, completed_at, is_current, pinned, quarantined_at, total_return, sharpe,
        max_drawdown, trade_count.

    Raises:
        InvalidInput: for a limit out of range, or a damaged cursor.
    """
    bound: dict[str, Any] = {"n": require_limit(limit) + 1}
    conditions = [
        *_conditions(wanted, bound),
        *older(after, "completed_at", "run_id", bound),
    ]
    query = f"""
        WITH page AS MATERIALIZED (
            SELECT run_id FROM visible_runs
            WHERE {" AND ".join(conditions)}
            ORDER BY completed_at DESC, run_id DESC LIMIT :n
        )
        SELECT r.run_id, r.signal_name, r.strategy, r.params, r.symbol, r.tf AS timeframe,
               r.split, r.window_start, r.window_end, r.status, r.completed_at, r.is_current,
               p.run_id IS NOT NULL AS pinned, q.quarantined_at, m.total_return, m.sharpe,
               m.max_drawdown, m.trade_count
        FROM page JOIN visible_runs r USING (run_id)
        LEFT JOIN backtest_metrics m USING (run_id)
        LEFT JOIN run_pins p USING (run_id)
        LEFT JOIN quarantined_runs q USING (run_id)
        ORDER BY r.completed_at DESC, r.run_id DESC
    """  # noqa: S608 - the conditions are the literals below, their values are bound
    rows = connection.execute(text(query), bound).mappings().all()
    return page_of(rows, limit, "completed_at", "run_id")  # pyright: ignore[reportArgumentType]


def _conditions(wanted: RunFilter, bound: dict[str, Any]) -> Iterable[str]:
    """Conditions on `visible_runs`; what they compare with is put in `bound`."""
    yield "completed_at IS NOT NULL"
    columns = {
        "strategy": wanted.strategy,
        "symbol": wanted.symbol,
        "tf": wanted.timeframe,
        "status": wanted.status,
    }
    yield from equal(columns, bound)
    for name, operator, day in (
        ("completed_from", ">=", wanted.completed_from),
        ("completed_until", "<", wanted.completed_until),
    ):
        if day is not None:
            bound[name] = datetime.combine(day, time(), UTC)
            yield f"completed_at {operator} :{name}"
    if wanted.requested_by is not None:
        bound["requested_by"] = wanted.requested_by
        yield "run_id IN (SELECT run_id FROM run_requests WHERE requested_by = :requested_by)"
    if wanted.text:
        bound["pattern"] = f"%{_literally(wanted.text.lower())}%"
        within = r"searched LIKE :pattern ESCAPE '\'"
        ids = ids_beginning(wanted.text.lower())
        if ids is None:
            yield within
        else:
            bound["first_id"], bound["last_id"] = ids
            yield f"({within} OR run_id BETWEEN :first_id AND :last_id)"


def _literally(part: str) -> str:
    """Text as a pattern of LIKE that matches it and nothing else."""
    return re.sub(r"([\\%_])", r"\\\1", part)


def ids_beginning(start: str) -> tuple[UUID, UUID] | None:
    """The first and the last id that begin so; None where none can."""
    digits = start.replace("-", "")
    whole = str(UUID(hex=digits.ljust(32, "0"))) if re.fullmatch("[0-9a-f]{1,32}", digits) else ""
    if len(digits) < _SHORTEST_ID or not whole.startswith(start):
        return None
    return UUID(hex=digits.ljust(32, "0")), UUID(hex=digits.ljust(32, "f"))


def read_run(connection: Connection, run_id: UUID) -> dict[str, Any]:
    """A run's row, with `metrics`, `environment`, `pin`, `requests`, `quarantine`, `walk_forward`.

    Raises:
        RunNotFound: where it is not stored, or is being deleted.
    """
    rows = connection.execute(
        text("""
            SELECT r.*, to_jsonb(m) - 'run_id' AS metrics, to_jsonb(e) AS environment,
                   to_jsonb(w) - 'run_id' AS walk_forward
            FROM visible_runs r
            LEFT JOIN backtest_metrics m USING (run_id)
            LEFT JOIN environments e USING (environment_hash)
            LEFT JOIN walk_forward_runs w USING (run_id)
            WHERE r.run_id = :run_id
        """),
        {"run_id": run_id},
    )
    found = rows.mappings().one_or_none()
    if found is None:
        raise not_found(run_id)
    beside = {
        "pin": "SELECT pinned_by, note, pinned_at FROM run_pins WHERE run_id = :run_id",
        "quarantine": """SELECT expected, found, reason, quarantined_at FROM quarantined_runs
                         WHERE run_id = :run_id""",
        "requests": """SELECT requested_by, requested_at FROM run_requests WHERE run_id = :run_id
                       ORDER BY requested_at, requested_by""",
    }
    of_run = {
        name: [dict(row) for row in connection.execute(text(query), {"run_id": run_id}).mappings()]
        for name, query in beside.items()
    }
    return {
        **found,
        "pin": next(iter(of_run["pin"]), None),
        "quarantine": next(iter(of_run["quarantine"]), None),
        "requests": of_run["requests"],
    }


def not_found(run_id: UUID) -> RunNotFound:
    """The error for a run that is not there."""
    return RunNotFound(
        f"no run {run_id} is stored; `backtest-pipeline runs list` shows those that are"
    )


def list_trades(
    connection: Connection, run_id: UUID, limit: int, after: str | None = None
) -> Page[dict[str, Any]]:
    """Trades of a run by number, without the run's id.

    Raises:
        InvalidInput: for a limit out of range, or a damaged cursor.
    """
    (number,) = (0,) if after is None else key_of(after, int)
    rows = connection.execute(
        text("""
            SELECT * FROM backtest_trades WHERE run_id = :run_id AND trade_no > :number
            ORDER BY trade_no LIMIT :n
        """),
        {"run_id": run_id, "number": number, "n": require_limit(limit) + 1},
    )
    page = page_of(rows.mappings().all(), limit, "trade_no")  # pyright: ignore[reportArgumentType]
    for row in page.rows:
        del row["run_id"]
    return page


def pin_runs(connection: Connection, run_ids: Sequence[UUID], user: str, note: str) -> None:
    """Keep runs for ever; a pin that is there is replaced.

    Raises:
        RunNotFound: for a run that is not stored, or is being deleted; none is pinned then.
    """
    hold_off_removals(connection)
    _require_kept(connection, run_ids)
    connection.execute(
        text("""
            INSERT INTO run_pins (run_id, pinned_by, note)
            SELECT id, :user, :note FROM unnest(CAST(:run_ids AS uuid[])) AS id
            ON CONFLICT (run_id) DO UPDATE SET pinned_by = excluded.pinned_by,
                note = excluded.note, pinned_at = now()
        """),
        {"run_ids": list(set(run_ids)), "user": user, "note": note},
    )


def unpin_runs(connection: Connection, run_ids: Sequence[UUID]) -> None:
    """Unpin runs: retention may delete them; those without a pin stay as they are.

    Raises:
        RunNotFound: for a run that is not stored.
    """
    _require_kept(connection, run_ids)
    connection.execute(
        text("DELETE FROM run_pins WHERE run_id = ANY(:run_ids)"), {"run_ids": list(run_ids)}
    )


def _require_kept(connection: Connection, ids: Sequence[UUID]) -> None:
    """Raises RunNotFound for the first that is neither a run nor a portfolio."""
    known = text("SELECT run_id FROM portfolio_runs WHERE run_id = ANY(:ids)")
    portfolios = set(connection.execute(known, {"ids": list(ids)}).scalars())
    require_runs(connection, [run_id for run_id in ids if run_id not in portfolios])


def require_runs(connection: Connection, run_ids: Sequence[UUID]) -> None:
    """Raises RunNotFound for the first run that is not stored, or is being deleted."""
    rows = connection.execute(
        text("SELECT run_id FROM visible_runs WHERE run_id = ANY(:run_ids)"),
        {"run_ids": list(run_ids)},
    )
    stored = set(rows.scalars())
    for run_id in run_ids:
        if run_id not in stored:
            raise not_found(run_id)


def note_request(connection: Connection, run_ids: Sequence[UUID], user: str) -> None:
    """Record who asked for runs; who asked before stays with the first time."""
    connection.execute(
        text("""
            INSERT INTO run_requests (run_id, requested_by)
            SELECT id, :user FROM unnest(CAST(:run_ids AS uuid[])) AS id
            ON CONFLICT DO NOTHING
        """),
        {"run_ids": sorted(set(run_ids)), "user": user},
    )
