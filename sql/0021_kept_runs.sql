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

ALTER TABLE backtest_runs
    ADD COLUMN deleting_since TIMESTAMPTZ,
    ADD COLUMN searched TEXT NOT NULL GENERATED ALWAYS AS (
        left(lower(signal_name || ' ' || signal_type || ' ' || symbol || ' ' || params::text), 500)
    ) STORED;
COMMENT ON COLUMN backtest_runs.deleting_since IS
    'Captured by a deletion: its artifacts go first, then the row; nobody reads it any more';
COMMENT ON COLUMN backtest_runs.searched IS 'What a search for text looks at';

-- Whatever column a migration adds to backtest_runs, it adds here as well.
CREATE VIEW visible_runs AS SELECT * FROM backtest_runs WHERE deleting_since IS NULL;
COMMENT ON VIEW visible_runs IS 'All runs but those that are being deleted: what everybody reads';

-- Holds all that runs are chosen by: 100,000 of them are looked through without their wide rows.
CREATE INDEX backtest_runs_newest ON backtest_runs (completed_at DESC, run_id DESC)
    INCLUDE (status, symbol, tf, signal_type, searched)
    WHERE deleting_since IS NULL AND completed_at IS NOT NULL;
CREATE INDEX backtest_runs_artifacts ON backtest_runs (artifact_uri);
CREATE INDEX backtest_runs_captured ON backtest_runs (artifact_uri)
    WHERE deleting_since IS NOT NULL;
-- Deleting a run looks for the effects that name it.
CREATE INDEX restatement_effects_before ON restatement_effects (run_before);
CREATE INDEX restatement_effects_after ON restatement_effects (run_after);
