"""Crypto features to trusted backtests: a Dagster pipeline and its Python API."""
