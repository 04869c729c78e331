-- Plan books: what a strategist decides for symbols and timeframes, why it decided again, and the runs
-- that followed the decisions.

CREATE TABLE plan_books (
    book_id    INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
    symbols    TEXT[] NOT NULL CHECK (cardinality(symbols) > 0),
    timeframes TEXT[] NOT NULL CHECK (cardinality(timeframes) > 0),
    strategist TEXT NOT NULL CHECK (strategist <> ''),
    config     JSONB NOT NULL CHECK (jsonb_typeof(config) = 'object'),
    replans    JSONB NOT NULL CHECK (jsonb_typeof(replans) = 'object'),
    start      DATE,
    created_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE plan_books IS
    'Symbols at timeframes that one strategist plans for; each book owns its history of plans; docs/plans-operations.md';
COMMENT ON COLUMN plan_books.symbols IS 'Sorted, each once; one of them may not have bars yet';
COMMENT ON COLUMN plan_books.timeframes IS
    'The shortest first; one run at each of them follows the plans';
COMMENT ON COLUMN plan_books.config IS 'Options of the strategist that are not at their default';
COMMENT ON COLUMN plan_books.replans IS
    'When it is planned again, the judge included: settings that are not at their default';
COMMENT ON COLUMN plan_books.start IS
    'First day that the past before the book was added is planned for; NULL: all of it';

CREATE TABLE plans (
    book_id             INTEGER NOT NULL REFERENCES plan_books (book_id) ON DELETE CASCADE,
    sequence            INTEGER NOT NULL CHECK (sequence > 0),
    follows             INTEGER GENERATED ALWAYS AS (nullif(sequence - 1, 0)) STORED,
    plan_id             TEXT NOT NULL CHECK (plan_id <> ''),
    plan                JSONB NOT NULL CHECK (jsonb_typeof(plan) = 'object'),
    generated_at        TIMESTAMPTZ NOT NULL,
    generated_at_actual TIMESTAMPTZ NOT NULL,
    effective_ts        TIMESTAMPTZ NOT NULL,
    valid_until         TIMESTAMPTZ NOT NULL,
    replan_reasons      TEXT[] NOT NULL CHECK (
        cardinality(replan_reasons) > 0
        AND replan_reasons <@ ARRAY['initial_plan', 'new_day', 'judge_triggered', 'plan_expired',
                                    'data_restated', 'new_asset', 'manual']
    ),
    origin              TEXT NOT NULL CHECK (origin <> ''),
    origin_detail       TEXT NOT NULL DEFAULT '',
    prompt_hash         TEXT CHECK (prompt_hash ~ '^[0-9a-f]{32}$'),
    response_hash       TEXT CHECK (response_hash ~ '^[0-9a-f]{32}$'),
    transcript          TEXT CHECK (transcript ~ '^[0-9a-f]{64}$'),
    model               TEXT,
    asked_at            TIMESTAMPTZ NOT NULL,
    judged_at           TIMESTAMPTZ,
    suppressed          INTEGER NOT NULL DEFAULT 0 CHECK (suppressed >= 0),
    suppressed_reasons  JSONB NOT NULL DEFAULT '{}'
        CHECK (jsonb_typeof(suppressed_reasons) = 'object'),
    data                JSONB NOT NULL CHECK (jsonb_typeof(data) = 'object'),
    PRIMARY KEY (book_id, sequence),
    UNIQUE (book_id, effective_ts),
    FOREIGN KEY (book_id, follows) REFERENCES plans (book_id, sequence),
    CHECK (generated_at <= effective_ts AND effective_ts < valid_until),
    CHECK (asked_at >= generated_at),
    CHECK (response_hash IS NULL OR prompt_hash IS NOT NULL)
);
COMMENT ON TABLE plans IS 'The history of plans of each book';
COMMENT ON COLUMN plans.sequence IS '1, 2, 3 ... without gaps within the book';
COMMENT ON COLUMN plans.follows IS 'Sequence of the plan before, which must exist; NULL for the first';
COMMENT ON COLUMN plans.plan_id IS 'Follows from the content of the plan';
COMMENT ON COLUMN plans.generated_at IS 'The last instant whose data it saw, market time';
COMMENT ON COLUMN plans.generated_at_actual IS 'When it was produced, wall clock';
COMMENT ON COLUMN plans.effective_ts IS 'From when it is followed, market time';
COMMENT ON COLUMN plans.valid_until IS
    'No entries after it, market time; a replan that changes nothing moves it on';
COMMENT ON COLUMN plans.origin IS
    'How it came about: at the first answer of the strategist, after retries, as a fallback to the plan before, or from a recorded transcript';
COMMENT ON COLUMN plans.origin_detail IS 'Why it was retried or fell back, in words';
COMMENT ON COLUMN plans.prompt_hash IS
    'Hash of the prompt of a model; NULL where no model was asked';
COMMENT ON COLUMN plans.response_hash IS 'Hash of the responses of the model';
COMMENT ON COLUMN plans.transcript IS
    'sha256 of the recorded conversation, the artifact transcripts/<sha256>.json; NULL where no model was asked';
COMMENT ON COLUMN plans.model IS 'Provider and model that was asked; NULL where none was';
COMMENT ON COLUMN plans.asked_at IS
    'Last instant at which a plan was asked for, market time: its own, or that of the last suppressed replan';
COMMENT ON COLUMN plans.judged_at IS
    'Last such instant at which the judge asked, market time; NULL where it has not';
COMMENT ON COLUMN plans.suppressed_reasons IS 'How many of those had which reason';
COMMENT ON COLUMN plans.suppressed IS 'Replans after this plan that would have changed nothing';
COMMENT ON COLUMN plans.data IS
    'Generation of each dataset that was known, {"asset|timeframe": "generation"}: another one says that history was restated, a new key that an asset has its first bars';

CREATE TABLE replan_requests (
    request_id   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    book_id      INTEGER NOT NULL REFERENCES plan_books (book_id) ON DELETE CASCADE,
    reason       TEXT NOT NULL CHECK (reason IN (
        'initial_plan', 'new_day', 'judge_triggered', 'plan_expired', 'data_restated', 'new_asset',
        'manual'
    )),
    trigger_key  TEXT NOT NULL CHECK (trigger_key <> ''),
    detail       TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    requested_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    status       TEXT NOT NULL DEFAULT 'waiting'
        CHECK (status IN ('waiting', 'planned', 'suppressed')),
    attempt      INTEGER NOT NULL DEFAULT 1 CHECK (attempt > 0),
    retry_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
    error        TEXT,
    dagster_run_id TEXT,
    completed_at TIMESTAMPTZ,
    sequence     INTEGER,
    origin       TEXT,
    origin_detail TEXT,
    transcript   TEXT CHECK (transcript ~ '^[0-9a-f]{64}$'),
    UNIQUE (book_id, reason, trigger_key),
    FOREIGN KEY (book_id, sequence) REFERENCES plans (book_id, sequence) ON DELETE CASCADE,
    CHECK ((status = 'waiting') = (completed_at IS NULL)),
    CHECK ((status = 'waiting') = (sequence IS NULL))
);
COMMENT ON TABLE replan_requests IS
    'Why a book has to be planned again: one row for each trigger, whoever saw it and however often; it waits until a replan has answered it';
COMMENT ON COLUMN replan_requests.trigger_key IS
    'What triggered it: the day, the plan that has expired, the generation of the data, the asset, or a key of the user''s';
COMMENT ON COLUMN replan_requests.detail IS 'The trigger in words, with its numbers';
COMMENT ON COLUMN replan_requests.status IS
    'waiting; planned: a plan answers it; suppressed: the replan would have changed nothing';
COMMENT ON COLUMN replan_requests.attempt IS
    'Number of the attempt that is due or under way; part of the run key of its Dagster run';
COMMENT ON COLUMN replan_requests.retry_at IS 'Not before, after attempts that failed';
COMMENT ON COLUMN replan_requests.error IS 'How the attempt before ended; NULL for the first';
COMMENT ON COLUMN replan_requests.dagster_run_id IS
    'Dagster run that answered it; NULL where a command did';
COMMENT ON COLUMN replan_requests.sequence IS
    'Plan that answers it; where it was suppressed, the one that stays in force';
COMMENT ON COLUMN replan_requests.origin IS
    'How the proposal that answered it came about, as in plans, also where it was suppressed';
COMMENT ON COLUMN replan_requests.origin_detail IS 'As in plans';
COMMENT ON COLUMN replan_requests.transcript IS 'As in plans';
CREATE INDEX replan_requests_waiting ON replan_requests (book_id, request_id)
    WHERE status = 'waiting';

CREATE TABLE model_usage (
    day           DATE NOT NULL,
    model         TEXT NOT NULL,
    calls         INTEGER NOT NULL CHECK (calls >= 0),
    tokens        BIGINT NOT NULL CHECK (tokens >= 0),
    cost_usd      DOUBLE PRECISION NOT NULL CHECK (cost_usd >= 0),
    updated_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (day, model)
);
COMMENT ON TABLE model_usage IS
    'What language models were asked for plans, by UTC day: the budgets of a day are held against it';
COMMENT ON COLUMN model_usage.tokens IS 'Of prompts and responses together';

-- Runs of books: a run of a strategy has one asset and a preset; a run of a book has neither, but
-- the symbols of the book.
ALTER TABLE backtest_runs
    ALTER COLUMN signal_id DROP NOT NULL,
    ALTER COLUMN id DROP NOT NULL,
    ADD COLUMN book TEXT,
    ADD COLUMN symbols TEXT[],
    ADD CONSTRAINT backtest_runs_of_books CHECK (
        CASE WHEN split = 'planned'
            THEN book IS NOT NULL AND cardinality(symbols) > 0 AND signal_id IS NULL
                AND (id IS NULL) = (cardinality(symbols) > 1)
            ELSE book IS NULL AND symbols IS NULL AND signal_id IS NOT NULL AND id IS NOT NULL
        END
    );
COMMENT ON COLUMN backtest_runs.signal_id IS
    'The preset; NULL for a run that follows the plans of a book';
COMMENT ON COLUMN backtest_runs.signal_name IS 'The preset''s name, or the book''s';
COMMENT ON COLUMN backtest_runs.strategy IS
    'The strategy; strategist:<name> for a run that follows the plans of a book';
COMMENT ON COLUMN backtest_runs.id IS 'The asset; NULL for a book of several symbols';
COMMENT ON COLUMN backtest_runs.symbol IS
    'The asset''s symbol; of a book of several their symbols joined by +, from six on their number and a hash';
COMMENT ON COLUMN backtest_runs.split IS
    'full: all bars of the window; walk_forward: the out-of-sample bars of a walk-forward; planned: all bars, under the plans of a book';
COMMENT ON COLUMN backtest_runs.book IS
    'The plan book whose plans it followed, see plan_log; NULL for a run of a strategy';
COMMENT ON COLUMN backtest_runs.symbols IS
    'Symbols that share the account of a planned run; NULL for a run of a strategy';
CREATE UNIQUE INDEX backtest_runs_current_of_books ON backtest_runs (book, tf)
    WHERE is_current AND book IS NOT NULL;
CREATE INDEX backtest_runs_of_symbols ON backtest_runs USING gin (symbols)
    WHERE symbols IS NOT NULL;
CREATE OR REPLACE VIEW visible_runs AS SELECT * FROM backtest_runs WHERE deleting_since IS NULL;

CREATE FUNCTION are_synthetic(symbols TEXT[]) RETURNS BOOLEAN LANGUAGE sql STABLE
    RETURN EXISTS (SELECT FROM dim_assets a WHERE a.symbol = ANY (symbols) AND a.is_synthetic);
COMMENT ON FUNCTION are_synthetic IS
    'Whether any of these symbols is an asset whose bars are of no real market';

ALTER TABLE backtest_trades
    ADD COLUMN symbol TEXT,
    ADD COLUMN trigger_id TEXT,
    ADD COLUMN category TEXT,
    ADD COLUMN exit_trigger_id TEXT,
    ADD COLUMN is_part BOOLEAN,
    ADD CONSTRAINT backtest_trades_of_plans CHECK (
        num_nulls(symbol, trigger_id, category, is_part) IN (0, 4)
        AND (exit_trigger_id IS NULL OR trigger_id IS NOT NULL)
    );
COMMENT ON COLUMN backtest_trades.symbol IS
    'The asset that was traded, where the run followed plans; else the run''s own, and NULL';
COMMENT ON COLUMN backtest_trades.trigger_id IS
    'Trigger of the plan that entered; NULL where the run followed no plans';
COMMENT ON COLUMN backtest_trades.exit_trigger_id IS
    'Trigger that asked for the exit; NULL for a stop, a liquidation, or a trade that is still open';
COMMENT ON COLUMN backtest_trades.is_part IS
    'Whether a part of the position went on after it; NULL where the run followed no plans';
COMMENT ON COLUMN backtest_trades.category IS
    'Category of that trigger; NULL where the run followed no plans';

ALTER TABLE plan_log
    ADD COLUMN follows INTEGER GENERATED ALWAYS AS (nullif(replan_sequence - 1, 0)) STORED,
    ADD COLUMN valid_until TIMESTAMPTZ NOT NULL,
    ADD COLUMN origin TEXT NOT NULL CHECK (origin <> ''),
    ADD COLUMN transcript TEXT CHECK (transcript ~ '^[0-9a-f]{64}$'),
    ADD COLUMN model TEXT,
    ADD COLUMN suppressed INTEGER NOT NULL DEFAULT 0 CHECK (suppressed >= 0),
    DROP CONSTRAINT plan_log_prompt_hash_check,
    DROP CONSTRAINT plan_log_response_hash_check,
    ADD CONSTRAINT plan_log_prompt_hash_check CHECK (prompt_hash ~ '^[0-9a-f]{32}$'),
    ADD CONSTRAINT plan_log_response_hash_check CHECK (response_hash ~ '^[0-9a-f]{32}$'),
    ADD CONSTRAINT plan_log_without_gaps
        FOREIGN KEY (run_id, follows) REFERENCES plan_log (run_id, replan_sequence),
    ADD CONSTRAINT plan_log_in_order CHECK (effective_ts < valid_until);
COMMENT ON COLUMN plan_log.follows IS
    'Sequence of the plan before, which must exist; NULL for the first';
COMMENT ON COLUMN plan_log.valid_until IS 'No entries after it, market time';
COMMENT ON COLUMN plan_log.origin IS 'As in plans';
COMMENT ON COLUMN plan_log.prompt_hash IS 'As in plans';
COMMENT ON COLUMN plan_log.response_hash IS 'As in plans';
COMMENT ON COLUMN plan_log.transcript IS 'As in plans';
COMMENT ON COLUMN plan_log.model IS 'As in plans';
COMMENT ON COLUMN plan_log.suppressed IS 'Replans after this plan that would have changed nothing';

CREATE VIEW block_causes AS
    SELECT b.run_id, b.reason, b.class, count(*) AS n,
           count(*)::float8 / sum(count(*)) OVER (PARTITION BY b.run_id)::float8 AS share,
           min(b.ts) AS first_ts, max(b.ts) AS last_ts,
           (array_agg(b.detail ORDER BY b.event_no DESC))[1] AS newest_detail
    FROM block_events b JOIN visible_runs r USING (run_id)
    GROUP BY b.run_id, b.reason, b.class;
COMMENT ON VIEW block_causes IS 'Blocked entries of each run by reason';
COMMENT ON COLUMN block_causes.n IS 'Number of blocked entries';
COMMENT ON COLUMN block_causes.share IS 'Of all blocked entries of the run, fraction';
COMMENT ON COLUMN block_causes.newest_detail IS 'Detail of the newest of them, with its numbers';

CREATE VIEW replan_cadence AS
    SELECT book, run_id, replan_sequence, plan_id, effective_ts,
           effective_ts - lag(effective_ts) OVER (
               PARTITION BY book, run_id ORDER BY replan_sequence) AS since_previous,
           replan_reasons, suppressed
    FROM (
        SELECT b.name AS book, NULL::uuid AS run_id, p.sequence AS replan_sequence, p.plan_id,
               p.effective_ts, p.replan_reasons, p.suppressed
        FROM plans p JOIN plan_books b USING (book_id)
        UNION ALL
        SELECT r.book, l.run_id, l.replan_sequence, l.plan_id, l.effective_ts, l.replan_reasons,
               l.suppressed
        FROM plan_log l JOIN visible_runs r USING (run_id)
    ) replans;
COMMENT ON VIEW replan_cadence IS
    'Replans of each book (run_id is NULL) and of each run that followed plans: when, why, and how long after the one before';
COMMENT ON COLUMN replan_cadence.since_previous IS
    'Market time since the plan before took effect; NULL for the first';
COMMENT ON COLUMN replan_cadence.suppressed IS
    'Replans after this plan that would have changed nothing';
