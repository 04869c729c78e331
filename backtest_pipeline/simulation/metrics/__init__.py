"""Metrics of runs, their significance, and benchmarks."""
