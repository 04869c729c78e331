ALTER TABLE backtest_metrics ADD COLUMN deflated_at TIMESTAMPTZ;
COMMENT ON COLUMN backtest_metrics.deflated_at IS
    'When dsr, dsr_effective and the numbers of trials were computed from the ledger; NULL if that was not recorded';
