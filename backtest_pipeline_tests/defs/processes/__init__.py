"""Dagster's processes, and runs whose process is gone."""
