"""Bars from outside: files, exchanges and the synthetic sample market.

A source reads, normalises stamps to `period end - 1 ms` in UTC, and hands out validated bars
with a count of all that was wrong. It does not resample, compute features or know a database.
"""
