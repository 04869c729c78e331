-- Audits of data and code: look-ahead, and history that a source changed after it had been used.

CREATE TABLE look_ahead_probes (
    code_version TEXT NOT NULL,
    source       TEXT NOT NULL,
    seed         BIGINT NOT NULL CHECK (seed >= 0),
    scope        TEXT NOT NULL CHECK (scope IN ('root_bars', 'strategies')),
    n_partitions INTEGER NOT NULL CHECK (n_partitions >= 0),
    n_futures    INTEGER NOT NULL CHECK (n_futures >= 0),
    n_signals    INTEGER NOT NULL CHECK (n_signals >= 0),
    leaks        JSONB NOT NULL CHECK (jsonb_typeof(leaks) = 'array'),
    probed_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (code_version, source, seed)
);
COMMENT ON TABLE look_ahead_probes IS
    'Whether features and signals changed when later bars did; docs/look-ahead.md';
COMMENT ON COLUMN look_ahead_probes.source IS 'Where the bars came from';
COMMENT ON COLUMN look_ahead_probes.scope IS
    'strategies: the features are the user''s own, so that only the strategies were probed';
COMMENT ON COLUMN look_ahead_probes.n_futures IS
    'Alternative later bars that everything was computed with';
COMMENT ON COLUMN look_ahead_probes.n_signals IS
    'Signals that were computed again without the bars after them';
COMMENT ON COLUMN look_ahead_probes.leaks IS 'What changed; empty where nothing looks ahead';

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
    'Features that were rewritten, not only appended to: one row for each pair of versions';
COMMENT ON COLUMN restatements.code_changed IS
    'Whether other code computed the later version: then the features differ, not the bars';
COMMENT ON COLUMN restatements.bars_added IS
    'Late bars: at or before the last bar of the version before';
COMMENT ON COLUMN restatements.first_ts IS
    'The first bar that differs; NULL where the rewrite gave the same rows';
COMMENT ON COLUMN restatements.columns IS
    'Largest relative change by column; null where a value appeared or vanished';

CREATE TABLE restatement_effects (
    restatement_id UUID NOT NULL REFERENCES restatements (restatement_id) ON DELETE CASCADE,
    run_before     UUID NOT NULL REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    run_after      UUID NOT NULL REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    until_ts       TIMESTAMPTZ NOT NULL,
    equity_before  DOUBLE PRECISION NOT NULL,
    equity_after   DOUBLE PRECISION NOT NULL,
    pnl_moved      DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (restatement_id, run_before)
);
COMMENT ON TABLE restatement_effects IS
    'What a restatement did to runs: the same configuration and code on the history before and '
    'after';
COMMENT ON COLUMN restatement_effects.until_ts IS
    'Last bar of the run before: both equities are of this bar';
-- Deleting a run looks for the effects that name it.
CREATE INDEX restatement_effects_before ON restatement_effects (run_before);
CREATE INDEX restatement_effects_after ON restatement_effects (run_after);
