-- Runs on bars longer than a day are marked by stored daily bars.
COMMENT ON COLUMN backtest_runs.dataset_version_ids IS
    'Version of each dataset that was read, that of the daily bars which mark the run included: {"asset|timeframe": "version"}';
COMMENT ON COLUMN backtest_runs.snapshot_id IS
    'Hash of dataset_version_ids, in which daily bars count by the days that mark the run alone';
COMMENT ON COLUMN backtest_metrics.sampling IS
    'Whether value at risk, shortfall, skew and kurtosis are of daily returns, or, where bars are longer than a day and no daily bars mark the days between, of those from bar to bar';
