-- What is stored of each asset and timeframe, by content, and what is wrong with it.

CREATE TABLE dataset_versions (
    dataset       TEXT NOT NULL
        CHECK (dataset IN ('bars', 'features', 'signals', 'backtests', 'walk_forward')),
    id            INTEGER NOT NULL REFERENCES dim_assets (id),
    tf            TEXT NOT NULL REFERENCES dim_timeframe (tf),
    version       TEXT NOT NULL,
    input_version TEXT NOT NULL,
    code_version  TEXT NOT NULL,
    generation    TEXT NOT NULL,
    n_rows        BIGINT NOT NULL CHECK (n_rows >= 0),
    first_ts      TIMESTAMPTZ,
    last_ts       TIMESTAMPTZ,
    uris          TEXT[] NOT NULL DEFAULT '{}',
    updated_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset, id, tf)
);
COMMENT ON TABLE dataset_versions IS
    'The newest version of each dataset; one whose inputs and code are the same is not built again';
COMMENT ON COLUMN dataset_versions.version IS 'Hash of the stored rows';
COMMENT ON COLUMN dataset_versions.input_version IS 'Version of what it was made from';
COMMENT ON COLUMN dataset_versions.generation IS
    'The same while rows are only appended, another after a stored row has changed';
COMMENT ON COLUMN dataset_versions.uris IS
    'Files that hold the rows, the oldest rows first; none where a table holds them';

CREATE TABLE dataset_snapshots (
    dataset       TEXT NOT NULL CHECK (dataset IN ('bars', 'features')),
    id            INTEGER NOT NULL REFERENCES dim_assets (id),
    tf            TEXT NOT NULL REFERENCES dim_timeframe (tf),
    version       TEXT NOT NULL,
    follows       TEXT,
    code_version  TEXT NOT NULL,
    generation    TEXT NOT NULL,
    n_rows        BIGINT NOT NULL CHECK (n_rows > 0),
    first_ts      TIMESTAMPTZ NOT NULL,
    last_ts       TIMESTAMPTZ NOT NULL,
    uris          TEXT[] NOT NULL CHECK (cardinality(uris) > 0),
    current_since TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset, id, tf, version)
);
COMMENT ON TABLE dataset_snapshots IS
    'Versions of bars and features that can still be read, and the files to read them from';
COMMENT ON COLUMN dataset_snapshots.follows IS
    'The version that was the newest before it; it may have been removed';
COMMENT ON COLUMN dataset_snapshots.generation IS 'As in dataset_versions';
COMMENT ON COLUMN dataset_snapshots.current_since IS 'When it became the newest version';

CREATE TABLE data_quality (
    id         INTEGER NOT NULL REFERENCES dim_assets (id),
    tf         TEXT NOT NULL REFERENCES dim_timeframe (tf),
    dataset    TEXT NOT NULL
        CHECK (dataset IN ('bars', 'features', 'signals', 'backtests', 'walk_forward')),
    reason     TEXT NOT NULL,
    n_rows     BIGINT NOT NULL CHECK (n_rows > 0),
    first_ts   TIMESTAMPTZ,
    last_ts    TIMESTAMPTZ,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (id, tf, dataset, reason)
);
COMMENT ON TABLE data_quality IS 'How many rows were skipped or flagged, and why';

CREATE TABLE asset_identity (
    id         INTEGER NOT NULL REFERENCES dim_assets (id),
    tf         TEXT NOT NULL REFERENCES dim_timeframe (tf),
    trait      TEXT NOT NULL CHECK (trait IN (
        'ticker_reused', 'later_coin', 'long_hole', 'ended', 'stable', 'multiple', 'same_coin'
    )),
    first_ts   TIMESTAMPTZ NOT NULL,
    last_ts    TIMESTAMPTZ NOT NULL CHECK (last_ts >= first_ts),
    detail     TEXT NOT NULL,
    related    TEXT,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (id, tf, trait)
);
COMMENT ON TABLE asset_identity IS
    'What bars and symbols say about which coin an asset is; docs/data-quality.md';
COMMENT ON COLUMN asset_identity.tf IS 'Timeframe of the source''s own bars, which show it';
COMMENT ON COLUMN asset_identity.related IS
    'Symbol of the earlier or later coin, or of the coin that a contract is on';
