-- Assets, timeframes and presets: what all other tables are keyed by.

CREATE SEQUENCE asset_id_seq AS INTEGER START 100001;  -- below are the ids of CoinMarketCap

CREATE TABLE dim_assets (
    id           INTEGER PRIMARY KEY DEFAULT nextval('asset_id_seq'),
    symbol       TEXT NOT NULL UNIQUE CHECK (symbol ~ '^[^|,\[\]\s]+$'),  -- a partition key
    name         TEXT,
    asset_class  TEXT NOT NULL DEFAULT 'crypto',
    source       TEXT,
    is_synthetic BOOLEAN NOT NULL DEFAULT FALSE
);
ALTER SEQUENCE asset_id_seq OWNED BY dim_assets.id;
COMMENT ON TABLE dim_assets IS 'The coins and pairs that can be traded';
COMMENT ON COLUMN dim_assets.source IS 'Where the bars come from';
COMMENT ON COLUMN dim_assets.is_synthetic IS
    'Whether the bars are invented, as in the sample market';

CREATE TABLE dim_timeframe (
    tf                  TEXT PRIMARY KEY,
    label               TEXT NOT NULL,
    description         TEXT NOT NULL,
    sort_order          INTEGER NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED,
    base_unit           TEXT NOT NULL CHECK (base_unit IN ('MIN', 'H', 'D', 'W', 'M', 'Q', 'Y')),
    tf_qty              INTEGER NOT NULL CHECK (tf_qty > 0),
    tf_days_nominal     DOUBLE PRECISION NOT NULL CHECK (tf_days_nominal BETWEEN 1e-4 AND 1e4),
    tf_days_min         DOUBLE PRECISION NOT NULL,
    tf_days_max         DOUBLE PRECISION NOT NULL CHECK (tf_days_max BETWEEN tf_days_min AND 1e4),
    alignment_type      TEXT NOT NULL CHECK (alignment_type IN ('tf_day', 'calendar')),
    calendar_anchor     TEXT
        CHECK (calendar_anchor IN ('EOM', 'EOQ', 'EOY', 'WEEK_END', 'ISO-WEEK')),
    calendar_scheme     TEXT CHECK (calendar_scheme IN ('US', 'ISO')),
    roll_policy         TEXT NOT NULL CHECK (roll_policy IN ('multiple_of_tf', 'calendar_anchor')),
    has_roll_flag       BOOLEAN NOT NULL,
    is_intraday         BOOLEAN NOT NULL,
    is_canonical        BOOLEAN NOT NULL,
    allow_partial_start BOOLEAN NOT NULL,
    allow_partial_end   BOOLEAN NOT NULL
);
COMMENT ON TABLE dim_timeframe IS
    'Bar lengths; every migrate writes the rows from backtest_pipeline.market.timeframes';
COMMENT ON COLUMN dim_timeframe.tf_days_nominal IS 'Length in days; for calendar bars the average';

CREATE TABLE dim_signals (
    signal_id   INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    signal_type TEXT NOT NULL,
    params      JSONB NOT NULL CHECK (jsonb_typeof(params) = 'object'),
    is_active   BOOLEAN NOT NULL DEFAULT TRUE
);
COMMENT ON TABLE dim_signals IS 'Presets: strategies with their parameters';
COMMENT ON COLUMN dim_signals.signal_type IS 'The strategy';
COMMENT ON COLUMN dim_signals.is_active IS
    'Whether a refresh computes it; parameters that were only run on demand are FALSE';

CREATE SEQUENCE asked_signal_id_seq AS INTEGER START 100001;  -- parameters run on demand

INSERT INTO dim_signals (signal_id, name, signal_type, params) VALUES
    (1, 'ema_9_21',     'ema_crossover',   '{"fast": 9, "slow": 21}'),
    (2, 'ema_21_50',    'ema_crossover',   '{"fast": 21, "slow": 50}'),
    (3, 'ema_50_200',   'ema_crossover',   '{"fast": 50, "slow": 200}'),
    (4, 'rsi_14_30_70', 'rsi_mean_revert', '{"period": 14, "lower": 30, "upper": 70}'),
    (5, 'rsi_14_25_75', 'rsi_mean_revert', '{"period": 14, "lower": 25, "upper": 75}'),
    (6, 'atr_20_14_2',  'atr_breakout',    '{"lookback": 20, "atr_period": 14, "trail_mult": 2.0}');
