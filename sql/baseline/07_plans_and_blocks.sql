-- Entries that a run did not make, and the plans that it followed.

CREATE TABLE block_events (
    run_id     UUID NOT NULL REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    event_no   INTEGER NOT NULL CHECK (event_no > 0),
    ts         TIMESTAMPTZ NOT NULL,
    symbol     TEXT NOT NULL,
    timeframe  TEXT NOT NULL REFERENCES dim_timeframe (tf),
    trigger_id TEXT,
    side       TEXT NOT NULL CHECK (side IN ('long', 'short')),
    qty        DOUBLE PRECISION CHECK (qty BETWEEN 0 AND 1e300),
    reason     TEXT NOT NULL CHECK (reason IN (
        'daily_cap', 'symbol_veto', 'risk', 'risk_budget', 'direction', 'category', 'plan_limit',
        'expression_error', 'missing_indicator', 'timeframe_cap', 'session_cap', 'trigger_load',
        'min_hold', 'min_flat', 'insufficient_cash', 'emergency_exit_veto',
        'pending_entry_conflict', 'priority_skip', 'other'
    )),
    class      TEXT NOT NULL CHECK (class IN ('risk_valid', 'quality_gate', 'infra', 'unknown')),
    detail     TEXT NOT NULL,
    PRIMARY KEY (run_id, event_no)
);
COMMENT ON TABLE block_events IS
    'Blocked entries, and why; results.limit_enforcement of the run counts them';
COMMENT ON COLUMN block_events.event_no IS '1, 2, 3 ... by time within the run';
COMMENT ON COLUMN block_events.ts IS 'Close stamp of the bar at whose open the entry was due';
COMMENT ON COLUMN block_events.trigger_id IS
    'Trigger of the plan; NULL where the run follows a strategy and no plan';
COMMENT ON COLUMN block_events.qty IS
    'Units that the sizing wanted; NULL where the sizing was undefined';
CREATE INDEX block_events_reason ON block_events (reason, run_id);

CREATE TABLE plan_log (
    run_id              UUID NOT NULL REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    replan_sequence     INTEGER NOT NULL CHECK (replan_sequence > 0),
    plan_id             TEXT NOT NULL CHECK (plan_id <> ''),
    generated_at_actual TIMESTAMPTZ NOT NULL,
    effective_ts        TIMESTAMPTZ NOT NULL,
    replan_reasons      TEXT[] NOT NULL CHECK (
        cardinality(replan_reasons) > 0
        AND replan_reasons <@ ARRAY['initial_plan', 'new_day', 'judge_triggered', 'plan_expired',
                                    'data_restated', 'new_asset', 'manual']
    ),
    plan                JSONB NOT NULL CHECK (jsonb_typeof(plan) = 'object'),
    prompt_hash         TEXT CHECK (prompt_hash ~ '^[0-9a-f]{64}$'),
    response_hash       TEXT CHECK (response_hash ~ '^[0-9a-f]{64}$'),
    PRIMARY KEY (run_id, replan_sequence),
    CHECK (response_hash IS NULL OR prompt_hash IS NOT NULL)
);
COMMENT ON TABLE plan_log IS 'The plans that a run followed, one after the other';
COMMENT ON COLUMN plan_log.replan_sequence IS '1, 2, 3 ... without gaps within the run';
COMMENT ON COLUMN plan_log.generated_at_actual IS 'When the plan was produced, wall clock';
COMMENT ON COLUMN plan_log.effective_ts IS 'From when it was followed, in the time of the market';
COMMENT ON COLUMN plan_log.prompt_hash IS
    'sha256 of the prompt of a model; NULL where no model wrote the plan';
COMMENT ON COLUMN plan_log.response_hash IS 'sha256 of the response of the model';
