-- Backtest runs with their trades and metrics, who requested them, and which are kept.

CREATE TABLE environments (
    environment_hash TEXT PRIMARY KEY,
    python           TEXT NOT NULL,
    machine          TEXT NOT NULL,
    versions         JSONB NOT NULL CHECK (jsonb_typeof(versions) = 'object'),
    recorded_at      TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE environments IS
    'Interpreter, kind of machine and package versions that runs were computed with';

CREATE TABLE backtest_runs (
    run_id              UUID PRIMARY KEY,
    series_id           UUID NOT NULL,
    -- what was run
    signal_id           INTEGER NOT NULL REFERENCES dim_signals (signal_id),
    signal_name         TEXT NOT NULL,
    signal_type         TEXT NOT NULL,
    params              JSONB NOT NULL,
    id                  INTEGER NOT NULL REFERENCES dim_assets (id),
    symbol              TEXT NOT NULL,
    tf                  TEXT NOT NULL REFERENCES dim_timeframe (tf),
    split               TEXT NOT NULL,
    direction           TEXT NOT NULL CHECK (direction IN ('long', 'short', 'both')),
    config              JSONB NOT NULL,
    config_hash         TEXT NOT NULL,
    -- on which bars
    window_start        DATE,
    window_end          DATE,
    first_ts            TIMESTAMPTZ NOT NULL,
    last_ts             TIMESTAMPTZ NOT NULL,
    n_bars              INTEGER NOT NULL CHECK (n_bars > 0),
    snapshot_id         TEXT NOT NULL,
    dataset_version_ids JSONB NOT NULL,
    -- by which code
    code_version        TEXT NOT NULL,
    code_archive        TEXT,
    environment_hash    TEXT NOT NULL,
    engine              TEXT NOT NULL,
    engine_version      TEXT NOT NULL,
    seed                BIGINT NOT NULL,
    -- the result
    results             JSONB NOT NULL,
    result_fingerprint  TEXT NOT NULL,
    artifact_uri        TEXT NOT NULL,
    trial_id            UUID REFERENCES trials (trial_id),
    -- its life
    status              TEXT NOT NULL
        CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    started_at          TIMESTAMPTZ NOT NULL,
    completed_at        TIMESTAMPTZ,
    is_current          BOOLEAN NOT NULL,
    deleting_since      TIMESTAMPTZ,
    searched            TEXT NOT NULL GENERATED ALWAYS AS (
        left(lower(signal_name || ' ' || signal_type || ' ' || symbol || ' ' || params::text), 500)
    ) STORED,
    CHECK ((status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL)),
    CONSTRAINT backtest_runs_provenance CHECK (
        snapshot_id <> '' AND jsonb_typeof(dataset_version_ids) = 'object'
        AND dataset_version_ids <> '{}'
    )
);
COMMENT ON TABLE backtest_runs IS
    'One backtest of one strategy on one asset and timeframe, with all that is needed to repeat it';
COMMENT ON COLUMN backtest_runs.run_id IS 'Follows from the configuration, the data and the code';
COMMENT ON COLUMN backtest_runs.series_id IS
    'The same for runs of one configuration by the same code whose bars were only appended to';
COMMENT ON COLUMN backtest_runs.signal_id IS 'The preset';
COMMENT ON COLUMN backtest_runs.signal_type IS 'The strategy';
COMMENT ON COLUMN backtest_runs.split IS
    'full: all bars of the window; walk_forward: the out-of-sample bars of a walk-forward';
COMMENT ON COLUMN backtest_runs.window_end IS 'The day after the last; NULL is unbounded';
COMMENT ON COLUMN backtest_runs.snapshot_id IS 'Hash of dataset_version_ids';
COMMENT ON COLUMN backtest_runs.dataset_version_ids IS
    'Version of each dataset that was read: {"asset|timeframe": "version"}';
COMMENT ON COLUMN backtest_runs.code_archive IS
    'File with the source that computed the run, which replay uses';
COMMENT ON COLUMN backtest_runs.environment_hash IS 'Of a row in environments';
COMMENT ON COLUMN backtest_runs.result_fingerprint IS
    'sha256 of trades, equity and benchmark: a replay must give the same';
COMMENT ON COLUMN backtest_runs.artifact_uri IS 'Folder with its Parquet files';
COMMENT ON COLUMN backtest_runs.trial_id IS 'The entry of the ledger that this run is';
COMMENT ON COLUMN backtest_runs.is_current IS
    'The newest run of this configuration, asset and timeframe; older ones are history';
COMMENT ON COLUMN backtest_runs.deleting_since IS
    'When its deletion began: its files go first, then the row; nothing reads it any more';
COMMENT ON COLUMN backtest_runs.searched IS 'The text that a search looks at';
CREATE UNIQUE INDEX backtest_runs_current ON backtest_runs (config_hash, id, tf) WHERE is_current;
CREATE INDEX backtest_runs_series ON backtest_runs (series_id);
CREATE INDEX backtest_runs_partition ON backtest_runs (tf, id, completed_at);
-- Holds all that runs are filtered by: 100,000 of them are searched without their wide rows.
CREATE INDEX backtest_runs_newest ON backtest_runs (completed_at DESC, run_id DESC)
    INCLUDE (status, symbol, tf, signal_type, searched)
    WHERE deleting_since IS NULL AND completed_at IS NOT NULL;
CREATE INDEX backtest_runs_artifacts ON backtest_runs (artifact_uri);
CREATE INDEX backtest_runs_captured ON backtest_runs (artifact_uri)
    WHERE deleting_since IS NOT NULL;

-- A migration that adds a column to backtest_runs adds it here as well.
CREATE VIEW visible_runs AS SELECT * FROM backtest_runs WHERE deleting_since IS NULL;
COMMENT ON VIEW visible_runs IS 'All runs but those that are being deleted: what everything reads';

CREATE TABLE backtest_trades (
    run_id          UUID NOT NULL REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    trade_no        INTEGER NOT NULL,
    direction       TEXT NOT NULL CHECK (direction IN ('long', 'short')),
    entry_ts        TIMESTAMPTZ NOT NULL,
    exit_ts         TIMESTAMPTZ NOT NULL,
    bars_held       INTEGER NOT NULL,
    entry_price     DOUBLE PRECISION NOT NULL CHECK (entry_price BETWEEN 0 AND 1e300),
    exit_price      DOUBLE PRECISION NOT NULL CHECK (exit_price BETWEEN 0 AND 1e300),
    size            DOUBLE PRECISION NOT NULL,
    fees            DOUBLE PRECISION NOT NULL,
    slippage_cost   DOUBLE PRECISION NOT NULL,
    funding         DOUBLE PRECISION NOT NULL,
    pnl             DOUBLE PRECISION NOT NULL,
    pnl_pct         DOUBLE PRECISION NOT NULL,
    mae             DOUBLE PRECISION NOT NULL,
    mfe             DOUBLE PRECISION NOT NULL,
    exit_reason     TEXT NOT NULL CHECK (exit_reason IN (
        'signal', 'reversal', 'stop_loss', 'trailing_stop', 'take_profit', 'time_stop',
        'liquidation', 'end_of_data'
    )),
    is_open         BOOLEAN NOT NULL,
    entry_after_gap BOOLEAN NOT NULL,
    PRIMARY KEY (run_id, trade_no)
);
COMMENT ON TABLE backtest_trades IS 'Trades of runs, numbered by time';
COMMENT ON COLUMN backtest_trades.size IS 'Units of the asset';
COMMENT ON COLUMN backtest_trades.pnl IS 'After fees, slippage and funding, in the quote currency';
COMMENT ON COLUMN backtest_trades.mae IS
    'Worst excursion while it was held, fraction of the entry price';
COMMENT ON COLUMN backtest_trades.mfe IS
    'Best excursion while it was held, fraction of the entry price';
COMMENT ON COLUMN backtest_trades.is_open IS 'Still open after the last bar, valued at its close';

CREATE TABLE backtest_metrics (
    run_id                     UUID PRIMARY KEY
        REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    metrics_version            INTEGER NOT NULL,
    -- return and risk
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
    -- trades and costs
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
    funding_paid               DOUBLE PRECISION,
    -- against the benchmark
    benchmark_return           DOUBLE PRECISION,
    alpha                      DOUBLE PRECISION,
    beta                       DOUBLE PRECISION,
    information_ratio          DOUBLE PRECISION,
    tracking_error             DOUBLE PRECISION,
    -- significance
    psr                        DOUBLE PRECISION,
    min_track_record_length    DOUBLE PRECISION,
    dsr                        DOUBLE PRECISION,
    dsr_effective              DOUBLE PRECISION,
    n_trials                   DOUBLE PRECISION,
    n_trials_effective         DOUBLE PRECISION,
    undefined                  JSONB NOT NULL
);
COMMENT ON TABLE backtest_metrics IS 'Metrics of runs, defined in docs/metrics.md';
COMMENT ON COLUMN backtest_metrics.n_trials IS
    'Configurations of the family in the ledger when dsr was computed';
COMMENT ON COLUMN backtest_metrics.undefined IS 'Why a metric is NULL: {"metric": "reason"}';

-- Without a reference to backtest_runs, as run_pins: computing a run again neither unpins it nor
-- forgets who requested it.
CREATE TABLE run_requests (
    run_id       UUID NOT NULL,
    requested_by TEXT NOT NULL,
    requested_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, requested_by)
);
COMMENT ON TABLE run_requests IS
    'Who requested a run on demand; two users who request the same share one run';
CREATE INDEX run_requests_by_user ON run_requests (requested_by, run_id);

CREATE TABLE run_pins (
    run_id    UUID PRIMARY KEY,
    pinned_by TEXT NOT NULL,
    note      TEXT NOT NULL DEFAULT '',
    pinned_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE run_pins IS 'Runs that retention keeps, however old';

-- Without a reference to backtest_runs: computing a run again does not prove it.
CREATE TABLE quarantined_runs (
    run_id         UUID PRIMARY KEY,
    expected       TEXT NOT NULL,
    found          TEXT NOT NULL,
    reason         TEXT NOT NULL,
    quarantined_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE quarantined_runs IS
    'Runs whose replay gave another result; left out wherever runs are compared';
COMMENT ON COLUMN quarantined_runs.expected IS 'result_fingerprint of the stored run';
COMMENT ON COLUMN quarantined_runs.found IS 'result_fingerprint of the replay';
