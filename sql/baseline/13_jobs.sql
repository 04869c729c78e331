-- Jobs: requested computations, and the units of work of each that are stored.

CREATE TABLE backtest_jobs (
    job_id              UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    kind                TEXT NOT NULL
        CHECK (kind IN ('run', 'walkforward', 'portfolio', 'optimize', 'refresh')),
    status              TEXT NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    config              JSONB NOT NULL CHECK (jsonb_typeof(config) = 'object'),
    config_hash         TEXT NOT NULL,
    strategy            TEXT,
    symbols             TEXT[] NOT NULL,
    timeframes          TEXT[] NOT NULL,
    created_by          TEXT NOT NULL,
    created_at          TIMESTAMPTZ NOT NULL DEFAULT now(),
    started_at          TIMESTAMPTZ,
    completed_at        TIMESTAMPTZ,
    progress_pct        DOUBLE PRECISION NOT NULL DEFAULT 0 CHECK (progress_pct BETWEEN 0 AND 100),
    stage               TEXT NOT NULL DEFAULT '',
    n_units             INTEGER NOT NULL CHECK (n_units >= 0),
    attempt_count       INTEGER NOT NULL DEFAULT 1 CHECK (attempt_count > 0),
    worker_id           TEXT,
    lease_expires_at    TIMESTAMPTZ,
    cancel_requested_at TIMESTAMPTZ,
    cancel_requested_by TEXT,
    timeout_s           INTEGER NOT NULL DEFAULT 3600 CHECK (timeout_s BETWEEN 300 AND 14400),
    error_code          TEXT,
    error_message       TEXT,
    dagster_run_id      TEXT,
    result_run_ids      UUID[] NOT NULL DEFAULT '{}',
    resumes             UUID,
    CHECK ((status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL)),
    CHECK ((status = 'running') = (lease_expires_at IS NOT NULL)),
    CHECK (status <> 'running' OR (worker_id IS NOT NULL AND started_at IS NOT NULL)),
    CHECK ((status = 'failed') = (error_code IS NOT NULL)),
    CHECK ((error_code IS NULL) = (error_message IS NULL))
);
COMMENT ON TABLE backtest_jobs IS
    'Jobs; every change of status is one UPDATE that is guarded by status and attempt';
COMMENT ON COLUMN backtest_jobs.stage IS 'The stage of the computation that is under way';
COMMENT ON COLUMN backtest_jobs.n_units IS 'Units of work; backtest_job_units holds those done';
COMMENT ON COLUMN backtest_jobs.attempt_count IS
    'The attempt that is under way, or was the last; a worker of an earlier one can change nothing';
COMMENT ON COLUMN backtest_jobs.lease_expires_at IS
    'Until when the worker counts as alive; only an expired lease is taken over';
COMMENT ON COLUMN backtest_jobs.cancel_requested_at IS
    'For the attempt under way; a new attempt begins without it';
COMMENT ON COLUMN backtest_jobs.dagster_run_id IS 'Of the attempt under way, or of the last';
COMMENT ON COLUMN backtest_jobs.resumes IS
    'The ended job that this one repeats, and whose stored units it took over';
CREATE INDEX backtest_jobs_newest ON backtest_jobs (created_at DESC, job_id DESC);
CREATE INDEX backtest_jobs_by_user ON backtest_jobs (created_by, created_at DESC, job_id DESC);
CREATE INDEX backtest_jobs_unfinished ON backtest_jobs (status, lease_expires_at)
    WHERE status IN ('pending', 'running');

CREATE TABLE backtest_job_units (
    job_id    UUID NOT NULL REFERENCES backtest_jobs (job_id) ON DELETE CASCADE,
    unit      TEXT NOT NULL,
    run_ids   UUID[] NOT NULL,
    result    JSONB NOT NULL CHECK (jsonb_typeof(result) = 'object'),
    attempt   INTEGER NOT NULL,
    stored_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, unit)
);
COMMENT ON TABLE backtest_job_units IS
    'Units of work of a job that are stored: a resumed job does not compute them again';
