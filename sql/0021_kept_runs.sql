-- Who asked for runs, which are kept for ever, and which are on their way out.

-- Without a reference to backtest_runs: making a run anew neither unpins it nor forgets who asked.
CREATE TABLE run_requests (
    run_id       UUID NOT NULL,
    requested_by TEXT NOT NULL,
    requested_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, requested_by)
);
COMMENT ON TABLE run_requests IS
    'Who asked for a run on demand; the same question of two users is one run';
CREATE INDEX run_requests_by_user ON run_requests (requested_by, run_id);

CREATE TABLE run_pins (
    run_id    UUID PRIMARY KEY,
    pinned_by TEXT NOT NULL,
    note      TEXT NOT NULL DEFAULT '',
    pinned_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE run_pins IS 'Runs that retention keeps, however old';

ALTER TABLE backtest_runs ADD COLUMN deleting_since TIMESTAMPTZ;
COMMENT ON COLUMN backtest_runs.deleting_since IS
    'Captured by a deletion: its artifacts go first, then the row; nobody reads it any more';
CREATE INDEX backtest_runs_newest ON backtest_runs (completed_at DESC, run_id DESC);
CREATE INDEX backtest_runs_by_symbol ON backtest_runs (symbol, completed_at DESC, run_id DESC);
CREATE INDEX backtest_runs_by_strategy
    ON backtest_runs (signal_type, completed_at DESC, run_id DESC);
CREATE INDEX backtest_runs_artifacts ON backtest_runs (artifact_uri);
