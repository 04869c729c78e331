"""What a spec leads to: a backtest, a walk-forward, a sweep, a portfolio, robustness, a refresh."""
