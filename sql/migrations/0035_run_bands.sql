-- The 90 % band of a run: one for each run, which every door prints.
CREATE TABLE run_bands (
    run_id            UUID PRIMARY KEY REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    bands_version     INTEGER NOT NULL,
    draws             INTEGER NOT NULL CHECK (draws > 0),
    seed              BIGINT NOT NULL CHECK (seed >= 0),
    total_return_low  DOUBLE PRECISION,
    total_return_high DOUBLE PRECISION,
    sharpe_low        DOUBLE PRECISION,
    sharpe_high       DOUBLE PRECISION,
    max_drawdown_low  DOUBLE PRECISION,
    max_drawdown_high DOUBLE PRECISION,
    days              DATE[] NOT NULL,
    p05               DOUBLE PRECISION[] NOT NULL,
    p25               DOUBLE PRECISION[] NOT NULL,
    p75               DOUBLE PRECISION[] NOT NULL,
    p95               DOUBLE PRECISION[] NOT NULL,
    CHECK (cardinality(p05) = cardinality(days) AND cardinality(p25) = cardinality(days)
        AND cardinality(p75) = cardinality(days) AND cardinality(p95) = cardinality(days))
);
COMMENT ON TABLE run_bands IS
    'Bootstrap intervals of runs that were asked for on demand, nominally 90 %; docs/robustness.md';
COMMENT ON COLUMN run_bands.bands_version IS 'Version of the method; another one is computed again';
COMMENT ON COLUMN run_bands.total_return_low IS 'Lower end of the interval; NULL where undefined';
COMMENT ON COLUMN run_bands.days IS
    'Days of the percentiles of resampled equity, some 250 that keep their extremes';
COMMENT ON COLUMN run_bands.p05 IS '5th percentile of resampled equity on each of the days';
