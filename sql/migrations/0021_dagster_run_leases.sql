-- Runs that a command executes in its own process: Dagster cannot see that process, and would show a
-- killed one as running until its maximum runtime.
CREATE TABLE dagster_run_leases (
    dagster_run_id   TEXT PRIMARY KEY,
    command          TEXT NOT NULL,
    holder           TEXT NOT NULL,
    lease_expires_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE dagster_run_leases IS
    'Leases of Dagster runs that a command executes in its own process, which renews them; an expired one means that the process is gone, and whoever looks marks the run failed; docs/operations.md';
COMMENT ON COLUMN dagster_run_leases.command IS 'Command that executes the run';
COMMENT ON COLUMN dagster_run_leases.holder IS 'Host and process id, for messages';
COMMENT ON COLUMN dagster_run_leases.lease_expires_at IS 'By the clock of the database';
