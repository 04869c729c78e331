-- What counts for which claim: a run over a whole history is one of the sets of parameters, costs,
-- sizing, stops and directions that were tried, in whatever window; a walk-forward is one of the
-- walk-forwards, since none of its out-of-sample bars took part in what was tried in training.
ALTER TABLE trials
    ADD set_id UUID NOT NULL
        GENERATED ALWAYS AS (md5(symbol || ' ' || tf || ' ' || config_hash || ' ' || params::text)::uuid)
        STORED,
    ADD family TEXT NOT NULL
        GENERATED ALWAYS AS (CASE WHEN params ? 'chosen_by' THEN 'walk-forward' ELSE strategy END)
        STORED;
COMMENT ON COLUMN trials.set_id IS
    'Hash of symbol, tf, config_hash and params: the same in every window';
COMMENT ON COLUMN trials.family IS
    'Among what it is deflated: its strategy, or walk-forward for a stitched out-of-sample run';
CREATE INDEX trials_sets ON trials (symbol, tf, family, set_id, created_at);
