ALTER TABLE backtest_metrics ADD COLUMN deflated_at TIMESTAMPTZ;
COMMENT ON COLUMN backtest_metrics.deflated_at IS
    'When dsr, dsr_effective and the numbers of trials were computed from the ledger; NULL if that was not recorded';

ALTER TABLE api_keys
    DROP CONSTRAINT api_keys_role_check,
    ADD CONSTRAINT api_keys_role_check CHECK (role IN ('viewer', 'runner', 'admin'));
COMMENT ON COLUMN api_keys.role IS
    'viewer reads; runner also computes, and removes what is their own; admin removes what is anybody''s';
