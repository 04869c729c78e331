"""What follows from many runs: portfolios of them. Pure functions on arrays.

Nothing here simulates a fill or reads a store; it works on equity curves that exist.
"""
