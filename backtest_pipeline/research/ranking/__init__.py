"""Ranking runs with regard to the number of trials behind them."""
