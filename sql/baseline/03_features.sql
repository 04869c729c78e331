-- Features of every bar, and from where they are computed when bars are appended.

-- No foreign keys: the writer checks the few assets and the timeframe of a batch once, where a
-- trigger would do so for each of a million rows. NaN > 0 holds in Postgres; BETWEEN refuses NaN
-- and infinity.
CREATE TABLE cmc_features (
    id INTEGER NOT NULL,
    ts TIMESTAMPTZ NOT NULL CHECK (isfinite(ts)),
    tf TEXT NOT NULL,
    tf_days INTEGER NOT NULL,
    asset_class TEXT,
    -- bars
    open DOUBLE PRECISION CHECK (open BETWEEN 0 AND 1e300),
    high DOUBLE PRECISION CHECK (high BETWEEN 0 AND 1e300),
    low DOUBLE PRECISION CHECK (low BETWEEN 0 AND 1e300),
    close DOUBLE PRECISION CHECK (close BETWEEN 0 AND 1e300),
    volume DOUBLE PRECISION CHECK (volume BETWEEN 0 AND 1e300),
    gap_bars INTEGER,
    -- returns
    delta1 DOUBLE PRECISION,
    delta2 DOUBLE PRECISION,
    ret_arith DOUBLE PRECISION,
    delta_ret_arith DOUBLE PRECISION,
    ret_log DOUBLE PRECISION,
    delta_ret_log DOUBLE PRECISION,
    "range" DOUBLE PRECISION,
    range_pct DOUBLE PRECISION,
    true_range DOUBLE PRECISION,
    true_range_pct DOUBLE PRECISION,
    -- returns of the bar while it forms
    delta1_roll DOUBLE PRECISION,
    delta2_roll DOUBLE PRECISION,
    ret_arith_roll DOUBLE PRECISION,
    delta_ret_arith_roll DOUBLE PRECISION,
    ret_log_roll DOUBLE PRECISION,
    delta_ret_log_roll DOUBLE PRECISION,
    range_roll DOUBLE PRECISION,
    range_pct_roll DOUBLE PRECISION,
    true_range_roll DOUBLE PRECISION,
    true_range_pct_roll DOUBLE PRECISION,
    -- z-scores of returns
    ret_arith_zscore_30 DOUBLE PRECISION,
    ret_arith_zscore_90 DOUBLE PRECISION,
    ret_arith_zscore_365 DOUBLE PRECISION,
    ret_arith_roll_zscore_30 DOUBLE PRECISION,
    ret_arith_roll_zscore_90 DOUBLE PRECISION,
    ret_arith_roll_zscore_365 DOUBLE PRECISION,
    delta_ret_arith_zscore_30 DOUBLE PRECISION,
    delta_ret_arith_zscore_90 DOUBLE PRECISION,
    delta_ret_arith_zscore_365 DOUBLE PRECISION,
    delta_ret_arith_roll_zscore_30 DOUBLE PRECISION,
    delta_ret_arith_roll_zscore_90 DOUBLE PRECISION,
    delta_ret_arith_roll_zscore_365 DOUBLE PRECISION,
    ret_log_zscore_30 DOUBLE PRECISION,
    ret_log_zscore_90 DOUBLE PRECISION,
    ret_log_zscore_365 DOUBLE PRECISION,
    ret_log_roll_zscore_30 DOUBLE PRECISION,
    ret_log_roll_zscore_90 DOUBLE PRECISION,
    ret_log_roll_zscore_365 DOUBLE PRECISION,
    delta_ret_log_zscore_30 DOUBLE PRECISION,
    delta_ret_log_zscore_90 DOUBLE PRECISION,
    delta_ret_log_zscore_365 DOUBLE PRECISION,
    delta_ret_log_roll_zscore_30 DOUBLE PRECISION,
    delta_ret_log_roll_zscore_90 DOUBLE PRECISION,
    delta_ret_log_roll_zscore_365 DOUBLE PRECISION,
    ret_is_outlier BOOLEAN,
    -- volatility
    vol_parkinson_20 DOUBLE PRECISION,
    vol_parkinson_63 DOUBLE PRECISION,
    vol_parkinson_126 DOUBLE PRECISION,
    vol_gk_20 DOUBLE PRECISION,
    vol_gk_63 DOUBLE PRECISION,
    vol_gk_126 DOUBLE PRECISION,
    vol_rs_20 DOUBLE PRECISION,
    vol_rs_63 DOUBLE PRECISION,
    vol_rs_126 DOUBLE PRECISION,
    vol_log_roll_20 DOUBLE PRECISION,
    vol_log_roll_63 DOUBLE PRECISION,
    vol_log_roll_126 DOUBLE PRECISION,
    atr_14 DOUBLE PRECISION,
    vol_parkinson_20_zscore DOUBLE PRECISION,
    vol_parkinson_63_zscore DOUBLE PRECISION,
    vol_parkinson_126_zscore DOUBLE PRECISION,
    vol_gk_20_zscore DOUBLE PRECISION,
    vol_gk_63_zscore DOUBLE PRECISION,
    vol_gk_126_zscore DOUBLE PRECISION,
    vol_rs_20_zscore DOUBLE PRECISION,
    vol_rs_63_zscore DOUBLE PRECISION,
    vol_rs_126_zscore DOUBLE PRECISION,
    vol_parkinson_20_is_outlier BOOLEAN,
    vol_parkinson_63_is_outlier BOOLEAN,
    vol_parkinson_126_is_outlier BOOLEAN,
    vol_gk_20_is_outlier BOOLEAN,
    vol_gk_63_is_outlier BOOLEAN,
    vol_gk_126_is_outlier BOOLEAN,
    vol_rs_20_is_outlier BOOLEAN,
    vol_rs_63_is_outlier BOOLEAN,
    vol_rs_126_is_outlier BOOLEAN,
    vol_log_roll_20_is_outlier BOOLEAN,
    vol_log_roll_63_is_outlier BOOLEAN,
    vol_log_roll_126_is_outlier BOOLEAN,
    atr_14_is_outlier BOOLEAN,
    -- technical
    rsi_7 DOUBLE PRECISION,
    rsi_14 DOUBLE PRECISION,
    rsi_21 DOUBLE PRECISION,
    rsi_14_zscore DOUBLE PRECISION,
    adx_14 DOUBLE PRECISION,
    macd_12_26 DOUBLE PRECISION,
    macd_signal_9 DOUBLE PRECISION,
    macd_hist_12_26_9 DOUBLE PRECISION,
    macd_8_17 DOUBLE PRECISION,
    macd_signal_9_fast DOUBLE PRECISION,
    macd_hist_8_17_9 DOUBLE PRECISION,
    stoch_k_14 DOUBLE PRECISION,
    stoch_d_3 DOUBLE PRECISION,
    bb_ma_20 DOUBLE PRECISION,
    bb_up_20_2 DOUBLE PRECISION,
    bb_lo_20_2 DOUBLE PRECISION,
    bb_width_20 DOUBLE PRECISION,
    ta_is_outlier BOOLEAN,
    -- flags
    has_price_gap BOOLEAN,
    has_outlier BOOLEAN,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (id, ts, tf)
);
COMMENT ON TABLE cmc_features IS
    'One row per bar with all features; a feature that is undefined, as in its warm-up, is NULL';
