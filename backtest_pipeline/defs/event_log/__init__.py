"""What is written to Dagster's event log, and what it need not be told."""
