CREATE TABLE strategy_probes (
    code_version TEXT NOT NULL,
    params_hash  TEXT NOT NULL,
    strategy     TEXT NOT NULL,
    params       JSONB NOT NULL CHECK (jsonb_typeof(params) = 'object'),
    leak         TEXT,
    probed_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (code_version, params_hash)
);
COMMENT ON TABLE strategy_probes IS
    'Whether the signals of a strategy changed when later bars did, by version of its code and parameters; docs/look-ahead.md';
COMMENT ON COLUMN strategy_probes.code_version IS
    'Versions of features, signals and probe, and the hash of the strategy''s code';
COMMENT ON COLUMN strategy_probes.leak IS
    'What changed: a code version with a leak under any parameters is refused under all; NULL where nothing did';
