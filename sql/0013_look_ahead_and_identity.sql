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
