"""The tables `plans`, the history of each book, and `plan_log`, the plans that a run followed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pyarrow as pa
from sqlalchemy import Connection, text

from backtest_pipeline.market.errors import StoreOvertaken
from backtest_pipeline.storage.postgres import copy

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor


@dataclass(frozen=True)
class LoggedPlan:
    """A plan of a book with how it came about: a row of `plans`.

    Attributes:
        sequence: 1, 2, 3 ... within the book.
        plan_id, plan: its id, and its content as JSON values.
        generated_at: the last instant whose data it saw, market time.
        generated_at_actual: when it was produced, wall clock.
        effective_ts, valid_until: from when, and until when it is followed, market time.
        replan_reasons: why it was made.
        origin, origin_detail: how it came about, and why it was retried or fell back.
        prompt_hash, response_hash, transcript, model: of a language model; None without one.
        asked_at, judged_at: last instants at which a plan was asked for, and at which the judge
            asked (None where it has not), market time.
        suppressed, suppressed_reasons: replans after it that would have changed nothing, and how
            many of them had which reason.
        data: generation of each dataset that was known, by partition.
    """

    sequence: int
    plan_id: str
    plan: Mapping[str, Any]
    generated_at: datetime
    generated_at_actual: datetime
    effective_ts: datetime
    valid_until: datetime
    replan_reasons: tuple[str, ...]
    asked_at: datetime
    origin: str
    origin_detail: str = ""
    prompt_hash: str | None = None
    response_hash: str | None = None
    transcript: str | None = None
    model: str | None = None
    judged_at: datetime | None = None
    suppressed: int = 0
    suppressed_reasons: Mapping[str, int] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)


_COLUMNS = (
    *("sequence", "plan_id", "plan", "generated_at", "generated_at_actual", "effective_ts"),
    *("valid_until", "replan_reasons", "origin", "origin_detail", "prompt_hash", "response_hash"),
    *("transcript", "model", "asked_at", "judged_at", "suppressed", "suppressed_reasons", "data"),
)
_OBJECTS = ("plan", "suppressed_reasons", "data")
# What a run copies of a plan, by column of `plans` and of `plan_log`.
_LOGGED = {
    "sequence": "replan_sequence",
    "generated_at_actual": "generated_at_actual",
    **{name: name for name in ("plan_id", "effective_ts", "valid_until", "replan_reasons")},
    **{name: name for name in ("origin", "prompt_hash", "response_hash", "transcript")},
    **{name: name for name in ("model", "suppressed")},
}


def append_plans(connection: Connection, book_id: int, plans: Sequence[LoggedPlan]) -> None:
    """Add plans to the history of a book, whose row the transaction has locked."""
    rows = [{**_values(plan), "book_id": book_id} for plan in plans]
    if rows:
        connection.execute(
            text(f"""
                INSERT INTO plans (book_id, {", ".join(_COLUMNS)})
                VALUES (:book_id, {", ".join(map(_bound, _COLUMNS))})
            """),  # noqa: S608 - our own names
            rows,
        )


def replace_newest(connection: Connection, book_id: int, plan: LoggedPlan) -> None:
    """Store what a suppressed replan changed of the newest plan: its validity, counts and data."""
    changed = ("plan_id", "plan", "valid_until", "asked_at", "judged_at", "suppressed")
    assigned = [f"{name} = {_bound(name)}" for name in (*changed, "suppressed_reasons", "data")]
    connection.execute(
        text(f"""
            UPDATE plans SET {", ".join(assigned)}
            WHERE book_id = :book_id AND sequence = :sequence
        """),  # noqa: S608 - our own names
        {**_values(plan), "book_id": book_id},
    )


def _values(plan: LoggedPlan) -> dict[str, Any]:
    values = {name: getattr(plan, name) for name in _COLUMNS}
    written = {name: json.dumps(dict(values[name]), allow_nan=False) for name in _OBJECTS}
    return {**values, **written, "replan_reasons": list(plan.replan_reasons)}


def _bound(name: str) -> str:
    return f"CAST(:{name} AS jsonb)" if name in _OBJECTS else f":{name}"


def read_plans(connection: Connection, book_id: int, after: int = 0) -> list[LoggedPlan]:
    """The plans of a book in order, those after a sequence where given."""
    return _plans(connection, "sequence > :after", {"book_id": book_id, "after": after})


def newest_plan(connection: Connection, book_id: int) -> LoggedPlan | None:
    """The newest plan of a book; None where it has none."""
    newest = "sequence = (SELECT max(sequence) FROM plans WHERE book_id = :book_id)"
    return next(iter(_plans(connection, newest, {"book_id": book_id})), None)


def _plans(connection: Connection, where: str, bound: Mapping[str, Any]) -> list[LoggedPlan]:
    rows = connection.execute(
        text(f"""
            SELECT {", ".join(_COLUMNS)} FROM plans
            WHERE book_id = :book_id AND {where} ORDER BY sequence
        """),  # noqa: S608 - our own names
        dict(bound),
    )
    return [
        LoggedPlan(**{**row, "replan_reasons": tuple(row["replan_reasons"])})  # pyright: ignore[reportArgumentType]
        for row in rows.mappings()
    ]


def require_newest(
    cursor: Cursor, book_id: int, newest: LoggedPlan, versions: Mapping[str, str]
) -> None:
    """Raise StoreOvertaken unless a plan is the newest of its book, and features have not changed.

    Args:
        cursor: cursor of the transaction that publishes a run under the plan.
        book_id: the book.
        newest: the plan, as it was read.
        versions: versions of the features by partition, as they were read.
    """
    found = copy.fetch(
        cursor,
        "SELECT (SELECT concat_ws(' ', sequence, plan_id, suppressed) FROM plans WHERE book_id = $1"
        "        ORDER BY sequence DESC LIMIT 1) AS newest,"
        " (SELECT count(*) FROM unnest($2::text[], $3::text[]) AS w (key, version)"
        "  JOIN dim_assets a ON starts_with(w.key, a.symbol || '|')"
        "  JOIN dataset_versions v ON v.id = a.id AND v.dataset = 'features'"
        "   AND v.version = w.version AND input_key(a.symbol, v.tf, v.dataset) = w.key) AS n",
        book_id,
        list(versions),
        list(versions.values()),
    )
    same = f"{newest.sequence} {newest.plan_id} {newest.suppressed}"
    if found["newest"][0].as_py() != same or found["n"][0].as_py() < len(versions):
        raise StoreOvertaken(
            "the book was planned again, or its data replaced, while it was run; run it again"
        )


def plan_log_table(
    run_id: str, plans: Sequence[LoggedPlan], opinion: str | None = None
) -> pa.Table:
    """The plans that a run followed as rows of `plan_log`, numbered from 1.

    Args:
        run_id: the run, as text.
        plans: at least one.
        opinion: transcript of what a model thought of the last of them after the run.
    """
    kinds = {
        **dict.fromkeys(("generated_at_actual", "effective_ts", "valid_until"), copy.TIMESTAMPTZ),
        "replan_sequence": pa.int32(),
        "suppressed": pa.int32(),
        "replan_reasons": pa.list_(pa.string()),
    }
    columns = {
        into: pa.array(
            [list(v) if isinstance(v := getattr(plan, name), tuple) else v for plan in plans],
            kinds.get(into, pa.string()),
        )
        for name, into in _LOGGED.items()
    }
    columns["replan_sequence"] = pa.array(range(1, len(plans) + 1), pa.int32())
    content = [json.dumps(dict(plan.plan), allow_nan=False) for plan in plans]
    opinions = [None] * (len(plans) - 1) + [opinion]
    return pa.table(
        {
            "run_id": [run_id] * len(plans),
            **columns,
            "plan": pa.array(content, pa.string()),
            "opinion": pa.array(opinions, pa.string()),
        }
    )


def write_plan_log(cursor: Cursor, rows: pa.Table) -> None:
    """Write the plans that runs followed; the runs are rows of the same transaction."""
    copy.stage(cursor, "staged_plans", rows)
    copy.insert(cursor, "plan_log", "staged_plans", rows.column_names)
    copy.run(cursor, "DROP TABLE staged_plans")


def plans_of_runs(
    connection: Connection, run_ids: Sequence[UUID]
) -> dict[UUID, list[dict[str, Any]]]:
    """Of the plans that runs followed, by run and in order, what their results follow from.

    Rows have plan_id, plan, replan_reasons, suppressed and transcript.
    """
    rows = connection.execute(
        text("""
            SELECT run_id, plan_id, plan, replan_reasons, suppressed, transcript FROM plan_log
            WHERE run_id = ANY(:run_ids) ORDER BY run_id, replan_sequence
        """),
        {"run_ids": list(run_ids)},
    )
    found: dict[UUID, list[dict[str, Any]]] = {}
    for row in rows.mappings():
        found.setdefault(row["run_id"], []).append(
            {name: value for name, value in row.items() if name != "run_id"}
        )
    return found


def list_plans(connection: Connection, run_id: UUID) -> list[dict[str, Any]]:
    """The plans that a run followed, in order, without the run's id."""
    rows = connection.execute(
        text("""
            SELECT replan_sequence, plan_id, generated_at_actual, effective_ts, valid_until,
                   replan_reasons, origin, model, suppressed, plan, prompt_hash, response_hash,
                   transcript, opinion
            FROM plan_log WHERE run_id = :run_id ORDER BY replan_sequence
        """),
        {"run_id": run_id},
    )
    return [dict(row) for row in rows.mappings()]
