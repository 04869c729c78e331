-- Walk-forwards whose windows leave bars untested say how many.

ALTER TABLE walk_forward_runs
    ADD COLUMN n_left_out INTEGER NOT NULL DEFAULT 0 CHECK (n_left_out >= 0),
    ADD COLUMN n_untested INTEGER NOT NULL DEFAULT 0 CHECK (n_untested >= 0);
COMMENT ON COLUMN walk_forward_runs.n_left_out IS
    'Windows that make no fold, for too few bars to train on or to test';
COMMENT ON COLUMN walk_forward_runs.n_untested IS
    'Bars between the tests of two folds that none tests: of windows that are left out, and where '
    'the step is longer than the test';
