"""Searching, reading and pinning stored runs; runs that are being deleted are hidden."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from backtest_pipeline.market.errors import InvalidInput, NotTheirs, RunNotFound
from backtest_pipeline.storage.postgres.pages import (
    Page,
    equal,
    key_of,
    older,
    page_of,
    require_limit,
)
from backtest_pipeline.storage.postgres.removals import block_removals
from backtest_pipeline.storage.run_tables.run_bands import stored_bands

STATUSES = ("completed", "failed", "cancelled")
_SHORTEST_ID = 4


@dataclass(frozen=True)
class RunFilter:
    """Filters on stored runs; None matches any.

    Attributes:
        requested_by: user who requested them.
        strategy: strategy, such as `ema_crossover`.
        symbol, timeframe: the partition.
        completed_from, completed_until: half-open range of UTC dates of completion.
        status: `completed`, `failed` or `cancelled`; unfinished work is a job.
        text: part of the signal's name, the strategy, the symbol, or the parameters as JSON,
            ignoring case; or the beginning of the id.
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
                f"status must be {', '.join(STATUSES[:-1])} or {STATUSES[-1]}, not "
                f"{self.status!r}; unfinished work is listed as jobs"
            )
        first, end = self.completed_from, self.completed_until
        if first is not None and end is not None and end <= first:
            raise InvalidInput(
                f"the range's end {end} is not after its start {first}; give as the end the day "
                "after the last"
            )


def list_runs(
    connection: Connection, filters: RunFilter, limit: int, after: str | None = None
) -> Page[dict[str, Any]]:
    """List runs, newest first.

    Args:
        connection: connection to the store.
        filters: the runs to list.
        limit: rows per page.
        after: cursor of the previous page.

    Returns:
        Rows with run_id, signal_name, strategy, params, symbol, synthetic (whether its bars are),
        timeframe, split, window_start, window_end, status, completed_at, is_current, pinned,
        quarantined_at, total_return, sharpe, max_drawdown, trade_count.

    Raises:
        InvalidInput: for a limit out of range, or a damaged cursor.
    """
    bound: dict[str, Any] = {"n": require_limit(limit) + 1}
    conditions = [
        *_conditions(filters, bound),
        *older(after, "completed_at", "run_id", bound),
    ]
    query = f"""
        WITH page AS MATERIALIZED (
            SELECT run_id FROM visible_runs
            WHERE {" AND ".join(conditions)}
            ORDER BY completed_at DESC, run_id DESC LIMIT :n
        )
        SELECT r.run_id, r.signal_name, r.strategy, r.params, r.symbol,
               coalesce(a.is_synthetic, are_synthetic(r.symbols)) AS synthetic, r.tf AS timeframe,
               r.split,
               r.window_start, r.window_end, r.status, r.completed_at, r.is_current,
               p.run_id IS NOT NULL AS pinned, q.quarantined_at, m.total_return, m.sharpe,
               m.max_drawdown, m.trade_count
        FROM page JOIN visible_runs r USING (run_id) LEFT JOIN dim_assets a ON a.id = r.id
        LEFT JOIN backtest_metrics m USING (run_id)
        LEFT JOIN run_pins p USING (run_id)
        LEFT JOIN quarantined_runs q USING (run_id)
        ORDER BY r.completed_at DESC, r.run_id DESC
    """  # noqa: S608 - the conditions are the literals below, their values are bound
    rows = connection.execute(text(query), bound).mappings().all()
    return page_of(rows, limit, "completed_at", "run_id")  # pyright: ignore[reportArgumentType]


