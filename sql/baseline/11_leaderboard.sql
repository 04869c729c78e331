-- Boards of runs, the gates that were registered before the results, and how often the pipeline
-- finds significance where there is none.

CREATE TABLE gate_sets (
    gate_set_id   TEXT PRIMARY KEY GENERATED ALWAYS AS (md5(gates::text)) STORED,
    name          TEXT NOT NULL UNIQUE,
    gates         JSONB NOT NULL CHECK (jsonb_typeof(gates) = 'array'),
    registered_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE gate_sets IS
    'Bounds that runs are judged by: [{"name", "metric", "at_least" or "at_most"}]; never changed';
COMMENT ON COLUMN gate_sets.registered_at IS 'Set by the database, whatever the writer says';

CREATE FUNCTION stamp_registration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.registered_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER gate_sets_registered BEFORE INSERT ON gate_sets
    FOR EACH ROW EXECUTE FUNCTION stamp_registration();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a registered gate set is never changed or removed; register another one'
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER gate_sets_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON gate_sets
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Registered here, a new store has them before it has its first run.
INSERT INTO gate_sets (name, gates) VALUES ('default', '[
    {"name": "trades",       "metric": "trade_count",         "at_least": 30},
    {"name": "days",         "metric": "n_days",              "at_least": 365},
    {"name": "drawdown",     "metric": "max_drawdown",        "at_least": -0.5},
    {"name": "costs",        "metric": "cost_share",          "at_most": 0.5},
    {"name": "significance", "metric": "dsr_across_families", "at_least": 0.95}
]');

CREATE TABLE leaderboards (
    board_id                 TEXT PRIMARY KEY,
    gate_set_id              TEXT NOT NULL REFERENCES gate_sets (gate_set_id),
    registered_after_results BOOLEAN NOT NULL,
    n_ranked                 INTEGER NOT NULL CHECK (n_ranked >= 0),
    n_passed                 INTEGER NOT NULL CHECK (n_passed BETWEEN 0 AND n_ranked),
    code_version             TEXT NOT NULL,
    published_at             TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE leaderboards IS 'The last boards that were published; their rows: leaderboard';
COMMENT ON COLUMN leaderboards.board_id IS
    'Follows from the runs, the gates, the code and the counts of the ledger';
COMMENT ON COLUMN leaderboards.registered_after_results IS
    'Whether a ranked configuration was tried before its gates were registered: such gates prove '
    'nothing';
COMMENT ON COLUMN leaderboards.n_passed IS 'Ranked runs that pass all gates';

-- Without a reference to backtest_runs: a board stays as it was when its runs are removed.
CREATE TABLE leaderboard (
    board_id            TEXT NOT NULL REFERENCES leaderboards (board_id) ON DELETE CASCADE,
    run_id              UUID NOT NULL,
    rank                INTEGER CHECK (rank > 0),
    unranked            TEXT,
    signal_name         TEXT NOT NULL,
    family              TEXT NOT NULL,
    symbol              TEXT NOT NULL,
    tf                  TEXT NOT NULL,
    dsr                 DOUBLE PRECISION CHECK (dsr BETWEEN 0 AND 1),
    dsr_effective       DOUBLE PRECISION CHECK (dsr_effective BETWEEN 0 AND 1),
    dsr_across_families DOUBLE PRECISION CHECK (dsr_across_families BETWEEN 0 AND 1),
    psr                 DOUBLE PRECISION CHECK (psr BETWEEN 0 AND 1),
    n_trials            INTEGER CHECK (n_trials > 0),
    n_trials_effective  DOUBLE PRECISION CHECK (n_trials_effective >= 1),
    n_families          INTEGER CHECK (n_families > 0),
    n_days              INTEGER,
    cost_share          DOUBLE PRECISION,
    scores              JSONB NOT NULL,
    gates               JSONB NOT NULL,
    passed              BOOLEAN NOT NULL,
    undefined           TEXT[] NOT NULL,
    PRIMARY KEY (board_id, run_id),
    UNIQUE (board_id, rank),
    CHECK ((rank IS NULL) = (unranked IS NOT NULL))
);
COMMENT ON TABLE leaderboard IS 'Runs by rank on each board; docs/leaderboard.md';
COMMENT ON COLUMN leaderboard.unranked IS 'Why a run has no rank';
COMMENT ON COLUMN leaderboard.family IS 'The strategy, with all its parameters';
COMMENT ON COLUMN leaderboard.n_trials IS
    'Configurations of the strategy in the ledger, over all assets and timeframes';
COMMENT ON COLUMN leaderboard.n_families IS 'Strategies in the ledger';
COMMENT ON COLUMN leaderboard.n_days IS 'Daily returns that the Sharpe ratio was measured on';
COMMENT ON COLUMN leaderboard.cost_share IS 'costs / (profit + costs)';
COMMENT ON COLUMN leaderboard.scores IS 'Scores between 0 and 1, by scheme';
COMMENT ON COLUMN leaderboard.gates IS 'Whether the run passes each gate, by name';
COMMENT ON COLUMN leaderboard.undefined IS
    'Metrics that are NULL: they count 0 in a score and pass no gate';

CREATE TABLE negative_controls (
    control_id      TEXT NOT NULL,
    world           TEXT NOT NULL CHECK (world IN ('random_walk', 'shuffled_bars')),
    -- what was searched
    seed            BIGINT NOT NULL CHECK (seed >= 0),
    n_bars          INTEGER NOT NULL,
    n_assets        INTEGER NOT NULL,
    n_trials        INTEGER NOT NULL,
    gate_set_id     TEXT NOT NULL REFERENCES gate_sets (gate_set_id),
    code_version    TEXT NOT NULL,
    -- searches
    n_searches      INTEGER NOT NULL CHECK (n_searches > 0),
    n_naive         INTEGER NOT NULL CHECK (n_naive BETWEEN 0 AND n_searches),
    n_in_family     INTEGER NOT NULL CHECK (n_in_family BETWEEN 0 AND n_searches),
    n_significant   INTEGER NOT NULL CHECK (n_significant BETWEEN 0 AND n_searches),
    n_passed        INTEGER NOT NULL CHECK (n_passed BETWEEN 0 AND n_searches),
    rate            DOUBLE PRECISION NOT NULL CHECK (rate BETWEEN 0 AND 1),
    upper_bound     DOUBLE PRECISION NOT NULL CHECK (upper_bound BETWEEN rate AND 1),
    -- best runs
    n_families      INTEGER NOT NULL CHECK (n_families > 0),
    n_run           INTEGER NOT NULL CHECK (n_run BETWEEN 0 AND n_families),
    n_run_effective INTEGER NOT NULL CHECK (n_run_effective BETWEEN 0 AND n_families),
    run_rate        DOUBLE PRECISION NOT NULL CHECK (run_rate BETWEEN 0 AND 1),
    -- walk-forwards
    n_walks         INTEGER NOT NULL CHECK (n_walks >= 0),
    n_walks_passed  INTEGER NOT NULL CHECK (n_walks_passed BETWEEN 0 AND n_walks),
    walk_rate       DOUBLE PRECISION NOT NULL CHECK (walk_rate BETWEEN 0 AND 1),
    created_at      TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (control_id, world)
);
COMMENT ON TABLE negative_controls IS
    'Searches in worlds without an edge, and how many found significance; docs/leaderboard.md';
COMMENT ON COLUMN negative_controls.n_assets IS 'Stored assets that the worlds are made after';
COMMENT ON COLUMN negative_controls.n_trials IS 'Combinations of parameters per search';
COMMENT ON COLUMN negative_controls.n_naive IS 'Searches whose best run has a PSR of at least 0.95';
COMMENT ON COLUMN negative_controls.n_in_family IS
    'Searches with a run whose DSR in its family is at least 0.95';
COMMENT ON COLUMN negative_controls.n_significant IS
    'Searches with a run whose DSR across families is at least 0.95';
COMMENT ON COLUMN negative_controls.n_passed IS 'Searches with a run that passes all gates';
COMMENT ON COLUMN negative_controls.rate IS 'n_significant / n_searches';
COMMENT ON COLUMN negative_controls.upper_bound IS 'One-sided 95 % confidence bound of rate';
COMMENT ON COLUMN negative_controls.n_families IS 'Strategies, each counted once for each world';
COMMENT ON COLUMN negative_controls.n_run IS
    'Of n_families, those whose best run has a dsr of at least 0.95, computed as for stored runs';
COMMENT ON COLUMN negative_controls.n_run_effective IS 'The same by dsr_effective';
COMMENT ON COLUMN negative_controls.run_rate IS
    'The larger of n_run and n_run_effective, over n_families';
COMMENT ON COLUMN negative_controls.walk_rate IS 'n_walks_passed / n_walks; 0 where there was none';
