-- Every new run is followed by vectorbt once; which ones were is remembered with the run.
CREATE TABLE engine_checks (
    run_id         UUID PRIMARY KEY REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    fingerprint    TEXT NOT NULL,
    verdict        TEXT NOT NULL CHECK (verdict IN ('agrees', 'differs', 'not_followed')),
    reason         TEXT,
    difference     DOUBLE PRECISION CHECK (difference >= 0),
    engine_version TEXT NOT NULL,
    checked_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
    CHECK ((verdict = 'not_followed') = (difference IS NULL)),
    CHECK ((verdict = 'not_followed') = (reason IS NOT NULL))
);
COMMENT ON TABLE engine_checks IS
    'Runs whose orders vectorbt has filled as well, and whether it came to the same';
COMMENT ON COLUMN engine_checks.fingerprint IS
    'result_fingerprint of the run then: another result is checked again';
COMMENT ON COLUMN engine_checks.verdict IS
    'agrees or differs; not_followed: the run assumes what vectorbt does not know, see reason';
COMMENT ON COLUMN engine_checks.difference IS
    'Largest relative difference of the final equity and of the sizes of fills';
COMMENT ON COLUMN engine_checks.engine_version IS 'Version of vectorbt';