COMMENT ON COLUMN cmc_features.ts IS 'Close of the bar';
COMMENT ON COLUMN cmc_features.gap_bars IS 'Bars of the source that are missing since the bar before';

CREATE TABLE cmc_ema_multi_tf_u (
    id     INTEGER NOT NULL,
    ts     TIMESTAMPTZ NOT NULL CHECK (isfinite(ts)),
    tf     TEXT NOT NULL,
    period INTEGER NOT NULL CHECK (period > 0),
    ema    DOUBLE PRECISION CHECK (ema BETWEEN -1e300 AND 1e300),
    PRIMARY KEY (id, ts, tf, period)
);
COMMENT ON TABLE cmc_ema_multi_tf_u IS 'EMAs of the close, one row per bar and period';

CREATE TABLE feature_checkpoints (
    id               INTEGER NOT NULL REFERENCES dim_assets (id),
    tf               TEXT NOT NULL REFERENCES dim_timeframe (tf),
    code_version     TEXT NOT NULL,
    input_generation TEXT NOT NULL,
    n_rows           BIGINT NOT NULL CHECK (n_rows >= 0),
    digest           TEXT NOT NULL,
    standing         DOUBLE PRECISION[] NOT NULL,
    updated_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (id, tf)
);
COMMENT ON TABLE feature_checkpoints IS
    'From where the features of an asset and timeframe are computed when bars are appended';
COMMENT ON COLUMN feature_checkpoints.input_generation IS
    'Generation of the bars: while it is the same, bars were only appended';
COMMENT ON COLUMN feature_checkpoints.n_rows IS
    'Rows, from the first, that are not computed again';
COMMENT ON COLUMN feature_checkpoints.digest IS 'Hash of these rows';
COMMENT ON COLUMN feature_checkpoints.standing IS
    'Number of values and level of each recursive average after these rows';

CREATE TABLE external_watermarks (
    id       INTEGER NOT NULL REFERENCES dim_assets (id),
    tf       TEXT NOT NULL REFERENCES dim_timeframe (tf),
    version  TEXT NOT NULL,
    n_rows   BIGINT NOT NULL CHECK (n_rows >= 0),
    last_ts  TIMESTAMPTZ NOT NULL,
    taken_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (id, tf)
);
COMMENT ON TABLE external_watermarks IS
    'What the user''s own table of features held when it was last read; docs/external-features.md';
COMMENT ON COLUMN external_watermarks.version IS
    'Hash of the number of rows, their stamps and the times they were written';
