-- Portfolios of runs, of one preset over assets or of all presets together, and their weights.

CREATE TABLE portfolio_runs (
    run_id              UUID PRIMARY KEY,
    -- what was formed
    tf                  TEXT NOT NULL REFERENCES dim_timeframe (tf),
    signal_id           INTEGER REFERENCES dim_signals (signal_id),
    signal_name         TEXT NOT NULL,
    scheme              TEXT NOT NULL,
    n_members           INTEGER NOT NULL CHECK (n_members > 0),
    member_run_ids      UUID[] NOT NULL,
    config              JSONB NOT NULL,
    config_hash         TEXT NOT NULL,
    -- from which data, by which code
    first_ts            TIMESTAMPTZ NOT NULL,
    last_ts             TIMESTAMPTZ NOT NULL,
    snapshot_id         TEXT NOT NULL,
    dataset_version_ids JSONB NOT NULL,
    code_version        TEXT NOT NULL,
    environment_hash    TEXT NOT NULL,
    engine              TEXT NOT NULL,
    engine_version      TEXT NOT NULL,
    seed                BIGINT NOT NULL,
    -- the result
    n_rebalances        INTEGER NOT NULL CHECK (n_rebalances >= 0),
    metrics             JSONB NOT NULL,
    undefined           JSONB NOT NULL,
    left_out            JSONB NOT NULL,
    result_fingerprint  TEXT NOT NULL,
    artifact_uri        TEXT NOT NULL,
    completed_at        TIMESTAMPTZ NOT NULL,
    is_current          BOOLEAN NOT NULL,
    CHECK ((signal_id IS NULL) = (signal_name = 'all'))
);
COMMENT ON TABLE portfolio_runs IS
    'One portfolio of runs of one timeframe under one weighting scheme; docs/portfolios.md';
COMMENT ON COLUMN portfolio_runs.signal_id IS
    'NULL where the members are the portfolios of all presets under this scheme';
COMMENT ON COLUMN portfolio_runs.member_run_ids IS
    'Of backtest_runs, or of portfolio_runs where signal_id is NULL';
COMMENT ON COLUMN portfolio_runs.undefined IS 'Why a metric is NULL: {"metric": "reason"}';
COMMENT ON COLUMN portfolio_runs.left_out IS
    'Members that had bars at a rebalance and got no weight, by reason, over all rebalances';
COMMENT ON COLUMN portfolio_runs.is_current IS
    'Whether the last roll-up formed it; others are history, or were requested';
CREATE UNIQUE INDEX portfolio_runs_current ON portfolio_runs (tf, signal_name, scheme)
    WHERE is_current;

CREATE TABLE portfolio_weights (
    run_id UUID NOT NULL REFERENCES portfolio_runs (run_id) ON DELETE CASCADE,
    ts     TIMESTAMPTZ NOT NULL,
    id     INTEGER NOT NULL REFERENCES dim_assets (id),
    weight DOUBLE PRECISION NOT NULL CHECK (weight BETWEEN 0 AND 1),
    PRIMARY KEY (run_id, ts, id)
);
COMMENT ON TABLE portfolio_weights IS 'Weights of assets at each rebalance';

CREATE TABLE portfolio_strategy_weights (
    run_id    UUID NOT NULL REFERENCES portfolio_runs (run_id) ON DELETE CASCADE,
    ts        TIMESTAMPTZ NOT NULL,
    signal_id INTEGER NOT NULL REFERENCES dim_signals (signal_id),
    weight    DOUBLE PRECISION NOT NULL CHECK (weight BETWEEN 0 AND 1),
    PRIMARY KEY (run_id, ts, signal_id)
);
COMMENT ON TABLE portfolio_strategy_weights IS
    'Weights of presets at each rebalance, in the portfolios of all presets';
