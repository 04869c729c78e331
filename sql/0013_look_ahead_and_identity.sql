-- Which code was probed for look-ahead, and what the source's bars say about who an asset is.

CREATE TABLE look_ahead_probes (
    code_version TEXT NOT NULL,
    source       TEXT NOT NULL,
    seed         BIGINT NOT NULL CHECK (seed >= 0),
    scope        TEXT NOT NULL CHECK (scope IN ('root_bars', 'strategies')),
    n_partitions INTEGER NOT NULL CHECK (n_partitions >= 0),
    n_futures    INTEGER NOT NULL CHECK (n_futures >= 0),
    n_signals    INTEGER NOT NULL CHECK (n_signals >= 0),
    leaks        JSONB NOT NULL CHECK (jsonb_typeof(leaks) = 'array'),
    probed_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (code_version, source, seed)
);
COMMENT ON TABLE look_ahead_probes IS
    'Whether features and signals changed when what came after them did; docs/look-ahead.md';
COMMENT ON COLUMN look_ahead_probes.scope IS
    'strategies: the features are not computed here, so that only the strategies were probed';
COMMENT ON COLUMN look_ahead_probes.n_futures IS 'Other futures that everything was computed with';
COMMENT ON COLUMN look_ahead_probes.n_signals IS 'Signals whose later bars were taken away';

CREATE TABLE asset_identity (
    id         INTEGER NOT NULL REFERENCES dim_assets (id),
    tf         TEXT NOT NULL REFERENCES dim_timeframe (tf),
    trait      TEXT NOT NULL CHECK (trait IN ('ticker_reused', 'later_coin', 'long_hole', 'ended',
                                              'stable', 'multiple', 'same_coin')),
    first_ts   TIMESTAMPTZ NOT NULL,
    last_ts    TIMESTAMPTZ NOT NULL CHECK (last_ts >= first_ts),
    detail     TEXT NOT NULL,
    related    TEXT,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (id, tf, trait)
);
COMMENT ON TABLE asset_identity IS
    'What the source''s bars and symbols tell about who an asset is; docs/data-quality.md';
COMMENT ON COLUMN asset_identity.tf IS 'Of the source''s own bars, which show it';
COMMENT ON COLUMN asset_identity.related IS
    'Symbol of the earlier or later coin, or of the coin that a contract is on';
