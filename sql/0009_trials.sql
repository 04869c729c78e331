-- The ledger of trials, and what a run's Sharpe ratio is worth after so many of them.

CREATE TABLE trials (
    trial_id         UUID PRIMARY KEY,
    configuration_id UUID NOT NULL,
    signal_type      TEXT NOT NULL,
    params           JSONB NOT NULL,
    symbol           TEXT NOT NULL,
    tf               TEXT NOT NULL REFERENCES dim_timeframe (tf),
    window_start     DATE,
    window_end       DATE,
    config_hash      TEXT NOT NULL,
    dataset_version  TEXT NOT NULL,
    code_version     TEXT NOT NULL,
    source           TEXT NOT NULL CHECK (source IN
        ('run', 'refresh', 'sweep', 'walk_forward', 'service', 'strategist')),
    sharpe           DOUBLE PRECISION,
    n_obs            INTEGER NOT NULL CHECK (n_obs >= 0),
    skew             DOUBLE PRECISION,
    kurtosis         DOUBLE PRECISION,
    total_return     DOUBLE PRECISION,
    first_week       DATE NOT NULL,
    weekly_returns   REAL[] NOT NULL,
    created_at       TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE trials IS 'Every configuration that was ever evaluated, once per content';
COMMENT ON COLUMN trials.configuration_id IS
    'Follows from what was asked alone; trial_id from the data and the code as well';
COMMENT ON COLUMN trials.config_hash IS 'Costs, sizing, stops, direction, funding and cash';
COMMENT ON COLUMN trials.source IS 'Who evaluated it first';
COMMENT ON COLUMN trials.sharpe IS 'Of daily returns, not annualised; NULL where undefined';
COMMENT ON COLUMN trials.n_obs IS 'Daily returns';
COMMENT ON COLUMN trials.first_week IS 'Monday of the week of the first of weekly_returns';
CREATE INDEX trials_family ON trials (symbol, tf, signal_type, configuration_id, created_at);

ALTER TABLE backtest_runs ADD COLUMN trial_id UUID REFERENCES trials (trial_id);
COMMENT ON COLUMN backtest_runs.trial_id IS 'The entry of the ledger that this run is';

ALTER TABLE backtest_metrics
    ADD COLUMN psr                     DOUBLE PRECISION,
    ADD COLUMN min_track_record_length DOUBLE PRECISION,
    ADD COLUMN dsr                     DOUBLE PRECISION,
    ADD COLUMN dsr_effective           DOUBLE PRECISION,
    ADD COLUMN n_trials                DOUBLE PRECISION,
    ADD COLUMN n_trials_effective      DOUBLE PRECISION;
COMMENT ON COLUMN backtest_metrics.n_trials IS
    'Configurations of the family that the ledger held when dsr was computed';
