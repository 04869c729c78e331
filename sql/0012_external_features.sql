-- What the user's own table of features showed of each partition when it was last taken over.

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
    'Rows, stamps and times of writing of a partition of the external table, as one hash';
