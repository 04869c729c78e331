"""Combinatorial purged cross-validation: many histories out of one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.validation.splits import gap_bars
from backtest_pipeline.simulation.metrics.significance import sharpe_moments


@dataclass(frozen=True)
class CombinatorialSplit:
    """One way of taking some groups of bars for the test and the others for training.

    Attributes:
        train: int64, positions of the bars to choose on, purge and embargo left out.
        tests: int64 positions of each group of bars to judge on.
        paths: int64 `(n_test_folds,)`, the path that each of `tests` is a part of.
    """

    train: np.ndarray
    tests: tuple[np.ndarray, ...]
    paths: np.ndarray


def combinatorial_purged_splits(
    n_obs: int, n_folds: int = 6, n_test_folds: int = 2, purge: int = 0, embargo: float = 0.01
) -> tuple[CombinatorialSplit, ...]:
    """Combinatorial purged cross-validation (CPCV): every choice of test groups, many paths.

    The bars are cut into `n_folds` groups in the order of time, the last taking what is left over.
    There are C(n_folds, n_test_folds) splits, and each group is tested as often as there are
    paths; the groups of one path together are every bar once. Training here also lies after tests:
    bars are purged on both sides of a test, and the embargo follows after it.

    Args:
        n_obs: bars.
        n_folds: groups, at least 3.
        n_test_folds: groups that are tested at once, at least 2.
        purge: bars.
        embargo: fraction of `n_obs`, rounded up to bars.

    Returns:
        15 splits with 5 paths for 6 groups of which 2 are tested.

    Raises:
        InvalidInput: where the numbers do not fit, or no training bars are left.

    Source: Lopez de Prado 2018, "Advances in Financial Machine Learning", chapter 12; computed by
    skfolio.
    """
    if not 2 <= n_test_folds < n_folds:
        raise InvalidInput(
            f"n_test_folds is {n_test_folds} of {n_folds} folds: two at least are for testing, "
            "and one at least for training"
        )
    gap = gap_bars(purge, embargo, n_obs)
    if gap + 1 >= n_obs // n_folds:
        raise InvalidInput(
            f"{n_obs} bars in {n_folds} folds leave {n_obs // n_folds} bars a fold, too few for "
            f"purge and embargo of {gap}: use fewer folds, a shorter purge, or more bars"
        )
    from skfolio.model_selection import CombinatorialPurgedCV

    try:
        validation = CombinatorialPurgedCV(n_folds, n_test_folds, purge, gap - purge)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    splits = tuple(
        CombinatorialSplit(train, tuple(tests), paths)
        for (train, tests), paths in zip(
            validation.split(np.empty((n_obs, 1))), validation.get_path_ids(), strict=True
        )
    )
    if any(len(split.train) == 0 for split in splits):
        raise InvalidInput(
            f"a purge of {purge} bars on both sides leaves nothing of the folds of "
            f"{n_obs // n_folds} bars to train on: use fewer folds or a shorter purge"
        )
    return splits


@dataclass(frozen=True)
class CombinatorialPaths:
    """The result of choosing the best of some strategies on many paths through one history.

    Attributes:
        returns: float64 `(n_paths, n_obs)`, per period: each path has every period once, always of
            what was chosen without it.
        chosen: int64 `(n_splits,)`, column that was the best in the training of each split.
        sharpes: float64 `(n_paths,)`, per period, NaN where a path's returns do not vary.
    """

    returns: np.ndarray
    chosen: np.ndarray
    sharpes: np.ndarray


def combinatorial_paths(
    returns: pd.DataFrame | np.ndarray,
    n_folds: int = 6,
    n_test_folds: int = 2,
    purge: int = 0,
    embargo: float = 0.01,
) -> CombinatorialPaths:
    """Out-of-sample paths of a choice by Sharpe ratio, where a walk-forward has but one.

    In each split the best in training is chosen, and the returns that it has in the test groups
    go to their paths. The returns are those of runs over the whole history: what is held where a
    group begins was entered before it, and set `purge` to the longest time that a trade takes.
    Training lies after tests as well, so this tells how far a choice depends on the history that
    it saw, and not what somebody would have earned.

    Args:
        returns: `(n_obs, n_strategies)`, simple returns per period, rows in the order of time, such
            as those of a grid of parameters.
        n_folds, n_test_folds, purge, embargo: as `combinatorial_purged_splits` takes them.

    Returns:
        5 paths for 6 groups of which 2 are tested.

    Raises:
        InvalidInput: where the numbers do not fit, returns are NaN or infinite, or none of the
            strategies has returns that vary in some training.

    Source: Lopez de Prado 2018, "Advances in Financial Machine Learning", chapter 12.
    """
    values = np.asarray(returns, float)
    if values.ndim != 2 or values.shape[1] == 0 or not np.isfinite(values).all():
        raise InvalidInput(
            "returns are rows of periods and one column per strategy, all of them numbers, not an "
            f"array of shape {values.shape} with {np.count_nonzero(~np.isfinite(values))} others"
        )
    splits = combinatorial_purged_splits(len(values), n_folds, n_test_folds, purge, embargo)
    n_paths = 1 + max(int(split.paths.max()) for split in splits)
    paths = np.full((n_paths, len(values)), np.nan)
    chosen = np.zeros(len(splits), np.int64)
    for s, split in enumerate(splits):
        sharpes = sharpe_moments(values[split.train]).sharpe
        if np.isnan(sharpes).all():
            raise InvalidInput(f"no strategy has returns that vary in the training of split {s}")
        chosen[s] = np.nanargmax(sharpes)
        for path, test in zip(split.paths, split.tests, strict=True):
            paths[path, test] = values[test, chosen[s]]
    return CombinatorialPaths(paths, chosen, sharpe_moments(paths.T).sharpe)
