-- Portfolios by scheme, portfolios of all strategies, and what each was made from.

ALTER TABLE portfolio_runs RENAME COLUMN n_assets TO n_members;
ALTER TABLE portfolio_runs
    ALTER COLUMN signal_id DROP NOT NULL,
    ADD COLUMN n_rebalances        INTEGER CHECK (n_rebalances >= 0),
    ADD COLUMN left_out            JSONB,
    ADD COLUMN undefined           JSONB,
    ADD COLUMN snapshot_id         TEXT,
    ADD COLUMN dataset_version_ids JSONB,
    ADD COLUMN config_hash         TEXT,
    ADD COLUMN environment_hash    TEXT,
    ADD COLUMN engine              TEXT,
    ADD COLUMN engine_version      TEXT,
    ADD COLUMN seed                BIGINT;

-- Those from before do not say what they were made from: they stay as history.
UPDATE portfolio_runs SET is_current = FALSE;
ALTER TABLE portfolio_runs
    ADD CHECK ((signal_id IS NULL) = (signal_name = 'all')),
    ADD CONSTRAINT portfolio_runs_provenance CHECK (
        NOT is_current OR num_nulls(
            n_rebalances, left_out, undefined, snapshot_id, dataset_version_ids, config_hash,
            environment_hash, engine, engine_version, seed) = 0
    );
COMMENT ON COLUMN portfolio_runs.signal_id IS
    'NULL where the members are the portfolios of all strategies under this scheme';
COMMENT ON COLUMN portfolio_runs.member_run_ids IS
    'Of backtest_runs, or of portfolio_runs where signal_id is NULL';
COMMENT ON COLUMN portfolio_runs.left_out IS
    'Members that were alive at a rebalance and got nothing, by reason, over all rebalances';
COMMENT ON COLUMN portfolio_runs.undefined IS 'Why a metric is NULL: {"metric": "reason"}';

DROP INDEX portfolio_runs_current;
CREATE UNIQUE INDEX portfolio_runs_current ON portfolio_runs (tf, signal_name, scheme)
    WHERE is_current;

CREATE TABLE portfolio_strategy_weights (
    run_id    UUID NOT NULL REFERENCES portfolio_runs (run_id) ON DELETE CASCADE,
    ts        TIMESTAMPTZ NOT NULL,
    signal_id INTEGER NOT NULL REFERENCES dim_signals (signal_id),
    weight    DOUBLE PRECISION NOT NULL CHECK (weight BETWEEN 0 AND 1),
    PRIMARY KEY (run_id, ts, signal_id)
);
COMMENT ON TABLE portfolio_strategy_weights IS
    'Weights of the strategies in the portfolios of all strategies';
