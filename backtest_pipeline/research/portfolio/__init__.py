"""Portfolios of runs: weights, rebalancing, diversification."""
