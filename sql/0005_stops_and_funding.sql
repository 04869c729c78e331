-- What stops and funding add to a trade and to the metrics of a run.

-- Runs from before had neither: what they paid is known, and 0.
ALTER TABLE backtest_trades
    ADD COLUMN funding DOUBLE PRECISION NOT NULL DEFAULT 0,
    DROP CONSTRAINT backtest_trades_exit_reason_check,
    ADD CONSTRAINT backtest_trades_exit_reason_check CHECK (exit_reason IN (
        'signal', 'reversal', 'stop_loss', 'trailing_stop', 'take_profit', 'time_stop',
        'liquidation', 'end_of_data'
    ));
ALTER TABLE backtest_trades ALTER COLUMN funding DROP DEFAULT;

ALTER TABLE backtest_metrics ADD COLUMN funding_paid DOUBLE PRECISION;
