-- Boards that are deflated by the ledger, and walk-forwards that have to be significant.

ALTER TABLE leaderboard
    ADD COLUMN dsr_effective      DOUBLE PRECISION CHECK (dsr_effective BETWEEN 0 AND 1),
    ADD COLUMN n_trials_effective DOUBLE PRECISION CHECK (n_trials_effective >= 1),
    ALTER COLUMN n_days DROP NOT NULL;
COMMENT ON COLUMN leaderboard.n_trials IS
    'Configurations of the strategy in the ledger, over all assets and timeframes';
COMMENT ON COLUMN leaderboard.n_families IS 'Strategies in the ledger';
COMMENT ON COLUMN leaderboards.board_id IS
    'Follows from the runs, the gates, the code, and what the ledger counts';
COMMENT ON COLUMN leaderboards.registered_after_results IS
    'Whether a ranked configuration was tried before its gates were registered: such gates prove '
    'nothing';

ALTER TABLE walk_forward_runs
    DROP CONSTRAINT walk_forward_runs_verdict_check,
    DROP CONSTRAINT walk_forward_runs_check1,  -- that of verdict and efficiency
    ADD CHECK (verdict IN ('passed', 'overfit', 'insignificant', 'undefined')),
    ADD CHECK (efficiency IS NOT NULL OR verdict = 'undefined');
COMMENT ON COLUMN walk_forward_runs.reason IS 'All that it failed';

-- Those from before measured other machinery, and can be measured again.
DELETE FROM negative_controls;
ALTER TABLE negative_controls
    ADD COLUMN n_families      INTEGER NOT NULL CHECK (n_families > 0),
    ADD COLUMN n_run           INTEGER NOT NULL CHECK (n_run BETWEEN 0 AND n_families),
    ADD COLUMN n_run_effective INTEGER NOT NULL CHECK (n_run_effective BETWEEN 0 AND n_families),
    ADD COLUMN n_walks         INTEGER NOT NULL CHECK (n_walks >= 0),
    ADD COLUMN n_walks_passed  INTEGER NOT NULL CHECK (n_walks_passed BETWEEN 0 AND n_walks),
    ADD COLUMN run_rate        DOUBLE PRECISION NOT NULL CHECK (run_rate BETWEEN 0 AND 1),
    ADD COLUMN walk_rate       DOUBLE PRECISION NOT NULL CHECK (walk_rate BETWEEN 0 AND 1);
COMMENT ON COLUMN negative_controls.n_run IS
    'Strategies on a world whose best run has a DSR of at least 0.95, as stored runs carry it';
