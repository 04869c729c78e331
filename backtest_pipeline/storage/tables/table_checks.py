"""Checks of the stored tables: number of rows that break each rule on keys and bounds."""

from __future__ import annotations

from sqlalchemy import Connection, text

# Every rule counts rows that must not exist.
_RULES = {
    "cmc_features": """
        SELECT count(*) - count(DISTINCT (id, ts, tf)) AS duplicate_keys,
               count(*) FILTER (WHERE high < low OR high < open OR high < close
                                OR low > open OR low > close) AS prices_out_of_order,
               count(*) FILTER (WHERE open IS NULL OR high IS NULL OR low IS NULL
                                OR close IS NULL OR NOT close > 0) AS prices_missing,
               count(*) FILTER (WHERE rsi_14 NOT BETWEEN 0 AND 100
                                OR rsi_7 NOT BETWEEN 0 AND 100) AS rsi_out_of_bounds,
               count(*) FILTER (WHERE atr_14 < 0 OR vol_parkinson_20 < 0) AS negative_volatility
        FROM cmc_features
    """,
    # Signals of features that have been replaced are due to be computed anew, and wait for that: a
    # refresh may have been killed in between, or another be under way.
    "signals": """
        SELECT count(*) FILTER (WHERE f.id IS NULL AND s.is_due IS NOT TRUE) AS without_bar,
               count(*) FILTER (WHERE f.close IS DISTINCT FROM s.close AND s.is_due IS NOT TRUE
                               ) AS close_differs
        FROM (
            SELECT id, ts, tf, close, g.input_version <> v.version AS is_due
            FROM signals
            LEFT JOIN (SELECT * FROM dataset_versions WHERE dataset = 'signals') g USING (id, tf)
            LEFT JOIN (SELECT * FROM dataset_versions WHERE dataset = 'features') v USING (id, tf)
        ) AS s LEFT JOIN cmc_features f USING (id, ts, tf)
    """,
    "backtests": """
        SELECT count(*) FILTER (WHERE m.run_id IS NULL) AS without_metrics,
               count(*) FILTER (WHERE m.trade_count <> coalesce(t.n, 0)) AS trades_missing,
               count(*) FILTER (WHERE (r.results #>> '{limit_enforcement,total}')::bigint
                                <> coalesce(b.n, 0)) AS blocks_missing,
               count(*) FILTER (WHERE m.win_rate NOT BETWEEN 0 AND 1
                                OR m.exposure NOT BETWEEN 0 AND 1) AS shares_out_of_bounds,
               count(*) FILTER (WHERE m.max_drawdown NOT BETWEEN -1 AND 0
                                OR m.total_return < -1) AS losses_out_of_bounds
        FROM visible_runs r
        LEFT JOIN backtest_metrics m USING (run_id)
        LEFT JOIN (SELECT run_id, count(*) AS n FROM backtest_trades GROUP BY run_id) t
            USING (run_id)
        LEFT JOIN (SELECT run_id, count(*) AS n FROM block_events GROUP BY run_id) b
            USING (run_id)
        WHERE r.status = 'completed' AND r.is_current
    """,
    # What is not invested is cash, and there is cash only where each weight is at the cap.
    "portfolio_rollups": """
        WITH current_ones AS (
            SELECT run_id, n_rebalances, member_run_ids, (config ->> 'max_weight')::float AS cap
            FROM portfolio_runs WHERE is_current
        ), rebalances AS (
            SELECT c.run_id, c.cap, w.ts, sum(w.weight) AS total, min(w.weight) AS least,
                   max(w.weight) AS most
            FROM current_ones c JOIN (
                SELECT run_id, ts, weight FROM portfolio_weights
                UNION ALL SELECT run_id, ts, weight FROM portfolio_strategy_weights
            ) w USING (run_id)
            GROUP BY c.run_id, c.cap, w.ts
        ), members AS (
            SELECT c.run_id, r.id, r.first_ts
            FROM current_ones c CROSS JOIN unnest(c.member_run_ids) AS member
            JOIN visible_runs r ON r.run_id = member
        )
        SELECT (SELECT count(*) FROM rebalances
                WHERE total > 1 + 1e-9 OR (total < 1 - 1e-9 AND least < cap - 1e-9)
               ) AS weights_without_sum,
               (SELECT count(*) FROM rebalances WHERE most > cap + 1e-9) AS weights_above_cap,
               (SELECT count(*) FROM portfolio_weights w JOIN members m USING (run_id, id)
                WHERE w.ts < m.first_ts) AS weights_before_history,
               (SELECT count(*) FROM current_ones c
                WHERE c.n_rebalances <> (SELECT count(*) FROM rebalances r
                                         WHERE r.run_id = c.run_id)) AS rebalances_missing
    """,
    "cross_sections": """
        WITH runs AS MATERIALIZED (
            SELECT run_id, symbols, results #> '{cross_section,figures}' AS figures
            FROM visible_runs
            WHERE is_current AND status = 'completed' AND split = 'cross_section'
        )
        SELECT (SELECT count(*) FROM backtest_trades t JOIN runs r USING (run_id)
                WHERE t.symbol = ANY (r.symbols) IS NOT TRUE) AS trades_outside_of_the_universe,
               count(*) FILTER (
                   WHERE (figures ->> 'mean_ic')::float8 NOT BETWEEN -1 - 1e-9 AND 1 + 1e-9
                       OR (figures ->> 'ic_hit_rate')::float8 NOT BETWEEN 0 AND 1
               ) AS coefficients_out_of_bounds
        FROM runs
    """,
    # A bar that is tested twice, other bars between two tests in none than the run says, and a run
    # whose bars are others. A run may begin with the bar before its first test, at whose close its
    # first position is decided.
    "walk_forward": """
        WITH of_run AS MATERIALIZED (
            SELECT r.first_ts, r.last_ts, r.n_bars, w.n_folds, w.n_untested, o.*
            FROM walk_forward_runs w JOIN visible_runs r USING (run_id)
            -- Run by run, by the key: a planner that expects few folds would hold all against all.
            CROSS JOIN LATERAL (
                SELECT min(f.test_start) AS tested_from, max(f.test_end) AS tested_to,
                       sum(f.n_test) AS n_tested, count(*) AS n_stored, sum(b.n) AS n_between,
                       count(*) FILTER (WHERE f.test_start <= f.tested_until) AS twice,
                       count(*) FILTER (WHERE f.test_start <= f.train_end) AS on_training,
                       count(*) FILTER (WHERE f.fold <> coalesce(f.fold_before + 1, 0)) AS missing
                FROM (
                    SELECT own.*, lag(test_end) OVER following AS tested_until,
                           lag(fold) OVER following AS fold_before
                    FROM walk_forward_folds own WHERE own.run_id = w.run_id
                    WINDOW following AS (ORDER BY fold)
                ) f
                CROSS JOIN LATERAL (
                    SELECT count(*) AS n FROM cmc_features c
                    WHERE (c.id, c.tf) = (f.id, f.tf)
                        AND c.ts > f.tested_until AND c.ts < f.test_start
                ) b
            ) o
            WHERE r.is_current
        )
        SELECT coalesce(sum(twice), 0)::bigint AS tested_twice,
               coalesce(sum(on_training), 0)::bigint AS trained_on_test,
               coalesce(sum(missing), 0)::bigint AS folds_missing,
               count(*) FILTER (WHERE n_untested <> coalesce(n_between, 0)) AS bars_untested,
               count(*) FILTER (WHERE n_stored = 0 OR n_stored <> n_folds
                   OR n_tested <> n_bars - (first_ts < tested_from)::int
                   OR tested_from < first_ts OR tested_to <> last_ts) AS other_bars_than_the_run
        FROM of_run
    """,
}
_OF_BOOKS = """
        WITH runs AS (
            SELECT run_id, results FROM visible_runs
            WHERE is_current AND status = 'completed' AND cardinality(symbols) {number}
        ), plans AS (
            SELECT run_id, count(*) AS total, sum(suppressed) AS suppressed,
                   min(replan_sequence) = 1 AND max(replan_sequence) = count(*) AS is_whole
            FROM plan_log GROUP BY run_id
        ), by_reason AS (
            SELECT run_id, jsonb_object_agg(reason, n) AS counts FROM (
                SELECT run_id, unnest(replan_reasons) AS reason, count(*) AS n
                FROM plan_log GROUP BY 1, 2) counted GROUP BY run_id
        ), blocks AS (
            SELECT run_id, jsonb_object_agg(reason, n) AS counts FROM (
                SELECT run_id, reason, count(*) AS n
                FROM block_events GROUP BY 1, 2) counted GROUP BY run_id
        ), triggers AS (
            SELECT l.run_id, t ->> 'id' AS trigger_id
            FROM plan_log l, jsonb_array_elements(l.plan -> 'triggers') t
        )
        SELECT count(*) FILTER (WHERE (results #>> '{{plan_log,total}}')::bigint
                                    <> coalesce(p.total, 0)
                                OR results #> '{{plan_log,by_reason}}' <> coalesce(r.counts, '{{}}')
                                OR (results #>> '{{plan_log,suppressed}}')::bigint
                                    <> coalesce(p.suppressed, 0)) AS plans_missing,
               count(*) FILTER (WHERE p.is_whole IS NOT TRUE) AS gaps_between_plans,
               count(*) FILTER (WHERE results #> '{{limit_enforcement,by_reason}}'
                                    <> coalesce(b.counts, '{{}}')) AS blocks_missing,
               (SELECT count(*) FROM backtest_trades t JOIN runs USING (run_id)
                WHERE NOT EXISTS (SELECT FROM triggers g WHERE (g.run_id, g.trigger_id)
                                                             = (t.run_id, t.trigger_id))
               ) AS trades_without_trigger
        FROM runs LEFT JOIN plans p USING (run_id) LEFT JOIN by_reason r USING (run_id)
        LEFT JOIN blocks b USING (run_id)
    """
