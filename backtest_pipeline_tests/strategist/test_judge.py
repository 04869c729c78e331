from __future__ import annotations

import pytest

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.plans.vocabulary import Regime
from backtest_pipeline.strategist.judge import (
    WEIGHTS,
    JudgeSettings,
    Score,
    complaints,
    distance,
    score_of,
)
from backtest_pipeline.strategist.standing import Standing

SETTINGS = JudgeSettings()


def scored(now: Regime | None = Regime.BULL, **fields: float) -> Score:
    return score_of(Standing(**fields), Regime.BULL, now)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("return", {"plan_return": 0.05}, 100.0),
        ("return", {"plan_return": 0.01}, 60.0),
        ("return", {"plan_return": -0.3}, 0.0),
        ("drawdown", {"plan_drawdown": -0.025}, 75.0),
        ("drawdown", {"plan_drawdown": -0.4}, 0.0),
        ("hit_rate", {"closed": 2, "won": 2}, 50.0),
        ("hit_rate", {"closed": 4, "won": 3}, 75.0),
        ("activity", {"idle_triggers": 3, "idle_hours": 9.0}, 100.0),
        ("activity", {"idle_triggers": 4, "idle_hours": 1.0}, 75.0),
        ("activity", {"idle_triggers": 4, "idle_hours": 9.0}, 0.0),
        ("blocked", {"triggered": 8, "blocked": 6}, 25.0),
        ("regime", {"now": Regime.HIGH_VOL}, 25.0),
        ("regime", {"now": None}, 100.0),
    ],
)
def test_each_component_is_what_its_row_says(name: str, fields: dict, expected: float) -> None:
    score = scored(**fields)
    assert score.components[name] == pytest.approx(expected)
    neutral = scored()
    others = {n for n in WEIGHTS if score.components[n] != neutral.components[n]}
    assert others <= {name}


def test_a_score_is_the_weighted_mean_and_an_opinion_has_two_fifths() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    assert scored().value == pytest.approx(80)
    assert Score(scored().components, opinion=30.0).value == pytest.approx(0.6 * 80 + 0.4 * 30)
    worst = scored(
        Regime.BEAR,
        plan_return=-0.5,
        plan_drawdown=-0.5,
        closed=9,
        triggered=9,
        blocked=9,
        idle_triggers=9,
        idle_hours=9.0,
    )
    assert worst.value == 0
    with pytest.raises(InvalidInput, match="opinion must be 0 to 100"):
        score_of(Standing(), Regime.BULL, None, opinion=101)


def test_regimes_are_apart_as_far_from_either_side() -> None:
    for one in Regime:
        assert distance(one, one) == 0
        for other in Regime:
            assert distance(one, other) == distance(other, one)
            assert (distance(one, other) == 0) == (one is other)


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (Standing(), ()),
        (Standing(day_return=-0.02), ()),
        (Standing(day_return=-0.021), ("day return -2.10 % < -2.00 %",)),
        (Standing(idle_triggers=4, idle_hours=3.9), ()),
        (Standing(idle_triggers=3, idle_hours=40.0), ()),
        (Standing(idle_triggers=4, idle_hours=4.0), ("4 triggers and no entry for 4.0 h",)),
    ],
)
def test_what_the_judge_complains_of(standing: Standing, expected: tuple[str, ...]) -> None:
    assert complaints(standing, scored(), SETTINGS) == expected


def test_a_low_score_is_a_complaint() -> None:
    low = scored(Regime.BEAR, plan_return=-0.05, plan_drawdown=-0.05)
    assert low.value == 35.0
    assert complaints(Standing(), low, SETTINGS) == ("score 35.0 < 40.0",)
    assert complaints(Standing(), low, JudgeSettings(score_below=35.0)) == ()
