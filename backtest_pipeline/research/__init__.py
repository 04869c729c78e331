"""What follows from many runs: portfolios, splits of history, significance. Pure functions.

Nothing here simulates a fill or reads a store; it works on returns and equity curves that exist.
"""
