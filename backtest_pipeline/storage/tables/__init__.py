"""The tables of assets, features, signals, jobs and counts."""
