"""Simulation: orders from signals, costs, fills, equity, trades, metrics. Pure functions on arrays.

The only layer that imports vectorbt, and only inside functions, since that import takes seconds. It
never reads or writes a store, knows a strategy by name, or uses a bar before its close.

A batch is `n_runs` sets of signals over one panel of `n_rows` bars: arrays are
`(n_runs, n_rows)`, and a *column* is one (run, asset), numbered `run * n_assets + asset`.
"""
