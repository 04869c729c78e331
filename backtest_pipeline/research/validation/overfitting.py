"""How likely it is that choosing the best backtest chose luck: PBO by cross-validation.

Combinatorially symmetric cross-validation (CSCV) cuts the history into an even number of blocks,
and for every way of taking half of them looks for the best strategy in that half and for its rank
in the other half. A choice that carries over keeps its rank; one that was fitted to noise lands
anywhere.

Source: Bailey, Borwein, Lopez de Prado and Zhu 2017, "The Probability of Backtest Overfitting",
Journal of Computational Finance 20 (4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from backtest_pipeline.market.compiled import compiled
from backtest_pipeline.market.errors import InvalidInput

_MOST_BLOCKS = 24  # 2.7 million combinations


@dataclass(frozen=True)
class CrossValidation:
    """What became of the best strategy of each half, over all `n` ways of taking half the blocks.

    Attributes:
        logits: float64 `(n,)`, ln(w / (1 - w)) where w is the rank out of sample of the strategy
            chosen in sample, over the number of strategies + 1 (the best has the highest rank).
        in_sample: float64 `(n,)`, Sharpe ratio per period of the chosen one in its half.
        out_of_sample: float64 `(n,)`, its Sharpe ratio per period in the other half.
    """

    logits: np.ndarray
    in_sample: np.ndarray
    out_of_sample: np.ndarray

    @property
    def probability_of_overfitting(self) -> float:
        """Share of the choices that do no better than the median out of sample (logits <= 0)."""
        return float((self.logits <= 0).mean())

    @property
    def probability_of_loss(self) -> float:
        """Share of the choices whose Sharpe ratio out of sample is negative."""
        return float((self.out_of_sample < 0).mean())

    @property
    def degradation_slope(self) -> float:
        """Slope of out-of-sample on in-sample Sharpe ratios; NaN where the latter are all equal.

        Below zero, the better a choice looked, the worse it did.
        """
        spread = self.in_sample - self.in_sample.mean()
        total = spread @ spread
        return float(spread @ self.out_of_sample / total) if total > 0 else float("nan")


def probability_of_backtest_overfitting(
    returns: pd.DataFrame | np.ndarray, n_blocks: int = 16
) -> float:
    """Probability that the best strategy in sample is no better than the median out of sample.

    About one half for strategies without any edge, near 0 where one of them truly leads, near 1
    where what wins in one half must lose in the other.

    Args:
        returns: `(n_obs, n_strategies)`, simple returns per period, rows in the order of time.
        n_blocks: even; 16 gives 12,870 combinations.

    Returns:
        A fraction.

    Raises:
        InvalidInput: see `cross_validate_choice`.
    """
    return cross_validate_choice(returns, n_blocks).probability_of_overfitting


def cross_validate_choice(
    returns: pd.DataFrame | np.ndarray, n_blocks: int = 16
) -> CrossValidation:
    """All combinations of the cross-validation that `probability_of_backtest_overfitting` sums up.

    The best is the highest Sharpe ratio. Blocks differ by one row at most where the rows cannot be
    divided evenly, so that every row counts. A strategy whose returns do not vary within a half
    has a Sharpe ratio of 0 there, like cash. Equal ranks are averaged, and so are the outcomes of
    strategies that are equally best in sample: the order of the columns plays no part.

    Args:
        returns: `(n_obs, n_strategies)`, simple returns per period, rows in the order of time.
        n_blocks: even, from 2 to 24.

    Raises:
        InvalidInput: for an odd or too large number of blocks, fewer than two rows a block, fewer
            than two strategies, returns that are NaN or infinite, or that never vary.
    """
    return cross_validate_blocks(block_sums(_checked(returns, n_blocks), n_blocks))


@dataclass(frozen=True)
class BlockSums:
    """All that the cross-validation reads of the returns of strategies.

    Attributes:
        lengths: int64 `(n_blocks,)`, rows of each block.
        totals, squares: float64 `(n_blocks, n_strategies)`, sums over the rows of each block.
    """

    lengths: np.ndarray
    totals: np.ndarray
    squares: np.ndarray

    @staticmethod
    def join(parts: Sequence[BlockSums]) -> BlockSums:
        """All strategies, those of each part after those of the part before."""
        return BlockSums(
            parts[0].lengths,
            np.concatenate([part.totals for part in parts], axis=1),
            np.concatenate([part.squares for part in parts], axis=1),
        )


def block_sums(returns: np.ndarray, n_blocks: int) -> BlockSums:
    """Blocks of rows, summed up; they differ by one row at most.

    Args:
        returns: float64 `(n_obs, n_strategies)`, rows in the order of time.
        n_blocks: no more than rows.
    """
    values = np.ascontiguousarray(returns)  # so that a column's sum depends on no other column
    starts = np.arange(n_blocks) * len(values) // n_blocks
    return BlockSums(
        np.diff(starts, append=len(values)),
        np.add.reduceat(values, starts),
        np.add.reduceat(values**2, starts),
    )


def cross_validate_blocks(sums: BlockSums) -> CrossValidation:
    """`cross_validate_choice` of strategies whose returns are summed up already."""
    n_blocks, n_strategies = sums.totals.shape
    halves = np.array(list(combinations(range(n_blocks), n_blocks // 2)), np.int8)
    in_sample = np.zeros((len(halves), n_blocks), bool)
    np.put_along_axis(in_sample, halves, True, axis=1)
    rank, inside, outside = _cross_validate(sums.totals, sums.squares, sums.lengths, in_sample)
    return CrossValidation(np.log(rank / (n_strategies + 1 - rank)), inside, outside)


def _checked(returns: pd.DataFrame | np.ndarray, n_blocks: int) -> np.ndarray:
    values = np.asarray(returns, float)
    if values.ndim != 2 or values.shape[1] < 2:
        raise InvalidInput(
            "a choice needs two strategies at least: returns are rows of periods and one column "
            f"per strategy, not an array of shape {values.shape}"
        )
    if n_blocks % 2 or not 2 <= n_blocks <= _MOST_BLOCKS:
        raise InvalidInput(
            f"n_blocks is an even number from 2 to {_MOST_BLOCKS}, not {n_blocks}: half of the "
            "blocks are for choosing and half for judging"
        )
    if len(values) < 2 * n_blocks:
        raise InvalidInput(
            f"{len(values)} rows are too few for {n_blocks} blocks of two rows at least; "
            "use fewer blocks or a longer history"
        )
    names = pd.DataFrame(returns).columns.to_numpy()
    unusable = ~np.isfinite(values).all(axis=0)
    if unusable.any():
        raise InvalidInput(f"returns of strategies {names[unusable][:5].tolist()} are not finite")
    constant = (values == values[0]).all(axis=0)
    if constant.any():
        raise InvalidInput(
            f"returns of strategies {names[constant][:5].tolist()} never vary, so that they have "
            "no Sharpe ratio; leave out what never traded"
        )
    return values


@compiled
def _sharpe(total, squares, n):
    mean = total / n
    spread = squares - total * mean
    # Returns that do not vary leave only what rounding makes of them.
    return mean / np.sqrt(spread / (n - 1)) if spread > 1e-12 * squares else 0.0


@compiled
def _sharpe_within(totals, squares, lengths, chosen, total, square, out):
    """Sharpe ratio of every strategy over the blocks that are chosen; total, square: room."""
    n = 0
    total[:] = 0.0
    square[:] = 0.0
    for block in range(len(lengths)):
        if chosen[block]:
            n += lengths[block]
            for i in range(len(out)):
                total[i] += totals[block, i]
                square[i] += squares[block, i]
    for i in range(len(out)):
        out[i] = _sharpe(total[i], square[i], n)


@compiled
def _cross_validate(totals, squares, lengths, in_sample):
    """Rank and Sharpe ratios of the best of each half; in_sample: bool `(n, n_blocks)`."""
    n, n_strategies = len(in_sample), totals.shape[1]
    ranks, best_inside, best_outside = np.empty(n), np.empty(n), np.empty(n)
    inside, outside = np.empty(n_strategies), np.empty(n_strategies)
    total, square = np.empty(n_strategies), np.empty(n_strategies)
    for c in range(n):
        _sharpe_within(totals, squares, lengths, in_sample[c], total, square, inside)
        _sharpe_within(totals, squares, lengths, ~in_sample[c], total, square, outside)
        best, n_best, rank, result = inside.max(), 0, 0.0, 0.0
        known, rank_of_known = np.nan, 0.0  # copies of one strategy are equal in both halves
        for i in range(n_strategies):
            if inside[i] == best:
                if outside[i] != known:
                    below = equal = 0
                    for j in range(n_strategies):
                        below += outside[j] < outside[i]
                        equal += outside[j] == outside[i]
                    known, rank_of_known = outside[i], below + (equal + 1) / 2
                rank += rank_of_known
                result += outside[i]
                n_best += 1
        ranks[c], best_inside[c], best_outside[c] = rank / n_best, best, result / n_best
    return ranks, best_inside, best_outside
