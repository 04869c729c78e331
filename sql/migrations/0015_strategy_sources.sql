CREATE TABLE strategy_sources (
    strategy   TEXT NOT NULL,
    code_hash  TEXT NOT NULL,
    origin     TEXT NOT NULL,
    archive    BYTEA NOT NULL,
    first_used TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (strategy, code_hash)
);
COMMENT ON TABLE strategy_sources IS
    'Files of users'' own strategies, by hash of their code, to replay runs after they have changed or gone';
COMMENT ON COLUMN strategy_sources.code_hash IS 'As in code_version of the runs';
COMMENT ON COLUMN strategy_sources.origin IS 'Path of the file when it was first used';
COMMENT ON COLUMN strategy_sources.archive IS 'The files, zipped';

ALTER TABLE dim_signals ADD COLUMN declared_by TEXT;
COMMENT ON COLUMN dim_signals.declared_by IS
    'File or package that declares the preset, which follows it; NULL for presets that were added by command';
