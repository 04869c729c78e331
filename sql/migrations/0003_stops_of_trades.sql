-- The stop that the price would meet first, as it was set at the entry and as it stood at the exit.
ALTER TABLE backtest_trades
    ADD entry_stop DOUBLE PRECISION,
    ADD entry_stop_kind TEXT CHECK (entry_stop_kind IN ('stop_loss', 'trailing_stop')),
    ADD exit_stop DOUBLE PRECISION,
    ADD exit_stop_kind TEXT CHECK (exit_stop_kind IN ('stop_loss', 'trailing_stop'));
COMMENT ON COLUMN backtest_trades.entry_stop IS
    'Price of the stop that would be met first, as set at the entry; NULL without a stop';
COMMENT ON COLUMN backtest_trades.entry_stop_kind IS 'Which stop entry_stop is';
COMMENT ON COLUMN backtest_trades.exit_stop IS
    'The same as it stood at the exit, or after the last bar of an open trade';
COMMENT ON COLUMN backtest_trades.exit_stop_kind IS 'Which stop exit_stop is';

COMMENT ON COLUMN signal_state.long_since IS
    'First bar of the stretch on which the long entry still holds; NULL where it does not';
COMMENT ON COLUMN signal_state.short_since IS
    'First bar of the stretch on which the short entry still holds; NULL where it does not';
