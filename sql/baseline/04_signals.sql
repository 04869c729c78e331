-- Signals with the feature row of their bar, and where the next refresh goes on.

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
    -- A reversal is two signals of one bar: exit long, enter short.
    PRIMARY KEY (signal_id, id, tf, ts, direction, action)
);
-- Compression takes as long as building the snapshot: disk is spent instead.
ALTER TABLE signals ALTER feature_snapshot SET STORAGE EXTERNAL;
COMMENT ON TABLE signals IS
    'The first bar of each stretch on which a preset wants an entry or an exit';
COMMENT ON COLUMN signals.feature_snapshot IS 'The row of features of that bar';
COMMENT ON COLUMN signals.feature_version IS 'Version of the features that it was computed from';
CREATE INDEX signals_by_asset ON signals (tf, id, ts);

-- The values of a snapshot that are indexed: those that are not floating-point numbers. Nobody
-- looks up the other 88 by equality, and an index over all 112 makes writing five times as slow.
-- Use it so: WHERE signal_facets(feature_snapshot) @> '{"has_outlier": true}'
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
    signal_id       INTEGER NOT NULL REFERENCES dim_signals (signal_id),
    id              INTEGER NOT NULL REFERENCES dim_assets (id),
    tf              TEXT NOT NULL REFERENCES dim_timeframe (tf),
    last_ts         TIMESTAMPTZ NOT NULL CHECK (isfinite(last_ts)),
    long_since      TIMESTAMPTZ,
    short_since     TIMESTAMPTZ,
    params_hash     TEXT NOT NULL,
    feature_version TEXT NOT NULL,
    signal_version  TEXT NOT NULL,
    updated_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (signal_id, id, tf)
);
COMMENT ON TABLE signal_state IS 'Where the last refresh of a preset''s signals stopped';
COMMENT ON COLUMN signal_state.last_ts IS 'The last bar whose features were read';
COMMENT ON COLUMN signal_state.long_since IS 'Entry of the long that has no exit yet';
COMMENT ON COLUMN signal_state.short_since IS 'Entry of the short that has no exit yet';
