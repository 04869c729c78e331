-- Runs that rank a universe: like a run of a plan book of several symbols, without a book.

ALTER TABLE backtest_runs
    DROP CONSTRAINT backtest_runs_of_books,
    ADD CONSTRAINT backtest_runs_of_books CHECK (
        CASE split
            WHEN 'planned' THEN book IS NOT NULL AND cardinality(symbols) > 0 AND signal_id IS NULL
                AND (id IS NULL) = (cardinality(symbols) > 1)
            WHEN 'cross_section' THEN book IS NULL AND cardinality(symbols) > 1
                AND signal_id IS NULL AND id IS NULL
            ELSE book IS NULL AND symbols IS NULL AND signal_id IS NOT NULL AND id IS NOT NULL
        END
    );
COMMENT ON COLUMN backtest_runs.signal_id IS
    'The preset; NULL for a run that follows the plans of a book, or ranks a universe';
COMMENT ON COLUMN backtest_runs.signal_name IS
    'The preset''s name, or that of the book or of the cross-section';
COMMENT ON COLUMN backtest_runs.strategy IS
    'The strategy; strategist:<name> for a run that follows the plans of a book, cross_section:<name> for one that ranks a universe';
COMMENT ON COLUMN backtest_runs.id IS 'The asset; NULL for several symbols';
COMMENT ON COLUMN backtest_runs.symbol IS
    'The asset''s symbol; of several their symbols joined by +, from six on their number and a hash';
COMMENT ON COLUMN backtest_runs.split IS
    'full: all bars of the window; walk_forward: the out-of-sample bars of a walk-forward; planned: all bars, under the plans of a book; cross_section: all bars of the window, by a strategy that ranks a universe';
COMMENT ON COLUMN backtest_runs.symbols IS
    'Symbols that share the account of a planned run or of a cross-section; NULL for a run on one asset';

-- Whatever a strategy says, it has one current run at a timeframe, universe, window and costs.
CREATE UNIQUE INDEX backtest_runs_current_cross_sections
    ON backtest_runs (signal_name, tf, (config - 'params' - 'symbol'))
    WHERE is_current AND split = 'cross_section';

ALTER TABLE backtest_trades
    DROP CONSTRAINT backtest_trades_of_plans,
    ADD CONSTRAINT backtest_trades_of_plans CHECK (
        num_nulls(symbol, is_part) IN (0, 2)
        AND num_nulls(trigger_id, category) IN (0, 2)
        AND (trigger_id IS NULL OR symbol IS NOT NULL)
        AND (exit_trigger_id IS NULL OR trigger_id IS NOT NULL)
    ),
    DROP CONSTRAINT backtest_trades_exit_reason_check,
    ADD CONSTRAINT backtest_trades_exit_reason_check CHECK (exit_reason IN (
        'signal', 'reversal', 'stop_loss', 'trailing_stop', 'take_profit', 'time_stop',
        'liquidation', 'end_of_data', 'delisting'
    ));
COMMENT ON COLUMN backtest_trades.symbol IS
    'The asset that was traded, where several share an account; else the run''s own, and NULL';
COMMENT ON COLUMN backtest_trades.is_part IS
    'Whether a part of the position went on after it; NULL for a run on one asset';
