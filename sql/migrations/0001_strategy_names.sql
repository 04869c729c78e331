-- A rule family is a strategy, and a walk-forward is called so, in columns as in the documents.
ALTER TABLE dim_signals RENAME COLUMN signal_type TO strategy;
ALTER TABLE trials RENAME COLUMN signal_type TO strategy;
ALTER TABLE backtest_runs RENAME COLUMN signal_type TO strategy;
ALTER TABLE walk_forward_folds RENAME COLUMN signal_type TO strategy;
ALTER TABLE negative_controls RENAME COLUMN n_walks TO n_walk_forwards;
ALTER TABLE negative_controls RENAME COLUMN n_walks_passed TO n_walk_forwards_passed;
ALTER TABLE negative_controls RENAME COLUMN walk_rate TO walk_forward_rate;
-- A view keeps the names that its columns had.
ALTER VIEW visible_runs RENAME COLUMN signal_type TO strategy;
COMMENT ON COLUMN negative_controls.walk_forward_rate IS
    'n_walk_forwards_passed / n_walk_forwards; 0 where there was none';
