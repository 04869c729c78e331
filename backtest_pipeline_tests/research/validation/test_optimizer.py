"""Searches: what they try, and what wins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.research.validation.choices import Method
from backtest_pipeline.research.validation.optimizer import (
    Combination,
    Objective,
    Search,
    best_of,
    searchers,
)
from backtest_pipeline.strategies.grid import ParameterSpace, parameter_space
from backtest_pipeline.strategies.registry import strategy_of

EMA = strategy_of("ema_crossover")
SMALL = parameter_space(EMA, {"fast": [3, 5, 8], "slow": [5, 13]})
LARGE = parameter_space(EMA, {"fast": range(1, 101), "slow": range(2, 201)})


def tried(space: ParameterSpace, search: Search) -> list[Combination]:
    """All that one search evaluates, where fast 30, slow 80 is the best."""
    (searcher,) = searchers(space, search, 1)
    found: list[Combination] = []
    while asked := searcher.ask():
        found += asked
        scores = [-abs(fast - 30) - abs(slow - 80) for fast, slow in asked]
        searcher.tell(asked, np.array(scores, np.float64))
    return found


def test_a_grid_is_all_that_makes_sense_and_nothing_else() -> None:
    assert tried(SMALL, Search()) == [(3, 5), (3, 13), (5, 13), (8, 13)]


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_search_of_a_large_space_is_bounded_distinct_and_sound(method: Method) -> None:
    found = tried(LARGE, Search(method, most=70))
    assert len(found) == len(set(found)) == 70
    assert all(fast < slow for fast, slow in found)
    assert found == tried(LARGE, Search(method, most=70))
    assert found != tried(LARGE, Search(method, most=70, seed=1))


def test_tpe_tells_nothing_and_leaves_what_optuna_tells_to_the_program_around_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    tried(LARGE, Search("tpe", most=40))
    assert optuna.logging.get_verbosity() == before == optuna.logging.INFO
    assert capfd.readouterr().err == ""


def test_tpe_comes_nearer_to_the_best_than_chance_does() -> None:
    def nearest(method: Method) -> float:
        found = tried(LARGE, Search(method, most=160))
        return min(abs(fast - 30) + abs(slow - 80) for fast, slow in found)

    assert nearest("tpe") <= nearest("random")
    assert nearest("tpe") <= 6


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_small_space_is_used_up_and_the_search_ends(method: Method) -> None:
    assert sorted(tried(SMALL, Search(method))) == tried(SMALL, Search("grid"))


def test_what_is_too_large_for_a_grid_is_refused_and_else_learnt_from() -> None:
    assert Search().resolved(LARGE) == "tpe"
    assert Search().resolved(SMALL) == "grid"
    with pytest.raises(InvalidInput, match="19,900 combinations are more than 500"):
        searchers(LARGE, Search("grid"), 1)


@pytest.mark.parametrize("method", ["grid", "random", "tpe"])
def test_a_space_without_sense_is_refused(method: Method) -> None:
    with pytest.raises(InvalidInput, match=r"makes sense: fast \(9\) must be below slow"):
        searchers(parameter_space(EMA, {"fast": 9, "slow": [3, 5]}), Search(method), 1)


def test_a_value_that_its_parameter_does_not_take_is_refused() -> None:
    with pytest.raises(InvalidInput, match="fast"):
        searchers(parameter_space(EMA, {"fast": [2.5], "slow": [5]}), Search(), 1)
    with pytest.raises(InvalidInput, match="no value"):
        parameter_space(EMA, {"fast": []})


def test_bad_searches_are_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean grid"):
        Search("gird")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidInput, match="one combination at least"):
        Search(most=0)
    with pytest.raises(InvalidInput, match="seed"):
        Search(seed=-1)


SCORES = st.lists(st.sampled_from([math.nan, -1.0, 0.0, 2.0]), min_size=1, max_size=12)


@given(SCORES, st.randoms())
def test_the_best_does_not_depend_on_the_order_of_trying(scores: list[float], rng: object) -> None:
    combinations = [(i % 3, i) for i in range(len(scores))]
    order = list(range(len(scores)))
    rng.shuffle(order)  # pyright: ignore[reportAttributeAccessIssue]
    one = best_of(combinations, np.array(scores))
    shuffled = [combinations[i] for i in order]
    other = best_of(shuffled, np.array([scores[i] for i in order]))
    if one is None or other is None:
        assert one is other
        assert all(map(math.isnan, scores))
    else:
        assert combinations[one] == shuffled[other]
        assert scores[one] == np.nanmax(scores)
        ties = [c for c, s in zip(combinations, scores, strict=True) if s == scores[one]]
        assert combinations[one] == min(ties)


def test_objectives_add_up_and_less_of_a_cost_is_better() -> None:
    metrics = {
        "sharpe": np.array([1.0, 2.0, np.nan]),
        "calmar": np.array([4.0, 0.0, 1.0]),
        "total_return": np.array([0.5, 0.1, 0.1]),
        "max_drawdown": np.array([-0.5, -0.1, 0.0]),
        "turnover": np.array([3.0, 1.0, 2.0]),
    }
    np.testing.assert_array_equal(Objective.of("sharpe").scores(metrics), metrics["sharpe"])
    np.testing.assert_allclose(Objective.of("composite").scores(metrics), [5.5, 2.1, np.nan])
    weighted = Objective.of("sharpe=2, turnover=0.5").scores(metrics)
    np.testing.assert_allclose(weighted, [0.5, 3.5, np.nan])
    # The deepest drawdown is the lowest number, and the worst.
    assert np.argmax(Objective.of("max_drawdown").scores(metrics)) == 2


@pytest.mark.parametrize("text", ["sharpe=0", "sharpe=-1", "sharpe=x", "sharpe=nan", "sharpe="])
def test_a_weight_that_is_no_positive_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="weight of sharpe"):
        Objective.of(text)


def test_an_unknown_objective_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean sharpe"):
        Objective.of("sharp")
