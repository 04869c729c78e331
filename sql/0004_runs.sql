-- Backtest runs with their trades and metrics, and portfolios of runs.

CREATE TABLE backtest_runs (
    run_id              UUID PRIMARY KEY,
    signal_id           INTEGER NOT NULL REFERENCES dim_signals (signal_id),
    signal_name         TEXT NOT NULL,
    signal_type         TEXT NOT NULL,
    params              JSONB NOT NULL,
    id                  INTEGER NOT NULL REFERENCES dim_assets (id),
    symbol              TEXT NOT NULL,
    tf                  TEXT NOT NULL REFERENCES dim_timeframe (tf),
    split               TEXT NOT NULL,
    window_start        DATE,
    window_end          DATE,
    first_ts            TIMESTAMPTZ NOT NULL,
    last_ts             TIMESTAMPTZ NOT NULL,
    n_bars              INTEGER NOT NULL CHECK (n_bars > 0),
    direction           TEXT NOT NULL CHECK (direction IN ('long', 'short', 'both')),
    status              TEXT NOT NULL
        CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    started_at          TIMESTAMPTZ NOT NULL,
    completed_at        TIMESTAMPTZ,
    is_current          BOOLEAN NOT NULL,
    config              JSONB NOT NULL,
    results             JSONB NOT NULL,
    snapshot_id         TEXT NOT NULL,
    dataset_version_ids JSONB NOT NULL,
    code_version        TEXT NOT NULL,
    config_hash         TEXT NOT NULL,
    environment_hash    TEXT NOT NULL,
    engine              TEXT NOT NULL,
    engine_version      TEXT NOT NULL,
    seed                BIGINT NOT NULL,
    result_fingerprint  TEXT NOT NULL,
    artifact_uri        TEXT NOT NULL,
    CHECK ((status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL))
);
COMMENT ON TABLE backtest_runs IS
    'One backtest of one signal on one asset and timeframe, with all that is needed to repeat it';
COMMENT ON COLUMN backtest_runs.is_current IS
    'The newest run of this configuration, asset and timeframe; older ones are history';
CREATE UNIQUE INDEX backtest_runs_current ON backtest_runs (config_hash, id, tf) WHERE is_current;
CREATE INDEX backtest_runs_partition ON backtest_runs (tf, id, completed_at);

CREATE TABLE backtest_trades (
    run_id          UUID NOT NULL REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    trade_no        INTEGER NOT NULL,
    entry_ts        TIMESTAMPTZ NOT NULL,
    exit_ts         TIMESTAMPTZ NOT NULL,
    entry_price     DOUBLE PRECISION NOT NULL CHECK (entry_price BETWEEN 0 AND 1e300),
    exit_price      DOUBLE PRECISION NOT NULL CHECK (exit_price BETWEEN 0 AND 1e300),
    direction       TEXT NOT NULL CHECK (direction IN ('long', 'short')),
    size            DOUBLE PRECISION NOT NULL,
    fees            DOUBLE PRECISION NOT NULL,
    slippage_cost   DOUBLE PRECISION NOT NULL,
    pnl             DOUBLE PRECISION NOT NULL,
    pnl_pct         DOUBLE PRECISION NOT NULL,
    mae             DOUBLE PRECISION NOT NULL,
    mfe             DOUBLE PRECISION NOT NULL,
    bars_held       INTEGER NOT NULL,
    exit_reason     TEXT NOT NULL
        CHECK (exit_reason IN ('signal', 'reversal', 'liquidation', 'end_of_data')),
    is_open         BOOLEAN NOT NULL,
    entry_after_gap BOOLEAN NOT NULL,
    PRIMARY KEY (run_id, trade_no)
);

CREATE TABLE backtest_metrics (
    run_id                     UUID PRIMARY KEY
        REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    metrics_version            INTEGER NOT NULL,
    total_return               DOUBLE PRECISION,
    cagr                       DOUBLE PRECISION,
    annual_volatility          DOUBLE PRECISION,
    sharpe                     DOUBLE PRECISION,
    sortino                    DOUBLE PRECISION,
    calmar                     DOUBLE PRECISION,
    max_drawdown               DOUBLE PRECISION,
    max_drawdown_duration_days DOUBLE PRECISION,
    omega                      DOUBLE PRECISION,
    value_at_risk_95           DOUBLE PRECISION,
    expected_shortfall_95      DOUBLE PRECISION,
    skew                       DOUBLE PRECISION,
    kurtosis                   DOUBLE PRECISION,
    trade_count                DOUBLE PRECISION,
    win_rate                   DOUBLE PRECISION,
    profit_factor              DOUBLE PRECISION,
    expectancy                 DOUBLE PRECISION,
    avg_win                    DOUBLE PRECISION,
    avg_loss                   DOUBLE PRECISION,
    avg_holding_days           DOUBLE PRECISION,
    exposure                   DOUBLE PRECISION,
    turnover                   DOUBLE PRECISION,
    fees_paid                  DOUBLE PRECISION,
    slippage_cost              DOUBLE PRECISION,
    benchmark_return           DOUBLE PRECISION,
    alpha                      DOUBLE PRECISION,
    beta                       DOUBLE PRECISION,
    information_ratio          DOUBLE PRECISION,
    tracking_error             DOUBLE PRECISION,
    undefined                  JSONB NOT NULL
);
COMMENT ON COLUMN backtest_metrics.undefined IS 'Why a metric is NULL: {"metric": "reason"}';

CREATE TABLE portfolio_runs (
    run_id             UUID PRIMARY KEY,
    tf                 TEXT NOT NULL REFERENCES dim_timeframe (tf),
    signal_id          INTEGER NOT NULL REFERENCES dim_signals (signal_id),
    signal_name        TEXT NOT NULL,
    scheme             TEXT NOT NULL,
    n_assets           INTEGER NOT NULL CHECK (n_assets > 0),
    first_ts           TIMESTAMPTZ NOT NULL,
    last_ts            TIMESTAMPTZ NOT NULL,
    completed_at       TIMESTAMPTZ NOT NULL,
    is_current         BOOLEAN NOT NULL,
    config             JSONB NOT NULL,
    metrics            JSONB NOT NULL,
    member_run_ids     UUID[] NOT NULL,
    code_version       TEXT NOT NULL,
    result_fingerprint TEXT NOT NULL,
    artifact_uri       TEXT NOT NULL
);
CREATE UNIQUE INDEX portfolio_runs_current ON portfolio_runs (tf, signal_id, scheme)
    WHERE is_current;

CREATE TABLE portfolio_weights (
    run_id UUID NOT NULL REFERENCES portfolio_runs (run_id) ON DELETE CASCADE,
    ts     TIMESTAMPTZ NOT NULL,
    id     INTEGER NOT NULL REFERENCES dim_assets (id),
    weight DOUBLE PRECISION NOT NULL CHECK (weight BETWEEN 0 AND 1),
    PRIMARY KEY (run_id, ts, id)
);
