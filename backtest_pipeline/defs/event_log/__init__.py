"""What is written to Dagster's event log, and what need not be reported to it."""
