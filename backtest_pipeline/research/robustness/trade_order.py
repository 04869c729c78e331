"""The same trades in random order: the drawdowns that the order alone can cause."""

from __future__ import annotations

import numpy as np

from backtest_pipeline.research.robustness.draws import Purpose, generator, require_draws
from backtest_pipeline.simulation.metrics.equity import drawdowns
from backtest_pipeline.simulation.trades import Trades


def trade_returns(trades: Trades, initial_cash: float) -> np.ndarray:
    """Profit of each trade as a fraction of the equity before it.

    Fractions can be reordered; profits in cash cannot, since a trade after winners is larger.

    Args:
        trades: trades of one run on one asset, which do not overlap.
        initial_cash: equity before the first trade.

    Returns:
        float64 `(n_trades,)`, compounding to the final equity; 0 after a total loss.
    """
    after = initial_cash + np.cumsum(trades.pnl)
    before = np.concatenate(([initial_cash], after[:-1]))
    return np.divide(trades.pnl, before, out=np.zeros(len(trades)), where=before > 0)


def trade_paths(returns: np.ndarray) -> np.ndarray:
    """Equity before the first trade and after each, `(n_orders, n_trades + 1)`, starting at 1.

    Args:
        returns: float64 `(n_orders, n_trades)`, fractions of the equity before each trade.
    """
    paths = np.ones((returns.shape[0], returns.shape[1] + 1))
    np.cumprod(1.0 + returns, axis=1, out=paths[:, 1:])
    return paths


def max_drawdowns(paths: np.ndarray) -> np.ndarray:
    """Maximum drawdown of each path, float64 `(n_paths,)`, fractions, 0 or negative."""
    return drawdowns(paths, np.array([0, paths.shape[1]])).min(axis=1)


def reordered_drawdowns(returns: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Maximum drawdowns of the trades in random orders, measured at the end of each trade.

    Reordering changes the path only. The final equity is the product of the same factors, and the
    mean, the standard deviation and so the Sharpe ratio are the same in any order: for intervals of
    those, resample (see `bootstrap`).

    Args:
        returns: float64 `(n_trades,)`, from `trade_returns`.
        draws: number of random orders.
        seed: random seed.

    Returns:
        float64 `(draws,)`, fractions, 0 or negative.

    Raises:
        InvalidInput: for a number of draws or a seed out of range.
    """
    require_draws(draws, seed)
    orders = [
        generator(seed, Purpose.TRADE_ORDER, draw).permutation(returns) for draw in range(draws)
    ]
    return max_drawdowns(trade_paths(np.stack(orders)))
