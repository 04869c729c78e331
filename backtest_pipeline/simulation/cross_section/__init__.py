"""A book that ranks its assets: scores to weights, weights to trades."""
