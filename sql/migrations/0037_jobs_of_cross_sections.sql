-- A job may rank a universe; of all stored assets, it names no symbols.
ALTER TABLE backtest_jobs
    DROP CONSTRAINT backtest_jobs_kind_check,
    ADD CONSTRAINT backtest_jobs_kind_check CHECK (
        kind IN ('run', 'walkforward', 'portfolio', 'optimize', 'cross_section', 'refresh')
    );
