-- Walk-forward: what each fold chose in training, and what the choice came to out of sample.

CREATE TABLE walk_forward_folds (
    run_id             UUID NOT NULL,  -- of backtest_runs; folds are stored before their run is
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
    'Hash of all that decides the fold: bars up to its end, question, code';
COMMENT ON COLUMN walk_forward_folds.train_end IS 'Close of the last bar that was trained on';
COMMENT ON COLUMN walk_forward_folds.status IS
    'undefined where the objective was so for all combinations: nothing is traded then';
CREATE INDEX walk_forward_folds_key ON walk_forward_folds (fold_key);

CREATE TABLE walk_forward_runs (
    run_id       UUID PRIMARY KEY REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    n_folds      INTEGER NOT NULL CHECK (n_folds > 0),
    n_judged     INTEGER NOT NULL CHECK (n_judged BETWEEN 0 AND n_folds),
    train_sharpe DOUBLE PRECISION,
    test_sharpe  DOUBLE PRECISION,
    efficiency   DOUBLE PRECISION,
    threshold    DOUBLE PRECISION NOT NULL,
    verdict      TEXT NOT NULL CHECK (verdict IN ('passed', 'overfit', 'undefined')),
    reason       TEXT NOT NULL,
    CHECK ((verdict = 'undefined') = (efficiency IS NULL))
);
COMMENT ON TABLE walk_forward_runs IS
    'How much of the training Sharpe the stitched out-of-sample run of all folds has left';
COMMENT ON COLUMN walk_forward_runs.n_judged IS
    'Folds in which both Sharpe ratios are defined; the means are over these';

ALTER TABLE dataset_versions
    DROP CONSTRAINT dataset_versions_dataset_check,
    ADD CONSTRAINT dataset_versions_dataset_check CHECK (
        dataset IN ('bars', 'features', 'signals', 'backtests', 'walk_forward')
    );
ALTER TABLE data_quality
    DROP CONSTRAINT data_quality_dataset_check,
    ADD CONSTRAINT data_quality_dataset_check CHECK (
        dataset IN ('bars', 'features', 'signals', 'backtests', 'walk_forward')
    );
