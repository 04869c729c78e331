-- Who runs several walk-forwards on an asset and takes one that passes has a chance with each.
ALTER TABLE walk_forward_runs ADD n_walk_forwards INTEGER NOT NULL DEFAULT 1
    CHECK (n_walk_forwards > 0);
COMMENT ON COLUMN walk_forward_runs.n_walk_forwards IS
    'Distinct walk-forwards of the asset and timeframe in the ledger, by which it is judged';
COMMENT ON COLUMN walk_forward_runs.threshold IS 'Efficiency below which it is flagged';
