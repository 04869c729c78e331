-- Whether a stored result is current can be told without reading the source again, where the source
-- says cheaply that it is as it was when the stored bars were read from it.
CREATE TABLE source_states (
    id       INTEGER NOT NULL REFERENCES dim_assets (id),
    tf       TEXT NOT NULL REFERENCES dim_timeframe (tf),
    state    TEXT NOT NULL,
    read_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (id, tf)
);
COMMENT ON TABLE source_states IS
    'State of the source from which the stored bars of an asset and timeframe were last read';
COMMENT ON COLUMN source_states.state IS
    'Hash of what tells a change of the source: sizes and times of its files, or the last bar that '
    'is over';
