-- Every version of a user's own strategy is one of those that were tried: whoever edits a rule twenty
-- times has chosen among twenty. The versions of shipped strategies are declared by the package, and
-- their sets stay what they were. Rows from before get the hash at the end of their code_version;
-- changing the rows themselves is refused, so the column is generated for them, and plain afterwards.
ALTER TABLE trials ADD strategy_version TEXT GENERATED ALWAYS AS (
    CASE WHEN strategy NOT IN (
        'atr_breakout', 'bollinger_revert', 'ema_crossover', 'macd_crossover', 'rsi_mean_revert'
    ) THEN substring(code_version FROM ' ([0-9a-f]{16})$') END) STORED;
ALTER TABLE trials ALTER strategy_version DROP EXPRESSION;
COMMENT ON COLUMN trials.strategy_version IS
    'Hash of the code or rules of a user''s own strategy; NULL for a shipped one';

ALTER TABLE trials DROP set_id;
ALTER TABLE trials ADD set_id UUID NOT NULL GENERATED ALWAYS AS (md5(
    symbol || ' ' || tf || ' ' || config_hash || ' ' || params::text
    || coalesce(' ' || strategy_version, ''))::uuid) STORED;
COMMENT ON COLUMN trials.set_id IS
    'Hash of symbol, tf, config_hash, params and strategy_version: the same in every window';
CREATE INDEX trials_sets ON trials (symbol, tf, family, set_id, created_at);
