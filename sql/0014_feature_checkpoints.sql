-- What it takes to compute only the features of new bars.

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
    'From where the features of a partition are computed when bars are appended';
COMMENT ON COLUMN feature_checkpoints.input_generation IS
    'Of the bars: while it stays, bars were only appended';
COMMENT ON COLUMN feature_checkpoints.n_rows IS 'Rows, from the first on, that are not touched again';
COMMENT ON COLUMN feature_checkpoints.digest IS 'What their content hashes to';
COMMENT ON COLUMN feature_checkpoints.standing IS
    'Values seen and level of each recursion, where it is resumed to go on from there';
