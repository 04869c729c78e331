-- Which trades were held through a hole in the data, beside those that were entered after one.
ALTER TABLE backtest_trades ADD COLUMN exit_after_gap BOOLEAN;
ALTER TABLE backtest_trades ADD COLUMN held_across_gap BOOLEAN;
COMMENT ON COLUMN backtest_trades.entry_after_gap IS
    'Bars are missing before the one at whose open it was entered';
COMMENT ON COLUMN backtest_trades.exit_after_gap IS
    'Held through missing bars and left in the bar after them; NULL where it was not recorded';
COMMENT ON COLUMN backtest_trades.held_across_gap IS
    'Bars are missing between entry and exit, or the last mark; NULL where it was not recorded';
