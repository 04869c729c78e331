"""Research on runs: portfolios, train and test splits, significance, robustness. Pure functions.

Nothing here reads a store or decides a fill; methods that repeat a run call `simulation`.
"""