_RULES |= {
    "strategy_plans": """
        SELECT count(*) FILTER (WHERE sequence <> number) AS gaps_between_plans,
               count(*) FILTER (WHERE effective_ts <= before) AS plans_out_of_order,
               count(*) FILTER (WHERE generated_at > effective_ts) AS plans_from_the_future
        FROM (SELECT *, row_number() OVER w AS number, lag(effective_ts) OVER w AS before
              FROM plans WINDOW w AS (PARTITION BY book_id ORDER BY sequence)) ordered
    """,
    "planned_backtests": _OF_BOOKS.format(number="= 1"),
    "planned_portfolios": _OF_BOOKS.format(number="> 1"),
}
CHECKED = tuple(_RULES)

# Where features are the user's own there is no row here to hold signals against, but the snapshot.
_RULES_OF_EXTERNAL = {
    "external_signals": """
        SELECT count(*) FILTER (WHERE (s.feature_snapshot ->> 'id')::bigint IS DISTINCT FROM s.id
                                OR s.feature_snapshot ->> 'tf' IS DISTINCT FROM s.tf
                               ) AS of_another_bar,
               count(*) FILTER (WHERE (s.feature_snapshot ->> 'close')::float8
                                IS DISTINCT FROM s.close) AS close_differs
        FROM signals s
    """,
    "feature_snapshots": """
        SELECT count(*) FILTER (WHERE v.n_rows > 0 AND v.uris = '{}') AS without_file,
               count(*) FILTER (WHERE v.n_rows > 0 AND w.id IS NULL) AS without_watermark,
               count(*) FILTER (WHERE w.n_rows < v.n_rows) AS more_rows_than_the_table
        FROM dataset_versions v LEFT JOIN external_watermarks w USING (id, tf)
        WHERE v.dataset = 'features'
    """,
}
OF_EXTERNAL = {"signals": "external_signals"}
"""The rules that take the place of a dataset's own where features are the user's."""
_RULES |= _RULES_OF_EXTERNAL


def violations(connection: Connection, dataset: str) -> dict[str, int]:
    """Number of rows that break each rule of a dataset; all 0 if it is valid."""
    row = connection.execute(text(_RULES[dataset])).mappings().one()
    return {rule: int(count) for rule, count in row.items()}
