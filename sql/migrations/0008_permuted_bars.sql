-- Random entries are now the run's rule on its own bars in random order.
ALTER TABLE run_robustness
    ADD random_entry_ruined DOUBLE PRECISION CHECK (random_entry_ruined BETWEEN 0 AND 1);
COMMENT ON COLUMN run_robustness.p_random_entries IS
    'Share of runs of the same rule, on the same bars in random order, that did as well';
COMMENT ON COLUMN run_robustness.random_entry_median IS
    'Median total return of the rule on bars in random order';
COMMENT ON COLUMN run_robustness.random_entry_ruined IS
    'Share of bars in random order on which the rule lost all equity';
COMMENT ON COLUMN run_robustness.sharpe_low IS
    'Lower end of the studentised interval of the Sharpe ratio, nominally 90 %';
COMMENT ON COLUMN run_robustness.sharpe_high IS 'Its upper end';
