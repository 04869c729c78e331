"""Dagster's processes: what `up` starts, guards and restarts, and runs whose process is gone."""
