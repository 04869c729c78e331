-- The ledger of trials: every configuration that was ever evaluated, once for the same content.

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
    source           TEXT NOT NULL CHECK (source IN (
        'run', 'refresh', 'sweep', 'walk_forward', 'strategist'
    )),
    sharpe           DOUBLE PRECISION,
    n_obs            INTEGER NOT NULL CHECK (n_obs >= 0),
    skew             DOUBLE PRECISION,
    kurtosis         DOUBLE PRECISION,
    total_return     DOUBLE PRECISION,
    first_week       DATE NOT NULL,
    weekly_returns   REAL[] NOT NULL,
    created_at       TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE trials IS
    'Evaluated configurations; a Sharpe ratio is deflated by how many of them there were';
COMMENT ON COLUMN trials.trial_id IS 'Follows from the configuration, the data and the code';
COMMENT ON COLUMN trials.configuration_id IS 'Follows from the configuration alone';
COMMENT ON COLUMN trials.config_hash IS
    'Hash of costs, sizing, stops, direction, funding and starting cash';
COMMENT ON COLUMN trials.source IS 'What evaluated it first';
COMMENT ON COLUMN trials.sharpe IS 'Of daily returns, not annualised; NULL where undefined';
COMMENT ON COLUMN trials.n_obs IS 'Number of daily returns';
COMMENT ON COLUMN trials.first_week IS 'Monday of the week of the first of weekly_returns';
CREATE INDEX trials_family ON trials (symbol, tf, signal_type, configuration_id, created_at);
