"""The same trades in another order: what drawdowns luck alone could have made of them."""

from __future__ import annotations

import numpy as np

from backtest_pipeline.research.robustness.draws import Purpose, generator, require_draws
from backtest_pipeline.simulation.metrics.equity import drawdowns
from backtest_pipeline.simulation.trades import Trades


def trade_returns(trades: Trades, initial_cash: float) -> np.ndarray:
    """What each trade made of the equity before it, as a fraction of that equity.

    Fractions can be put in another order; amounts of money cannot, since a later trade is larger
    where the ones before it won.

    Args:
        trades: of one run on one asset, so that one ends before the next begins.
        initial_cash: equity before the first.

    Returns:
        float64 `(n_trades,)`; their growth multiplies to the final equity. 0 after a total loss.
    """
    after = initial_cash + np.cumsum(trades.pnl)
    before = np.concatenate(([initial_cash], after[:-1]))
    return np.divide(trades.pnl, before, out=np.zeros(len(trades)), where=before > 0)


def trade_paths(returns: np.ndarray) -> np.ndarray:
    """Equity before the first and after each trade, `(n_orders, n_trades + 1)`, starting at 1.

    Args:
        returns: float64 `(n_orders, n_trades)`.
    """
    paths = np.ones((returns.shape[0], returns.shape[1] + 1))
    np.cumprod(1.0 + returns, axis=1, out=paths[:, 1:])
    return paths


def deepest(paths: np.ndarray) -> np.ndarray:
    """Maximum drawdown of each path, `(n_paths,)`, fractions at most 0."""
    return drawdowns(paths, np.array([0, paths.shape[1]])).min(axis=1)


def reordered_drawdowns(returns: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Maximum drawdowns of the trades in random orders, seen at the trades' ends.

    The order changes the path and nothing else: the final value is the product of the same
    factors, and mean and deviation of the returns, so their Sharpe ratio, are the same in every
    order. Whoever wants an interval for those must resample (see `bootstrap`), not reorder.

    Args:
        returns: float64 `(n_trades,)`, from `trade_returns`.
        draws: orders.
        seed: of the random numbers.

    Returns:
        float64 `(draws,)`, fractions at most 0.

    Raises:
        InvalidInput: without draws.
    """
    require_draws(draws, seed)
    orders = [
        generator(seed, Purpose.TRADE_ORDER, draw).permutation(returns) for draw in range(draws)
    ]
    return deepest(trade_paths(np.stack(orders)))
