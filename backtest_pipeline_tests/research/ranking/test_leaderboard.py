"""The board: what ranks a run, what a score may never do, and what passes a gate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.research.ranking.leaderboard import (
    RUN_COLUMNS,
    SCHEMES,
    Gate,
    board,
    gates_of,
    scheme_of,
    score,
    with_significance,
)
from backtest_pipeline.simulation.metrics.significance import deflated_sharpe_ratio

# Said here once more, by hand: a sign that is wrong there must not be wrong here too.
BETTER = {
    "dsr": +1,
    "sharpe": +1,
    "sortino": +1,
    "calmar": +1,
    "profit_factor": +1,
    "win_rate": +1,
    "trade_count": +1,
    "information_ratio": +1,
    "max_drawdown": +1,  # -0.1 is better than -0.5
    "expected_shortfall_95": +1,  # likewise
    "annual_volatility": -1,
    "max_drawdown_duration_days": -1,
    "turnover": -1,
    "cost_share": -1,
}
COMPONENTS = [
    pytest.param(scheme, metric, id=f"{scheme.name}-{metric}")
    for scheme in SCHEMES
    for metric in scheme.weights
]
GATES = (Gate("trades", "trade_count", at_least=30), Gate("costs", "cost_share", at_most=0.5))


def runs(n: int = 6, seed: int = 1, **columns: object) -> pd.DataFrame:
    """Runs of one family, with whatever numbers."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.normal(0, 1, n) for name in RUN_COLUMNS})
    return frame.assign(
        **{
            "n_trials": n,
            "n_trials_effective": n,
            "n_families": 1,
            "kurtosis": 3.0,
            "skew": 0.0,
            "n_days": 1000,
            "trade_count": 40.0,
            "total_return": 0.5,
            "costs_paid": 10.0,
            "initial_cash": 100.0,
            **columns,
        }
    )


def ahead(scores: np.ndarray, run: int) -> int:
    return int((scores > scores[run] + 1e-12).sum())


@pytest.mark.parametrize(("scheme", "metric"), COMPONENTS)
@given(data=st.data())
def test_a_run_that_improves_in_one_component_never_falls(scheme, metric, data) -> None:
    n = data.draw(st.integers(1, 8))
    few = st.one_of(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.just(np.nan), st.floats(-9, 9))
    metrics = set(scheme.weights)
    frame = pd.DataFrame({m: data.draw(st.lists(few, min_size=n, max_size=n)) for m in metrics})
    run = data.draw(st.integers(0, n - 1))
    step = data.draw(st.floats(1e-3, 20))
    before = frame.loc[run, metric]
    better = frame.copy()
    better.loc[run, metric] = (0.0 if np.isnan(before) else before) + BETTER[metric] * step
    old, new = score(frame, scheme), score(better, scheme)
    assert new[run] >= old[run] - 1e-12
    assert ahead(new, run) <= ahead(old, run)
    assert np.all((new >= 0) & (new <= 1 + 1e-12))


@pytest.mark.parametrize(("scheme", "metric"), COMPONENTS)
def test_the_better_of_two_that_are_else_equal_scores_higher(scheme, metric) -> None:
    frame = pd.DataFrame({m: [0.5, 0.5] for m in BETTER})
    frame.loc[0, metric] += BETTER[metric] * 0.1
    first, second = score(frame, scheme)
    assert first > second


def test_weights_say_how_much_a_component_counts() -> None:
    frame = pd.DataFrame({m: [0.0, 0.0, 0.0] for m in BETTER})
    frame["cost_share"] = [0.1, 0.2, 0.3]  # ahead of both, of one, of none
    # 4 of 10 parts are the costs; in the others all are equal, which is a half.
    np.testing.assert_allclose(score(frame, scheme_of("low_cost")), [0.7, 0.5, 0.3])


def test_an_undefined_metric_is_behind_every_defined_one() -> None:
    frame = pd.DataFrame({m: [0.0, 0.0] for m in BETTER})
    frame["profit_factor"] = [np.nan, 0.01]
    np.testing.assert_allclose(score(frame, scheme_of("quality")), [0.4, 0.6])
    frame["profit_factor"] = np.nan
    np.testing.assert_allclose(score(frame, scheme_of("quality")), [0.4, 0.4])
    np.testing.assert_allclose(score(frame.iloc[:1], scheme_of("quality")), [0.4])


