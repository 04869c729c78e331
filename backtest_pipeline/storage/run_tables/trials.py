"""The trial ledger: every configuration ever evaluated, once per version of its data and code."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
from sqlalchemy import Connection, text

from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.tables.dimensions import LEFT_OUT

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor


def record_trials(cursor: Cursor, trials: pa.Table) -> int:
    """Add trials that are not in the ledger yet; existing ones are left unchanged.

    Args:
        cursor: cursor of the transaction.
        trials: columns of `trials`, ids as text, as `ranking.ledger.trials_of` returns them.

    Returns:
        The number of new trials.
    """
    if trials.num_rows == 0:
        return 0
    copy.stage(cursor, "staged_trials", trials)
    added = copy.insert_new(cursor, "trials", "staged_trials", trials.column_names, "trial_id")
    copy.run(cursor, "DROP TABLE staged_trials")
    return added


def read_families(
    cursor: Cursor, tf: str, symbols: Sequence[str], published: Sequence[str], most_returns: int
) -> pa.Table:
    """The trials of these assets' families at a timeframe, one per set of parameters and settings.

    Windows do not multiply: a trial in `published` represents its set, else one over the whole
    history, else the newest on the window that ends last. The walk-forwards of an asset are a
    family of their own.

    Args:
        cursor: cursor of a transaction that sees the trials.
        tf, symbols: the partitions.
        published: ids of the trials being published.
        most_returns: maximum number of trials returned per family; further ones are only counted.
            Those with the lowest `set_id` are returned, which is as good as random.

    Returns:
        Columns symbol, family, n_trials (of the whole family), first_day (of the first week, days
        since 1970) and weekly_returns.
    """
    chosen = (
        "SELECT *, trial_id = ANY($4::text[]::uuid[]) AS is_published FROM trials"
        " WHERE tf = $2 AND symbol = ANY($3::text[])"
    )
    query = _FAMILIES.format(chosen=chosen, owner="symbol, family")
    return copy.fetch(cursor, query, most_returns, tf, list(symbols), list(published))


def read_windows(
    cursor: Cursor, tf: str, symbols: Sequence[str], published: Sequence[str]
) -> pa.Table:
    """How many distinct windows of these assets' families were shown, the whole history among them.

    A window is shown by a single run or a sweep. Training windows are not, nor is what refreshes
    compute.

    Args:
        cursor: cursor of a transaction that sees the trials.
        tf, symbols: the partitions.
        published: ids of the trials being published.

    Returns:
        Columns symbol, family and n_windows, of families with at least one.
    """
    return copy.fetch(
        cursor,
        "SELECT symbol, family, count(DISTINCT (window_start, window_end)) AS n_windows FROM trials"
        " WHERE tf = $1 AND symbol = ANY($2::text[]) AND family = strategy"
        " AND source <> 'refresh'"
        # One that was tried in training first, and shown later, keeps its source.
        " AND (source <> 'walk_forward' OR trial_id = ANY($3::text[]::uuid[]) OR trial_id IN"
        "  (SELECT trial_id FROM backtest_runs"
        "   WHERE tf = $1 AND symbol = ANY($2::text[]) AND split = 'full'))"
        " GROUP BY symbol, family",
        tf,
        list(symbols),
        list(published),
    )


def read_strategies(cursor: Cursor, most_returns: int) -> pa.Table:
    """The trials of each strategy over all assets and timeframes, without walk-forwards.

    Those of synthetic assets count in a store without runs of real ones. See `read_families`.

    Columns strategy, n_trials, first_day and weekly_returns.
    """
    chosen = (
        "SELECT *, FALSE AS is_published FROM trials"  # noqa: S608 - our own literals
        f" WHERE family = strategy AND symbol NOT IN ({LEFT_OUT})"
    )
    return copy.fetch(cursor, _FAMILIES.format(chosen=chosen, owner="strategy"), most_returns)


_FAMILIES = """
    WITH newest AS (
        SELECT DISTINCT ON ({owner}, strategy, set_id) trial_id, set_id, {owner}
        FROM ({chosen}) chosen
        ORDER BY {owner}, strategy, set_id, is_published DESC,
                 (window_start IS NULL AND window_end IS NULL) DESC,
                 -- Folds of a walk-forward are done side by side: which is the newest is chance.
                 window_end DESC, window_start DESC, created_at DESC, trial_id
    ), placed AS (
        SELECT trial_id, set_id, {owner}, count(*) OVER family AS n_trials,
               row_number() OVER (family ORDER BY set_id) AS place
        FROM newest WINDOW family AS (PARTITION BY {owner})
    )
    SELECT {owner}, n_trials, first_week - DATE '1970-01-01' AS first_day, weekly_returns
    FROM (SELECT * FROM placed WHERE place <= $1) sampled
    JOIN (SELECT trial_id, first_week, weekly_returns FROM trials) own USING (trial_id)
    ORDER BY {owner}, set_id"""


def read_runs_to_deflate(
    cursor: Cursor, tf: str, symbols: Sequence[str], but: Sequence[str] = ()
) -> pa.Table:
    """The current runs at a timeframe on these assets, with the moments of their trials.

    A run that ranks a universe is found by the symbol of its trial, which is that of its family.
    Those whose ids are in `but` are left out.

    Columns: run_id and trial_id as text, symbol, family, in_window (a plain run that is not on
    the whole history), sharpe, n_obs, skew, kurtosis.
    """
    return copy.fetch(
        cursor,
        "SELECT r.run_id::text AS run_id, t.trial_id::text AS trial_id, t.symbol, t.family,"
        " t.family = t.strategy AND (t.window_start IS NOT NULL OR t.window_end IS NOT NULL)"
        " AS in_window, t.sharpe, t.n_obs, t.skew, t.kurtosis"
        " FROM visible_runs r JOIN trials t USING (trial_id)"
        " WHERE r.is_current AND r.tf = $1 AND t.symbol = ANY($2::text[])"
        " AND (r.symbol = ANY($2::text[]) OR r.split = 'cross_section')"
        " AND r.run_id <> ALL($3::text[]::uuid[]) ORDER BY r.run_id",
        tf,
        list(symbols),
        list(but),
    )


def deflated_before(connection: Connection, run_ids: Sequence[uuid.UUID]) -> bool:
    """Whether a trial was recorded in the family of any of these runs after it was deflated."""
    query = text(f"""
        SELECT EXISTS (
            SELECT FROM backtest_runs r JOIN backtest_metrics m USING (run_id)
            JOIN trials own USING (trial_id) WHERE r.run_id = ANY(:run_ids) AND {_GREW})
    """)  # noqa: S608 - our own literals
    return bool(connection.execute(query, {"run_ids": list(run_ids)}).scalar_one())


_GREW = """(m.deflated_at IS NULL OR EXISTS (
    SELECT FROM trials t WHERE (t.symbol, t.tf, t.family) = (own.symbol, own.tf, own.family)
    AND t.created_at > m.deflated_at))"""


def write_deflated(cursor: Cursor, deflated: pa.Table) -> None:
    """Replace the deflated metrics of runs; unchanged ones are dated anew where trials were added.

    Args:
        cursor: cursor of the transaction.
        deflated: run_id as text, dsr, dsr_effective, n_trials, n_trials_effective, deflated_at, and
            `undefined`, a JSON object with the reason for each NULL.
    """
    copy.stage(cursor, "staged_deflated", deflated)
    copy.analyze(cursor, "staged_deflated", "run_id")
    copy.run(
        cursor,
        "UPDATE backtest_metrics m SET dsr = s.dsr, dsr_effective = s.dsr_effective,"  # noqa: S608
        " n_trials = s.n_trials, n_trials_effective = s.n_trials_effective,"
        " deflated_at = s.deflated_at,"
        " undefined = m.undefined - '{dsr,dsr_effective}'::text[] || s.undefined::jsonb"
        " FROM staged_deflated s JOIN backtest_runs r ON r.run_id = s.run_id::uuid"
        f" JOIN trials own USING (trial_id) WHERE m.run_id = r.run_id AND ({_GREW} OR"
        " (m.dsr, m.dsr_effective, m.n_trials, m.n_trials_effective, m.undefined)"
        " IS DISTINCT FROM (s.dsr, s.dsr_effective, s.n_trials, s.n_trials_effective,"
        " m.undefined - '{dsr,dsr_effective}'::text[] || s.undefined::jsonb))",
    )
    copy.run(cursor, "DROP TABLE staged_deflated")
