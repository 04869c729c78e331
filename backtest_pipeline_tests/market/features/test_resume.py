"""Newer rows have the same bits whether they are computed with all before them or go on."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.features import build_features, resume_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline_tests.market.features.panels import (
    differing_columns,
    head,
    random_bars,
    with_holes,
)

NOTHING = np.empty((0, 0, 2))


def after(panel: Panel, rows: np.ndarray) -> Panel:
    age = np.arange(len(panel)) - np.repeat(panel.offsets[:-1], panel.lengths)
    return panel.take(age >= np.repeat(rows, panel.lengths))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.integers(0, 60), st.integers(480, 1300)), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.002, 0.02]),
)
def test_rows_that_are_resumed_are_those_of_a_whole_pass(
    lengths: list[int], seed: int, cuts: list[float], share: float
) -> None:
    bars = with_holes(random_bars(lengths, seed), seed, share)
    whole = build_features(bars)
    done, standing = np.zeros(len(lengths), np.int64), NOTHING.reshape(0, 0, 2)
    for cut in [*sorted(cuts), 1.0]:
        known = head(bars, max(1, round(cut * max(lengths))))
        next_done = np.maximum(done, (known.lengths * 0.97).astype(np.int64))
        given_standing = standing if standing.size else np.zeros((len(lengths), 0, 2))
        resumed, standing = resume_features(known, done, given_standing, next_done)
        expected = after(head(whole, max(1, round(cut * max(lengths)))), done)
        assert resumed.offsets.tolist() == expected.offsets.tolist()
        assert differing_columns(resumed, expected) == []
        done = next_done


def test_a_new_asset_beside_one_that_goes_on_begins_with_its_first_row() -> None:
    bars = random_bars([900, 700], seed=3)
    known = head(bars, 800).select(["A0"])
    done = np.array([790])
    _, standing = resume_features(known, np.array([0]), np.zeros((1, 0, 2)), done)
    beside = np.concatenate([standing, np.zeros_like(standing)])
    both, _ = resume_features(bars, np.array([790, 0]), beside, bars.lengths)
    assert differing_columns(both, after(build_features(bars), np.array([790, 0]))) == []
