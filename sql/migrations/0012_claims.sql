-- Power stands beside the false positives: searches of random markets with an edge of known size.
ALTER TABLE negative_controls
    ADD planted DOUBLE PRECISION NOT NULL DEFAULT 0 CHECK (planted >= 0),
    ADD n_declared_passed INTEGER CHECK (n_declared_passed BETWEEN 0 AND n_walk_forwards),
    DROP CONSTRAINT negative_controls_pkey,
    ADD PRIMARY KEY (control_id, world, planted);
COMMENT ON TABLE negative_controls IS
    'Searches of random markets, and how many found significance: false positives without an edge, power with a planted one; docs/leaderboard.md';
COMMENT ON COLUMN negative_controls.planted IS
    'True yearly Sharpe ratio of the rule that has an edge; 0 where there is none';
COMMENT ON COLUMN negative_controls.n_declared_passed IS
    'Walk-forwards that pass where declared beforehand; NULL for controls before this was measured';
