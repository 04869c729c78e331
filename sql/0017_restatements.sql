-- History that was changed after it had been used, and what that did to results.

CREATE TABLE restatements (
    restatement_id UUID PRIMARY KEY,
    id             INTEGER NOT NULL REFERENCES dim_assets (id),
    tf             TEXT NOT NULL REFERENCES dim_timeframe (tf),
    version_before TEXT NOT NULL,
    version_after  TEXT NOT NULL,
    code_changed   BOOLEAN NOT NULL,
    bars_changed   BIGINT NOT NULL CHECK (bars_changed >= 0),
    bars_added     BIGINT NOT NULL CHECK (bars_added >= 0),
    bars_removed   BIGINT NOT NULL CHECK (bars_removed >= 0),
    first_ts       TIMESTAMPTZ,
    last_ts        TIMESTAMPTZ,
    columns        JSONB NOT NULL,
    found_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
    CHECK ((first_ts IS NULL) = (bars_changed + bars_added + bars_removed = 0)),
    UNIQUE (id, tf, version_before, version_after)
);
COMMENT ON TABLE restatements IS
    'Features that were rewritten, not only appended: one row for each pair of versions compared; '
    'without a bar that differs where a rewrite gave the same rows again';
COMMENT ON COLUMN restatements.bars_added IS
    'Late bars: at or before the last bar of the version before';
COMMENT ON COLUMN restatements.columns IS
    'Largest relative change by column; null where a value appeared or vanished';

CREATE TABLE restatement_effects (
    restatement_id UUID NOT NULL REFERENCES restatements ON DELETE CASCADE,
    run_before     UUID NOT NULL REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    run_after      UUID NOT NULL REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    until_ts       TIMESTAMPTZ NOT NULL,
    equity_before  DOUBLE PRECISION NOT NULL,
    equity_after   DOUBLE PRECISION NOT NULL,
    pnl_moved      DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (restatement_id, run_before)
);
COMMENT ON TABLE restatement_effects IS
    'The same configuration and code on the history before and after: equity at the last bar of '
    'the run before';
