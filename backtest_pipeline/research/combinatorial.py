"""Combinatorial purged cross-validation: many histories out of one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.splits import gap_bars


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
