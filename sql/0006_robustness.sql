-- How far runs can be trusted: one row per run that was put in doubt.

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
COMMENT ON TABLE run_robustness IS
    'A run resampled, reordered, refilled, entered at random and under other assumptions';
COMMENT ON COLUMN run_robustness.envelope IS
    'The run as it is, and with each assumption changed: [{"assumption", "total_return", ...}]';
COMMENT ON COLUMN run_robustness.undefined IS 'Why a number is NULL: {"number": "reason"}';