def _conditions(filters: RunFilter, bound: dict[str, Any]) -> Iterable[str]:
    """Conditions on `visible_runs`; their parameters are added to `bound`."""
    yield "completed_at IS NOT NULL"
    columns = {
        "strategy": filters.strategy,
        "tf": filters.timeframe,
        "status": filters.status,
    }
    yield from equal(columns, bound)
    if filters.symbol is not None:
        bound["symbol"] = filters.symbol
        yield """(symbol = :symbol OR run_id IN (
            SELECT run_id FROM backtest_runs WHERE symbols @> ARRAY[CAST(:symbol AS text)]))"""
    for name, operator, day in (
        ("completed_from", ">=", filters.completed_from),
        ("completed_until", "<", filters.completed_until),
    ):
        if day is not None:
            bound[name] = datetime.combine(day, time(), UTC)
            yield f"completed_at {operator} :{name}"
    if filters.requested_by is not None:
        bound["requested_by"] = filters.requested_by
        yield "run_id IN (SELECT run_id FROM run_requests WHERE requested_by = :requested_by)"
    if filters.text:
        bound["pattern"] = f"%{_literally(filters.text.lower())}%"
        within = r"searched LIKE :pattern ESCAPE '\'"
        ids = ids_beginning(filters.text.lower())
        if ids is None:
            yield within
        else:
            bound["first_id"], bound["last_id"] = ids
            yield f"({within} OR run_id BETWEEN :first_id AND :last_id)"


def _literally(part: str) -> str:
    """Text escaped for LIKE."""
    return re.sub(r"([\\%_])", r"\\\1", part)


def ids_beginning(start: str) -> tuple[UUID, UUID] | None:
    """The lowest and the highest id with this beginning; None if it cannot begin an id."""
    digits = start.replace("-", "")
    whole = str(UUID(hex=digits.ljust(32, "0"))) if re.fullmatch("[0-9a-f]{1,32}", digits) else ""
    if len(digits) < _SHORTEST_ID or not whole.startswith(start):
        return None
    return UUID(hex=digits.ljust(32, "0")), UUID(hex=digits.ljust(32, "f"))


def read_run(connection: Connection, run_id: UUID) -> dict[str, Any]:
    """A run's row, and `synthetic` (whether its bars are), with what other tables say of it.

    These are `bands`, `metrics`, `environment`, `pin`, `requests`, `quarantine` and `walk_forward`.

    Raises:
        RunNotFound: where it is not stored, or is being deleted.
    """
    rows = connection.execute(
        text("""
            SELECT r.*, coalesce(a.is_synthetic, are_synthetic(r.symbols)) AS synthetic,
                   to_jsonb(m) - 'run_id' AS metrics, to_jsonb(e) AS environment,
                   to_jsonb(w) - 'run_id' AS walk_forward
            FROM visible_runs r LEFT JOIN dim_assets a ON a.id = r.id
            LEFT JOIN backtest_metrics m USING (run_id)
            LEFT JOIN environments e USING (environment_hash)
            LEFT JOIN walk_forward_runs w USING (run_id)
            WHERE r.run_id = :run_id
        """),
        {"run_id": run_id},
    )
    run = rows.mappings().one_or_none()
    if run is None:
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
        **run,
        "bands": stored_bands(connection, run_id),
        "pin": next(iter(of_run["pin"]), None),
        "quarantine": next(iter(of_run["quarantine"]), None),
        "requests": of_run["requests"],
    }


def not_found(run_id: UUID) -> RunNotFound:
    """The error for a run that is not stored."""
    return RunNotFound(
        f"no run {run_id} is stored; run `backtest-pipeline runs list` to see the stored runs"
    )


