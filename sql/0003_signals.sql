-- Signal events with the full feature row they were decided on, and where each refresh stopped.

-- A reversal is two events of one bar (exit long, enter short), so direction and action are part
-- of the key.
CREATE TABLE signals (
    signal_id        INTEGER NOT NULL,
    id               INTEGER NOT NULL,
    tf               TEXT NOT NULL,
    ts               TIMESTAMPTZ NOT NULL CHECK (isfinite(ts)),
    direction        TEXT NOT NULL CHECK (direction IN ('long', 'short')),
    action           TEXT NOT NULL CHECK (action IN ('entry', 'exit')),
    close            DOUBLE PRECISION NOT NULL CHECK (close BETWEEN 0 AND 1e300),
    feature_snapshot JSONB NOT NULL,
    params_hash      TEXT NOT NULL,
    feature_version  TEXT NOT NULL,
    signal_version   TEXT NOT NULL,
    created_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (signal_id, id, tf, ts, direction, action)
);

-- Compression costs as much time as building the snapshot: disk is spent instead.
ALTER TABLE signals ALTER feature_snapshot SET STORAGE EXTERNAL;
CREATE INDEX signals_by_asset ON signals (tf, id, ts);

-- What containment can find in a snapshot: its discrete values. An index over all 112 keys holds
-- 88 floating-point numbers a row that nobody looks up by equality, and made writing five times as
-- slow. Ask: WHERE signal_facets(feature_snapshot) @> '{"has_outlier": true}'
CREATE FUNCTION signal_facets(snapshot JSONB) RETURNS JSONB
LANGUAGE SQL IMMUTABLE STRICT PARALLEL SAFE
RETURN jsonb_build_object(
    'asset_class', snapshot -> 'asset_class',
    'ret_is_outlier', snapshot -> 'ret_is_outlier',
    'vol_parkinson_20_is_outlier', snapshot -> 'vol_parkinson_20_is_outlier',
    'vol_parkinson_63_is_outlier', snapshot -> 'vol_parkinson_63_is_outlier',
    'vol_parkinson_126_is_outlier', snapshot -> 'vol_parkinson_126_is_outlier',
    'vol_gk_20_is_outlier', snapshot -> 'vol_gk_20_is_outlier',
    'vol_gk_63_is_outlier', snapshot -> 'vol_gk_63_is_outlier',
    'vol_gk_126_is_outlier', snapshot -> 'vol_gk_126_is_outlier',
    'vol_rs_20_is_outlier', snapshot -> 'vol_rs_20_is_outlier',
    'vol_rs_63_is_outlier', snapshot -> 'vol_rs_63_is_outlier',
    'vol_rs_126_is_outlier', snapshot -> 'vol_rs_126_is_outlier',
    'vol_log_roll_20_is_outlier', snapshot -> 'vol_log_roll_20_is_outlier',
    'vol_log_roll_63_is_outlier', snapshot -> 'vol_log_roll_63_is_outlier',
    'vol_log_roll_126_is_outlier', snapshot -> 'vol_log_roll_126_is_outlier',
    'atr_14_is_outlier', snapshot -> 'atr_14_is_outlier',
    'ta_is_outlier', snapshot -> 'ta_is_outlier',
    'has_price_gap', snapshot -> 'has_price_gap',
    'has_outlier', snapshot -> 'has_outlier'
);
CREATE INDEX signals_facets ON signals USING GIN (signal_facets(feature_snapshot) jsonb_path_ops);

CREATE TABLE signal_state (
    signal_id       INTEGER NOT NULL REFERENCES dim_signals,
    id              INTEGER NOT NULL REFERENCES dim_assets,
    tf              TEXT NOT NULL REFERENCES dim_timeframe,
    last_ts         TIMESTAMPTZ NOT NULL CHECK (isfinite(last_ts)),  -- last feature row that was read
    long_since      TIMESTAMPTZ,  -- entry of the long, or the short, that has no exit yet
    short_since     TIMESTAMPTZ,
    params_hash     TEXT NOT NULL,
    feature_version TEXT NOT NULL,
    signal_version  TEXT NOT NULL,
    updated_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (signal_id, id, tf)
);
