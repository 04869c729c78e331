-- Walk-forwards: what each fold chose in training, and how the choice did out of sample.

-- Without a reference to backtest_runs: folds are stored before their run is.
CREATE TABLE walk_forward_folds (
    run_id             UUID NOT NULL,
    fold               INTEGER NOT NULL CHECK (fold >= 0),
    fold_key           TEXT NOT NULL,
    signal_type        TEXT NOT NULL,
    id                 INTEGER NOT NULL REFERENCES dim_assets (id),
    symbol             TEXT NOT NULL,
    tf                 TEXT NOT NULL REFERENCES dim_timeframe (tf),
    train_start        TIMESTAMPTZ NOT NULL,
    train_end          TIMESTAMPTZ NOT NULL,
    test_start         TIMESTAMPTZ NOT NULL,
    test_end           TIMESTAMPTZ NOT NULL,
    n_train            INTEGER NOT NULL CHECK (n_train > 0),
    n_test             INTEGER NOT NULL CHECK (n_test > 0),
    status             TEXT NOT NULL CHECK (status IN ('chosen', 'undefined')),
    params             JSONB,
    objective          TEXT NOT NULL,
    score              DOUBLE PRECISION,
    n_combinations     INTEGER NOT NULL CHECK (n_combinations > 0),
    train_total_return DOUBLE PRECISION,
    train_sharpe       DOUBLE PRECISION,
    train_sortino      DOUBLE PRECISION,
    train_calmar       DOUBLE PRECISION,
    train_max_drawdown DOUBLE PRECISION,
    train_trade_count  DOUBLE PRECISION,
    test_total_return  DOUBLE PRECISION,
    test_sharpe        DOUBLE PRECISION,
    test_sortino       DOUBLE PRECISION,
    test_calmar        DOUBLE PRECISION,
    test_max_drawdown  DOUBLE PRECISION,
    test_trade_count   DOUBLE PRECISION,
    computed_at        TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (run_id, fold),
    CHECK (train_start <= train_end AND train_end < test_start AND test_start <= test_end),
    CHECK ((status = 'chosen') = (params IS NOT NULL AND score IS NOT NULL))
);
COMMENT ON TABLE walk_forward_folds IS
    'A training window with the parameters chosen on it, and the test window they were traded in';
COMMENT ON COLUMN walk_forward_folds.fold_key IS
    'Hash of all that decides the fold: bars up to its end, configuration, code';
COMMENT ON COLUMN walk_forward_folds.train_end IS 'Close of the last bar of training';
COMMENT ON COLUMN walk_forward_folds.status IS
    'undefined where the objective was so for all combinations: nothing is traded then';
COMMENT ON COLUMN walk_forward_folds.score IS 'The objective of the chosen parameters in training';
CREATE INDEX walk_forward_folds_key ON walk_forward_folds (fold_key);

CREATE TABLE walk_forward_runs (
    run_id       UUID PRIMARY KEY REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    n_folds      INTEGER NOT NULL CHECK (n_folds > 0),
    n_judged     INTEGER NOT NULL CHECK (n_judged BETWEEN 0 AND n_folds),
    n_left_out   INTEGER NOT NULL CHECK (n_left_out >= 0),
    n_untested   INTEGER NOT NULL CHECK (n_untested >= 0),
    train_sharpe DOUBLE PRECISION,
    test_sharpe  DOUBLE PRECISION,
    efficiency   DOUBLE PRECISION,
    threshold    DOUBLE PRECISION NOT NULL,
    verdict      TEXT NOT NULL
        CHECK (verdict IN ('passed', 'overfit', 'insignificant', 'undefined')),
    reason       TEXT NOT NULL,
    CHECK (efficiency IS NOT NULL OR verdict = 'undefined')
);
COMMENT ON TABLE walk_forward_runs IS
    'Verdicts on walk-forwards; the run itself is the stitched out-of-sample run in backtest_runs';
COMMENT ON COLUMN walk_forward_runs.n_judged IS
    'Folds in which both Sharpe ratios are defined; the means are over these';
COMMENT ON COLUMN walk_forward_runs.n_left_out IS
    'Windows that make no fold, for too few bars to train on or to test';
COMMENT ON COLUMN walk_forward_runs.n_untested IS
    'Bars between the tests of two folds that no fold tests: of windows that are left out, and '
    'where the step is longer than the test';
COMMENT ON COLUMN walk_forward_runs.efficiency IS 'test_sharpe / train_sharpe';
COMMENT ON COLUMN walk_forward_runs.threshold IS 'The efficiency below which it is overfit';
COMMENT ON COLUMN walk_forward_runs.reason IS 'All conditions that it failed';
