-- A timeframe follows from its name, and rows can be added: two of one length, such as 1Q and
-- 3M_CAL, have the same place in the order.
ALTER TABLE dim_timeframe
    DROP CONSTRAINT dim_timeframe_sort_order_key,
    ALTER COLUMN sort_order DROP NOT NULL,
    ADD COLUMN is_refreshed BOOLEAN NOT NULL DEFAULT TRUE;
UPDATE dim_timeframe SET is_refreshed = FALSE;
COMMENT ON TABLE dim_timeframe IS
    'Bar lengths; each follows from its name, and a row that contradicts it is left out; docs/timeframes.md';
COMMENT ON COLUMN dim_timeframe.sort_order IS 'Nominal length in minutes';
COMMENT ON COLUMN dim_timeframe.tf_days_min IS 'Shortest period in days';
COMMENT ON COLUMN dim_timeframe.tf_days_max IS 'Longest period in days';
COMMENT ON COLUMN dim_timeframe.allow_partial_start IS
    'Whether bars are counted anew each year, with a short last one; an unfinished bar is never a row';
COMMENT ON COLUMN dim_timeframe.allow_partial_end IS 'As allow_partial_start';
COMMENT ON COLUMN dim_timeframe.is_refreshed IS
    'Whether every refresh computes it, besides those of BACKTEST_TIMEFRAMES';
