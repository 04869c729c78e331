-- How far runs can be trusted: resampled, reordered, entered at random, under other assumptions.

CREATE TABLE run_robustness (
    run_id                    UUID PRIMARY KEY REFERENCES backtest_runs (run_id) ON DELETE CASCADE,
    seed                      BIGINT NOT NULL CHECK (seed >= 0),
    draws                     INTEGER NOT NULL CHECK (draws > 0),
    fragile                   BOOLEAN,
    reasons                   TEXT[] NOT NULL,
    block_length              DOUBLE PRECISION,
    total_return_low          DOUBLE PRECISION,
    total_return_high         DOUBLE PRECISION,
    p_total_return            DOUBLE PRECISION CHECK (p_total_return BETWEEN 0 AND 1),
    sharpe_low                DOUBLE PRECISION,
    sharpe_high               DOUBLE PRECISION,
    p_sharpe                  DOUBLE PRECISION CHECK (p_sharpe BETWEEN 0 AND 1),
    drawdown_median           DOUBLE PRECISION CHECK (drawdown_median BETWEEN -1 AND 0),
    drawdown_95               DOUBLE PRECISION CHECK (drawdown_95 BETWEEN -1 AND 0),
    p_drawdown                DOUBLE PRECISION CHECK (p_drawdown BETWEEN 0 AND 1),
    reordered_drawdown_median DOUBLE PRECISION CHECK (reordered_drawdown_median BETWEEN -1 AND 0),
    reordered_drawdown_95     DOUBLE PRECISION CHECK (reordered_drawdown_95 BETWEEN -1 AND 0),
    random_fill_low           DOUBLE PRECISION,
    random_fill_high          DOUBLE PRECISION,
    random_entry_median       DOUBLE PRECISION,
    p_random_entries          DOUBLE PRECISION CHECK (p_random_entries BETWEEN 0 AND 1),
    break_even_bps            DOUBLE PRECISION CHECK (break_even_bps >= 0),
    envelope                  JSONB NOT NULL,
    undefined                 JSONB NOT NULL,
    code_version              TEXT NOT NULL,
    artifact_uri              TEXT NOT NULL
);
COMMENT ON TABLE run_robustness IS 'Robustness of runs that were assessed; docs/robustness.md';
COMMENT ON COLUMN run_robustness.draws IS 'Repetitions of each random method';
COMMENT ON COLUMN run_robustness.fragile IS
    'Whether a changed assumption turns the sign of the total return or halves a gain';
COMMENT ON COLUMN run_robustness.reasons IS 'Why it is fragile';
COMMENT ON COLUMN run_robustness.block_length IS 'Mean length of the resampling blocks in days';
COMMENT ON COLUMN run_robustness.break_even_bps IS
    'Cost per side, fee and slippage together, at which the total return is 0';
COMMENT ON COLUMN run_robustness.envelope IS
    'The run as it is, and with each assumption changed: [{"assumption", "total_return", ...}]';
COMMENT ON COLUMN run_robustness.undefined IS 'Why a number is NULL: {"number": "reason"}';
