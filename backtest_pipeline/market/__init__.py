"""Bars, timeframes, features, validation, partitions, errors: pure functions on arrays.

The lowest layer: it imports no other. Nothing here opens a file, a socket or a database, and
nothing here knows what a strategy or a backtest is.
"""
