"""Bars, timeframes, features, validation, partitions, errors: pure functions on arrays.

The lowest layer: it imports no other layer. Nothing here opens a file, a socket or a database, or
knows what a strategy or a backtest is.
"""
