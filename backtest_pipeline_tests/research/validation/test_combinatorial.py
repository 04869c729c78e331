from __future__ import annotations

import subprocess
import sys
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.validation.combinatorial import (
    combinatorial_paths,
    combinatorial_purged_splits,
)


def test_two_of_six_groups_make_15_splits_and_5_paths() -> None:
    splits = combinatorial_purged_splits(2924)
    assert len(splits) == 15
    assert {int(path) for split in splits for path in split.paths} == set(range(5))


@given(
    n_obs=st.integers(60, 300),
    n_folds=st.integers(3, 6),
    n_test_folds=st.integers(2, 5),
    purge=st.integers(0, 3),
    embargo=st.floats(0, 0.02),
)
def test_every_split_keeps_its_distance_and_every_path_is_the_whole_history(
    n_obs: int, n_folds: int, n_test_folds: int, purge: int, embargo: float
) -> None:
    n_test_folds = min(n_test_folds, n_folds - 1)
    splits = combinatorial_purged_splits(n_obs, n_folds, n_test_folds, purge, embargo)
    edges = [n_obs // n_folds * fold for fold in range(n_folds)] + [n_obs]
    groups = [np.arange(*edge) for edge in pairwise(edges)]
    wanted = list(combinations(range(n_folds), n_test_folds))
    after = purge + int(np.ceil(round(embargo * n_obs, 9)))
    paths: dict[int, list[np.ndarray]] = {}
    for split, chosen in zip(splits, wanted, strict=True):
        tested = np.concatenate([groups[fold] for fold in chosen])
        np.testing.assert_array_equal(np.concatenate(split.tests), tested)
        # Bar by bar: one trains if no test lies within reach of it.
        trains = [
            bar
            for bar in np.setdiff1d(np.arange(n_obs), tested)
            if not ((tested >= bar - after) & (tested <= bar + purge)).any()
        ]
        np.testing.assert_array_equal(split.train, trains)
        for path, test in zip(split.paths.tolist(), split.tests, strict=True):
            paths.setdefault(path, []).append(test)
    assert len(paths) == len(wanted) * n_test_folds // n_folds
    for parts in paths.values():
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n_obs))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_test_folds": 1}, "n_test_folds is 1 of 6"),
        ({"n_test_folds": 6}, "n_test_folds is 6 of 6"),
        ({"n_obs": 4}, "4 bars in 6 folds leave 0 bars a fold"),
        ({"n_obs": 60, "purge": 20}, "too few for purge and embargo of 21"),
        ({"n_obs": 60, "n_folds": 3, "purge": 13, "embargo": 0.0}, "on both sides"),
        ({"purge": -1}, "purge is a number of bars"),
        ({"embargo": 1.5}, "embargo is a fraction"),
        ({"n_obs": 10_000, "n_folds": 24, "n_test_folds": 12}, "produces 2,704,156 splits"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        combinatorial_purged_splits(**({"n_obs": 600} | arguments))


def test_nothing_imports_skfolio_before_it_is_needed() -> None:
    program = (
        "import sys, backtest_pipeline.pipeline.api, backtest_pipeline.pipeline.use_cases.refresh\n"
        "from backtest_pipeline.research.ranking import trials\n"
        "from backtest_pipeline.research.validation import combinatorial, overfitting\n"
        "sys.exit(', '.join({'skfolio', 'cvxpy', 'sklearn'} & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_paths_are_what_was_chosen_without_them() -> None:
    rng = np.random.default_rng(4)
    returns = rng.normal(0, 0.01, (600, 12))
    found = combinatorial_paths(returns, purge=5)
    assert found.returns.shape == (5, 600)
    assert np.isfinite(found.returns).all()
    for s, split in enumerate(combinatorial_purged_splits(600, purge=5)):
        train = returns[split.train]
        assert found.chosen[s] == np.argmax(train.mean(axis=0) / train.std(axis=0, ddof=1))
        for path, test in zip(split.paths, split.tests, strict=True):
            np.testing.assert_array_equal(found.returns[path, test], returns[test, found.chosen[s]])


def test_noise_has_no_edge_on_its_paths_and_a_true_leader_has_its_own_on_all() -> None:
    rng = np.random.default_rng(8)
    noise = rng.normal(0, 0.01, (1200, 20))
    assert abs(combinatorial_paths(noise).sharpes.mean()) < 0.06
    led = noise.copy()
    led[:, 7] += 0.005
    found = combinatorial_paths(led)
    assert set(found.chosen) == {7}
    np.testing.assert_allclose(found.sharpes, led[:, 7].mean() / led[:, 7].std(ddof=1))


def test_returns_without_paths_are_refused() -> None:
    with pytest.raises(InvalidInput, match="all of them numbers"):
        combinatorial_paths(np.full((600, 2), np.nan))
    with pytest.raises(InvalidInput, match="no strategy has returns that vary"):
        combinatorial_paths(np.zeros((600, 2)))
