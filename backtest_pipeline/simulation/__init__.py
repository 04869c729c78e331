"""Orders from signals, costs, fills, equity, trades, metrics: pure functions on arrays.

The only layer that imports vectorbt, and only inside functions, because that import takes
seconds. What it never does: read or write a store, know a strategy by name, or look at a bar
before the bar is closed.

A batch is `n_runs` sets of signals over one panel of `n_rows` bars: arrays are
`(n_runs, n_rows)`, and a *column* is one (run, asset), numbered `run * n_assets + asset`.
"""
