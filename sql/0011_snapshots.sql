-- Which files hold the rows of a version of a dataset: as long as a run needs them, not only while
-- they are the newest.

ALTER TABLE dataset_versions ADD COLUMN uris TEXT[] NOT NULL DEFAULT '{}';
UPDATE dataset_versions SET uris = ARRAY[uri] WHERE uri IS NOT NULL;
ALTER TABLE dataset_versions DROP COLUMN uri;
COMMENT ON COLUMN dataset_versions.uris IS
    'Artifacts that hold the rows, the oldest rows first; none where a table holds them';

CREATE TABLE dataset_snapshots (
    dataset       TEXT NOT NULL CHECK (dataset IN ('bars', 'features')),
    id            INTEGER NOT NULL REFERENCES dim_assets (id),
    tf            TEXT NOT NULL REFERENCES dim_timeframe (tf),
    version       TEXT NOT NULL,
    code_version  TEXT NOT NULL,
    generation    TEXT NOT NULL,  -- stays while rows are only appended
    n_rows        BIGINT NOT NULL CHECK (n_rows > 0),
    first_ts      TIMESTAMPTZ NOT NULL,
    last_ts       TIMESTAMPTZ NOT NULL,
    uris          TEXT[] NOT NULL CHECK (cardinality(uris) > 0),
    current_since TIMESTAMPTZ NOT NULL DEFAULT now(),  -- when it became the newest
    PRIMARY KEY (dataset, id, tf, version)
);
COMMENT ON TABLE dataset_snapshots IS
    'Every version of bars and features that was ever stored, and the files to read it from';

INSERT INTO dataset_snapshots (dataset, id, tf, version, code_version, generation, n_rows, first_ts,
    last_ts, uris)
SELECT dataset, id, tf, version, code_version, generation, n_rows, first_ts, last_ts, uris
FROM dataset_versions
WHERE dataset IN ('bars', 'features') AND n_rows > 0 AND cardinality(uris) > 0;
