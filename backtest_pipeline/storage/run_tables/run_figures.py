"""Figures of many runs, of which only the columns are read that somebody looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from backtest_pipeline.storage.run_tables.runs import NAMES_INPUTS, runs_of_refresh


def current_figures(
    connection: Connection,
    metrics: Sequence[str],
    *,
    timeframes: Sequence[str] | None = None,
    symbols: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """The runs of `current_runs` with these columns of their metrics, and what names them.

    Columns: run_id, signal_id, signal_name, symbol, id, tf, synthetic, liquidated, artifact_uri,
    and the metrics.

    Raises:
        ProvenanceMissing: for a run that does not say what it was made from.
    """
    of_metrics = "".join(f", m.{name}" for name in metrics)
    columns = f"""r.run_id, r.signal_id, r.signal_name, r.symbol, r.id, r.tf, r.artifact_uri,
        a.is_synthetic AS synthetic, (r.results ->> 'liquidated')::bool AS liquidated,
        {NAMES_INPUTS}{of_metrics}"""
    return runs_of_refresh(connection, columns, timeframes, symbols)


def figures_by_partition(
    connection: Connection, dataset: str, *, timeframes: Sequence[str], symbols: Sequence[str]
) -> dict[tuple[str, str], dict[str, Any]]:
    """The best run of each partition by Sharpe ratio, and the trades of all, by (symbol, tf).

    Of the best run the id and the name, and to four digits its Sharpe ratio, return and drawdown.

    Only runs of the partition's latest refresh count.

    Args:
        connection: of the store.
        dataset: `backtests` or `walk_forward`.
        timeframes, symbols: only these.
    """
    rows = connection.execute(
        text("""
            SELECT DISTINCT ON (r.symbol, r.tf) r.symbol, r.tf, r.run_id AS best_run_id,
                   round(m.sharpe::numeric, 4)::float8 AS best_sharpe,
                   round(m.total_return::numeric, 4)::float8 AS best_return,
                   round(m.max_drawdown::numeric, 4)::float8 AS best_drawdown,
                   (sum(m.trade_count) OVER (PARTITION BY r.symbol, r.tf))::bigint AS trades,
                   r.signal_name AS best_run
            FROM visible_runs r JOIN backtest_metrics m USING (run_id)
            LEFT JOIN quarantined_runs q USING (run_id)
            WHERE r.is_current AND r.status = 'completed' AND q.run_id IS NULL
                AND r.tf = ANY(:timeframes) AND r.symbol = ANY(:symbols)
                AND EXISTS (SELECT FROM dataset_versions v WHERE v.dataset = :dataset
                    AND (v.id, v.tf) = (r.id, r.tf) AND r.artifact_uri = ANY (v.uris))
            ORDER BY r.symbol, r.tf, m.sharpe DESC NULLS LAST, r.signal_name
        """),
        {"dataset": dataset, "timeframes": list(timeframes), "symbols": list(symbols)},
    )
    return {
        (row["symbol"], row["tf"]): {k: v for k, v in row.items() if k not in ("symbol", "tf")}
        for row in rows.mappings()
    }
