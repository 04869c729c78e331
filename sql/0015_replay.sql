-- What replaying a run takes beside its rows, and the runs that a replay found to be otherwise.

CREATE TABLE environments (
    environment_hash TEXT PRIMARY KEY,
    python           TEXT NOT NULL,
    machine          TEXT NOT NULL,
    versions         JSONB NOT NULL CHECK (jsonb_typeof(versions) = 'object'),
    recorded_at      TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE environments IS
    'What backtest_runs.environment_hash stands for: interpreter, kind of machine, packages';

ALTER TABLE backtest_runs
    ADD COLUMN code_archive TEXT,
    -- Rows from before are read with an error that names what they lack.
    ADD CONSTRAINT backtest_runs_provenance CHECK (
        snapshot_id <> '' AND jsonb_typeof(dataset_version_ids) = 'object'
        AND dataset_version_ids <> '{}'
    ) NOT VALID;
COMMENT ON COLUMN backtest_runs.code_archive IS
    'Artifact with the source that made the run; NULL for runs from before sources were kept';

-- Without a reference to backtest_runs: making a run anew does not prove it.
CREATE TABLE quarantined_runs (
    run_id         UUID PRIMARY KEY,
    expected       TEXT NOT NULL,
    found          TEXT NOT NULL,
    reason         TEXT NOT NULL,
    quarantined_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE quarantined_runs IS
    'Runs whose replay came to another result; left out wherever runs are compared';
COMMENT ON COLUMN quarantined_runs.expected IS 'result_fingerprint as it was stored';
COMMENT ON COLUMN quarantined_runs.found IS 'result_fingerprint of the replay';