def list_trades(
    connection: Connection, run_id: UUID, limit: int, after: str | None = None
) -> Page[dict[str, Any]]:
    """List the trades of a run by number, without the run's id.

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


def pin_runs(
    connection: Connection,
    run_ids: Sequence[UUID],
    user: str,
    note: str,
    removes_of: str | None = None,
) -> None:
    """Pin runs, so that they are kept forever; existing pins are replaced.

    Args:
        connection: connection of the transaction.
        run_ids: the runs.
        user, note: who pins them, and why.
        removes_of: the only user whose pins may be replaced; anybody's where None.

    Raises:
        RunNotFound: for a run that is not stored, or is being deleted; none is pinned then.
        NotTheirs: for a pin of somebody else.
    """
    block_removals(connection)
    _require_kept(connection, run_ids)
    _require_own_pins(connection, run_ids, removes_of)
    connection.execute(
        text("""
            INSERT INTO run_pins (run_id, pinned_by, note)
            SELECT id, :user, :note FROM unnest(CAST(:run_ids AS uuid[])) AS id
            ON CONFLICT (run_id) DO UPDATE SET pinned_by = excluded.pinned_by,
                note = excluded.note, pinned_at = now()
        """),
        {"run_ids": list(set(run_ids)), "user": user, "note": note},
    )


def unpin_runs(
    connection: Connection, run_ids: Sequence[UUID], removes_of: str | None = None
) -> None:
    """Unpin runs, so that retention may delete them; runs without a pin are ignored.

    Raises:
        RunNotFound: for a run that is not stored.
        NotTheirs: for a pin of somebody else than `removes_of`, where that is given.
    """
    _require_kept(connection, run_ids)
    _require_own_pins(connection, run_ids, removes_of)
    connection.execute(
        text("DELETE FROM run_pins WHERE run_id = ANY(:run_ids)"), {"run_ids": list(run_ids)}
    )


def _require_own_pins(connection: Connection, run_ids: Sequence[UUID], user: str | None) -> None:
    others = connection.execute(
        text("""
            SELECT run_id, pinned_by FROM run_pins
            WHERE run_id = ANY(:run_ids) AND pinned_by <> :user ORDER BY run_id FOR UPDATE
        """),
        {"run_ids": list(run_ids), "user": user},
    )
    if pin := others.first():
        raise NotTheirs(
            f"{pin.run_id} is pinned by {pin.pinned_by}; only they or an admin may change the pin"
        )


def require_own_runs(connection: Connection, run_ids: Sequence[UUID], user: str | None) -> None:
    """Raise NotTheirs for a run that was not requested by this user, and by nobody else.

    Runs of a refresh are nobody's. None is an admin, whose all runs are.
    """
    others = connection.execute(
        text("""
            SELECT id, coalesce(requested_by, 'no user, but by a refresh') AS owner
            FROM unnest(CAST(:run_ids AS uuid[])) AS id LEFT JOIN run_requests ON run_id = id
            WHERE coalesce(requested_by, '') <> :user ORDER BY id
        """),
        {"run_ids": list(run_ids), "user": user},
    )
    if run := others.first():
        raise NotTheirs(
            f"run {run.id} was requested by {run.owner}; only an admin may delete runs that are "
            "not yours alone"
        )


def _require_kept(connection: Connection, ids: Sequence[UUID]) -> None:
    """Raise RunNotFound for the first id that is neither a run's nor a portfolio's."""
    known = text("SELECT run_id FROM portfolio_runs WHERE run_id = ANY(:ids)")
    portfolios = set(connection.execute(known, {"ids": list(ids)}).scalars())
    require_runs(connection, [run_id for run_id in ids if run_id not in portfolios])


def require_runs(connection: Connection, run_ids: Sequence[UUID]) -> None:
    """Raise RunNotFound for the first run that is not stored, or is being deleted."""
    rows = connection.execute(
        text("SELECT run_id FROM visible_runs WHERE run_id = ANY(:run_ids)"),
        {"run_ids": list(run_ids)},
    )
    stored = set(rows.scalars())
    for run_id in run_ids:
        if run_id not in stored:
            raise not_found(run_id)


def note_request(connection: Connection, run_ids: Sequence[UUID], user: str) -> None:
    """Record who requested runs; a repeated request keeps the first time."""
    connection.execute(
        text("""
            INSERT INTO run_requests (run_id, requested_by)
            SELECT id, :user FROM unnest(CAST(:run_ids AS uuid[])) AS id
            ON CONFLICT DO NOTHING
        """),
        {"run_ids": sorted(set(run_ids)), "user": user},
    )
