-- Power stands beside the false positives: searches of random markets with an edge of known size.
ALTER TABLE negative_controls
    ADD planted DOUBLE PRECISION NOT NULL DEFAULT 0 CHECK (planted >= 0),
    ADD n_declared_passed INTEGER CHECK (n_declared_passed BETWEEN 0 AND n_walk_forwards),
    DROP CONSTRAINT negative_controls_pkey,
    ADD PRIMARY KEY (control_id, world, planted);
COMMENT ON TABLE negative_controls IS
    'Searches of random markets, and how many found significance: false positives without an edge, power with a planted one; docs/leaderboard.md';
COMMENT ON COLUMN negative_controls.planted IS
    'True yearly Sharpe ratio of the rule that has an edge; 0 where there is none';
COMMENT ON COLUMN negative_controls.n_declared_passed IS
    'Walk-forwards that pass where declared beforehand; NULL for controls before this was measured';

-- A walk-forward that was declared before the first trial of its strategy on an asset and timeframe
-- is no choice among the walk-forwards there: it is judged at 0.95, whatever is tried later.
CREATE TABLE walk_forward_declarations (
    configuration_id UUID PRIMARY KEY,
    strategy         TEXT NOT NULL,
    symbol           TEXT NOT NULL,
    tf               TEXT NOT NULL REFERENCES dim_timeframe (tf),
    params           JSONB NOT NULL,
    config_hash      TEXT NOT NULL,
    window_start     DATE,
    window_end       DATE,
    declared_at      TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE walk_forward_declarations IS
    'Walk-forwards declared before they were run; one later than the first trial of its strategy, symbol and tf has no effect. Never changed; docs/walk-forward.md';
COMMENT ON COLUMN walk_forward_declarations.configuration_id IS
    'That of the trial of its stitched run: follows from all that decides it but bars and code';
COMMENT ON COLUMN walk_forward_declarations.params IS
    'Values to choose from, and how they are chosen, as in trials';
COMMENT ON COLUMN walk_forward_declarations.config_hash IS
    'Hash of costs, sizing, stops, direction, funding and starting cash, as in trials';
COMMENT ON COLUMN walk_forward_declarations.declared_at IS
    'Set by the database, whatever the writer says';
CREATE INDEX walk_forward_declarations_of ON walk_forward_declarations (symbol, tf, strategy);

-- Waits for trials that are being recorded, and holds up others until it commits: a declaration
-- cannot be kept open until results are known.
CREATE FUNCTION stamp_declaration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('LOCK TABLE %I.trials IN SHARE MODE', TG_TABLE_SCHEMA);
    NEW.declared_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER walk_forward_declarations_stamped BEFORE INSERT ON walk_forward_declarations
    FOR EACH ROW EXECUTE FUNCTION stamp_declaration();

CREATE FUNCTION refuse_change_of_declaration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a declared walk-forward is never changed or removed'
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER walk_forward_declarations_immutable
    BEFORE UPDATE OR DELETE OR TRUNCATE ON walk_forward_declarations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_declaration();

ALTER TABLE walk_forward_runs ADD declared_at TIMESTAMPTZ;
COMMENT ON COLUMN walk_forward_runs.declared_at IS
    'When it was declared, before the first trial of its strategy, symbol and tf; NULL if it was not';
COMMENT ON COLUMN walk_forward_runs.n_walk_forwards IS
    'By how many walk-forwards it is judged: the distinct ones of its symbol and tf in the ledger, or those that were declared before their first trial if it is one of them';
