"""What follows from runs: portfolios, splits, significance, robustness. Pure functions.

Nothing here reads a store or decides a fill; what repeats a run asks `simulation` to.
"""
