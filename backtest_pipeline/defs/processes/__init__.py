"""Dagster's processes: what `up` starts, guards and restarts, and runs, launched or left behind."""
