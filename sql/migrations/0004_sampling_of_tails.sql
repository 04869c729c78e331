-- Runs that are stored already are made anew, since the version of their metrics has changed.
ALTER TABLE backtest_metrics
    ADD sampling TEXT NOT NULL DEFAULT 'daily' CHECK (sampling IN ('daily', 'bars'));
COMMENT ON COLUMN backtest_metrics.sampling IS
    'Whether value at risk, shortfall, skew and kurtosis are of daily returns, or, where bars are longer than a day, of those from bar to bar';
