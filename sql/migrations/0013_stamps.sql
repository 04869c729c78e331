-- What a claim of before and after is compared with is set by the database, and moved by nobody:
-- gates came before results only if nobody can make the gates older or the results younger.

-- Functions that read tables name theirs, so that a table of the caller's cannot stand in for one.
CREATE FUNCTION in_this_schema(function TEXT) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp',
        function, current_schema());
END $$;

CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of %: refused, because gates are judged by what was tried before them; '
        'what was recorded is never changed', TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

-- Waits for trials that are being recorded, and holds up others until it commits: a registration
-- cannot be kept open until results are known.
CREATE OR REPLACE FUNCTION stamp_registration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE trials IN SHARE MODE;
    NEW.registered_at := clock_timestamp();
    RETURN NEW;
END $$;
SELECT in_this_schema('stamp_registration()');

CREATE FUNCTION stamp_trial() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.created_at := CURRENT_TIMESTAMP;
    RETURN NEW;
END $$;
CREATE TRIGGER trials_stamped BEFORE INSERT ON trials
    FOR EACH ROW EXECUTE FUNCTION stamp_trial();
CREATE TRIGGER trials_immutable BEFORE UPDATE OR TRUNCATE ON trials
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();
COMMENT ON COLUMN trials.created_at IS 'Set by the database, whatever the writer says';

-- A trial that is gone can be tried again as if it were new: only those of synthetic assets go.
CREATE FUNCTION keep_real_trials() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM gone WHERE NOT EXISTS (
        SELECT FROM dim_assets a WHERE a.symbol = gone.symbol AND a.is_synthetic
    )) THEN
        RAISE EXCEPTION 'DELETE of trials: refused, because a trial of an asset that is not '
            'synthetic counts for ever' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
SELECT in_this_schema('keep_real_trials()');
CREATE TRIGGER trials_kept AFTER DELETE ON trials REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION keep_real_trials();

CREATE FUNCTION keep_tried_assets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT OLD.is_synthetic AND EXISTS (SELECT FROM trials t WHERE t.symbol = OLD.symbol) THEN
        IF TG_OP = 'DELETE' OR NEW.is_synthetic OR NEW.symbol <> OLD.symbol THEN
            RAISE EXCEPTION 'asset %: the ledger has trials of it as of a real asset, so that it can '
                'be neither removed, nor renamed, nor become synthetic; give the other asset another '
                'symbol', OLD.symbol USING ERRCODE = 'restrict_violation';
        END IF;
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
SELECT in_this_schema('keep_tried_assets()');
CREATE TRIGGER dim_assets_kept BEFORE UPDATE OF symbol, is_synthetic OR DELETE ON dim_assets
    FOR EACH ROW EXECUTE FUNCTION keep_tried_assets();

CREATE TRIGGER backtest_runs_tried BEFORE UPDATE OF run_id, trial_id ON backtest_runs
    FOR EACH ROW WHEN ((OLD.run_id, OLD.trial_id) IS DISTINCT FROM (NEW.run_id, NEW.trial_id))
    EXECUTE FUNCTION refuse_rewriting();

CREATE FUNCTION first_tried(run UUID) RETURNS TIMESTAMPTZ LANGUAGE sql STABLE
    RETURN (
        SELECT min(o.created_at) FROM backtest_runs r JOIN trials t USING (trial_id)
        JOIN trials o ON (o.symbol, o.tf, o.strategy, o.params)
                       = (t.symbol, t.tf, t.strategy, t.params)
        WHERE r.run_id = run
    );
COMMENT ON FUNCTION first_tried IS
    'When the ledger first recorded a run''s parameters on its asset and timeframe, whatever the '
    'bars, window or settings; NULL for a run that is not in the ledger';

ALTER TABLE leaderboards ADD first_tried TIMESTAMPTZ;
COMMENT ON COLUMN leaderboards.first_tried IS
    'When the first of its ranked configurations was first tried, set by the database; NULL where '
    'none is ranked';
COMMENT ON COLUMN leaderboards.registered_after_results IS
    'Whether a ranked configuration was tried before its gates were registered, so that they prove '
    'nothing; set by the database';
UPDATE leaderboards b SET first_tried = (
    SELECT min(first_tried(l.run_id)) FROM leaderboard l
    WHERE l.board_id = b.board_id AND l.rank IS NOT NULL);

CREATE FUNCTION stamp_board() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    tried TIMESTAMPTZ;
    untold BOOLEAN;
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.published_at := clock_timestamp();
        NEW.first_tried := NULL;
    ELSIF (NEW.board_id, NEW.gate_set_id, NEW.published_at, NEW.first_tried,
           NEW.registered_after_results)
        IS DISTINCT FROM (OLD.board_id, OLD.gate_set_id, OLD.published_at, OLD.first_tried,
                          OLD.registered_after_results)
    THEN
        RAISE EXCEPTION 'UPDATE of leaderboards: refused, because the database says when a board was '
            'published, and whether its gates came before its results'
            USING ERRCODE = 'restrict_violation';
    END IF;
    SELECT min(at), coalesce(bool_or(at IS NULL), FALSE) INTO tried, untold
    FROM (SELECT first_tried(l.run_id) AS at FROM leaderboard l
          WHERE l.board_id = NEW.board_id AND l.rank IS NOT NULL) ranked;
    NEW.first_tried := LEAST(NEW.first_tried, tried);
    NEW.registered_after_results := NEW.registered_after_results OR untold OR EXISTS (
        SELECT FROM gate_sets g
        WHERE g.gate_set_id = NEW.gate_set_id AND NEW.first_tried < g.registered_at);
    RETURN NEW;
END $$;
SELECT in_this_schema('stamp_board()');
CREATE TRIGGER leaderboards_stamped BEFORE INSERT OR UPDATE ON leaderboards
    FOR EACH ROW EXECUTE FUNCTION stamp_board();

CREATE FUNCTION stamp_board_of_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE leaderboards SET n_ranked = n_ranked
    WHERE board_id IN (SELECT board_id FROM written);
    RETURN NULL;
END $$;
SELECT in_this_schema('stamp_board_of_rows()');
CREATE TRIGGER leaderboard_inserted AFTER INSERT ON leaderboard REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION stamp_board_of_rows();
CREATE TRIGGER leaderboard_updated AFTER UPDATE ON leaderboard REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION stamp_board_of_rows();

DROP FUNCTION in_this_schema;
