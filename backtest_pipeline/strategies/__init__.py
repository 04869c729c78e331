"""One file per strategy: features to entries and exits, pure.

A strategy sees the features of a panel and its parameters, and answers with boolean arrays as
long as the panel: what it wants at the close of each bar, using nothing after that bar and
nothing of another asset. It does no I/O and knows neither money nor costs. A new strategy is
one file here (found by its `STRATEGY`) and one row in `dim_signals`.
"""