def test_the_rank_follows_significance_and_not_the_sharpe_ratio() -> None:
    frame = with_significance(runs(3, sharpe=[2.0, 1.5, 0.1], n_days=[90, 3000, 3000]))
    found = board(frame, GATES).runs
    assert found["rank"].tolist() == [1, 2, 3]
    assert found["sharpe"].tolist() == [1.5, 2.0, 0.1]
    assert found["dsr"].is_monotonic_decreasing


def test_significance_is_deflated_by_what_was_tried() -> None:
    sharpe = [1.0, 0.4, np.nan]
    frame = with_significance(
        runs(
            3,
            sharpe=sharpe,
            n_trials=[4, 4, 9],
            n_trials_effective=[2.5, 2.5, 9.0],
            n_families=2,
            skew=[0.1, 0, np.nan],
            kurtosis=[5.0, 3, np.nan],
        )
    )
    measured = (1.0 / np.sqrt(365), 1000, 0.1, 5.0, 1 / 999)
    expected = deflated_sharpe_ratio(*measured, 4)
    assert frame["dsr"].iloc[0] == pytest.approx(expected, rel=1e-12)
    assert frame["dsr_effective"].iloc[0] == pytest.approx(deflated_sharpe_ratio(*measured, 2.5))
    assert frame["dsr_across_families"].iloc[0] == pytest.approx(max(1 - 2 * (1 - expected), 0))
    assert np.isnan(frame["dsr"].iloc[2])
    assert np.isnan(frame["dsr_across_families"].iloc[2])
    alone = with_significance(runs(1, n_trials=1, n_trials_effective=1.0))
    assert alone["dsr"].iloc[0] == alone["psr"].iloc[0]


def test_more_trials_of_a_family_leave_less_of_its_best() -> None:
    few, many = (with_significance(runs(4, sharpe=1.5, n_trials=n)) for n in (4, 40))
    assert many["dsr"].iloc[0] < few["dsr"].iloc[0] < few["psr"].iloc[0]


def test_costs_are_a_share_of_what_was_earned_before_them() -> None:
    frame = with_significance(runs(3, total_return=[0.3, -0.05, -0.5], costs_paid=10.0))
    np.testing.assert_allclose(frame["cost_share"], [10 / 40, 10 / 5, np.nan])


def test_gates_hold_their_bound_and_nothing_undefined() -> None:
    frame = with_significance(runs(3, trade_count=[30.0, 29.0, np.nan]))
    assert GATES[0].passed(frame).tolist() == [True, False, False]
    unearned = with_significance(runs(2, total_return=[-1.0, 0.1]))
    assert GATES[1].passed(unearned).tolist() == [False, True]
    found = board(frame, GATES)
    assert found.passed.tolist() == found.gates.all(axis=1).tolist()
    assert sorted(found.passed.tolist()) == [False, False, True]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([], InvalidInput, "at least one gate"),
        ([{"name": "a", "metric": "dsr"}], InvalidInput, "exactly one of at_least and at_most"),
        ([{"name": "a", "metric": "dsr", "at_least": 1, "at_most": 2}], InvalidInput, "one of"),
        ([{"name": "a", "metric": "dsr", "above": 1}], InvalidInput, "above"),
        ([{"name": "a", "metric": "sharp", "at_least": 1}], UnknownName, "did you mean sharpe"),
        ([{"name": "a", "metric": "dsr", "at_least": "1"}], InvalidInput, "number"),
        ([{"name": "a", "metric": "dsr", "at_least": 1}] * 2, InvalidInput, "each name only once"),
    ],
)
def test_what_is_no_gate_is_refused(rows, error, message) -> None:
    with pytest.raises(error, match=message):
        gates_of(rows)


def test_a_board_refuses_what_it_cannot_judge() -> None:
    frame = with_significance(runs(2, sharpe=[1.0, np.nan]))
    with pytest.raises(InvalidInput, match="without a deflated Sharpe ratio"):
        board(frame, GATES)
    with pytest.raises(InvalidInput, match="needs at least one gate"):
        board(frame.iloc[:1], ())
    with pytest.raises(UnknownName, match="did you mean balanced"):
        scheme_of("balance")
