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
