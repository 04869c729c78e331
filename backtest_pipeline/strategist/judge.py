"""The judge: a score of the plan in force, and when it asks for a new plan."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, Field

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.plans.vocabulary import Regime
from backtest_pipeline.strategist.regimes import RegimeSettings
from backtest_pipeline.strategist.standing import Standing

JUDGE_VERSION = 2
"""Raise it when the same run gives another standing, or the same standing another score."""

WEIGHTS = MappingProxyType(
    {
        "return": 0.30,
        "drawdown": 0.20,
        "regime": 0.20,
        "hit_rate": 0.10,
        "activity": 0.10,
        "blocked": 0.10,
    }
)
"""Weight of each component of the score."""
OPINION_WEIGHT = 0.4
"""Weight of a model's opinion, where there is one; the components have the rest."""
_GOOD_RETURN = 0.05  # scores 100, and its opposite 0
_BAD_DRAWDOWN = -0.10  # scores 0
_LEAST_TRADES = 3  # below it the hit rate says nothing and scores 50
_TREND = {Regime.BEAR: -1.0, Regime.RANGE: 0.0, Regime.MIXED: 0.0, Regime.BULL: 1.0}


class JudgeSettings(BaseModel):
    """When the judge asks for a new plan.

    Examples:
        >>> JudgeSettings(score_below=30.0).day_loss_pct
        2.0
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    score_below: float = Field(
        default=40.0,
        ge=0,
        le=100,
        description="score below which a new plan is asked for; 0: never",
    )
    day_loss_pct: float = Field(
        default=2.0, gt=0, le=100, description="loss of the UTC day, percent, above which it is"
    )
    idle_triggers: int = Field(
        default=3,
        ge=0,
        le=10_000,
        description="entries asked for and not made, above which it is after idle_hours",
    )
    idle_hours: float = Field(
        default=4.0, gt=0, le=8760, description="hours without an entry that this takes"
    )
    regimes: RegimeSettings = Field(
        default=RegimeSettings(), description="how the regime of now is told"
    )
    opinion: bool = Field(
        default=False,
        description="whether a language model is asked what it thinks of the plan, after each run",
    )


DEFAULT_JUDGE = JudgeSettings()


@dataclass(frozen=True)
class Score:
    """The judge's score of a plan, 0 to 100.

    Attributes:
        components: 0 to 100 by the names of WEIGHTS.
        opinion: of a language model, 0 to 100; None where none was asked.
    """

    components: dict[str, float]
    opinion: float | None = None

    @property
    def value(self) -> float:
        """The weighted components, and the opinion with its weight where there is one."""
        own = sum(weight * self.components[name] for name, weight in WEIGHTS.items())
        if self.opinion is None:
            return own
        return (1 - OPINION_WEIGHT) * own + OPINION_WEIGHT * self.opinion


def score_of(
    standing: Standing,
    planned: Regime,
    now: Regime | None,
    settings: JudgeSettings = DEFAULT_JUDGE,
    *,
    opinion: float | None = None,
) -> Score:
    """The score of a plan; docs/strategist.md has the components.

    Args:
        standing: how its book has fared since it took effect.
        planned: the regime that it was made for.
        now: the regime now; None where it is not known, which scores as no change.
        settings: what counts as idle.
        opinion: of a language model, 0 to 100.

    Raises:
        InvalidInput: for an opinion out of range.

    Examples:
        >>> score_of(Standing(), Regime.BULL, Regime.BULL).value
        80.0
        >>> score_of(Standing(plan_return=-0.04), Regime.BULL, Regime.BEAR).value
        48.0
    """
    if opinion is not None and not 0 <= opinion <= 100:
        raise InvalidInput(f"opinion must be 0 to 100, not {opinion!r}")
    idle = standing.idle_triggers > settings.idle_triggers
    components = {
        "return": 50 + 50 * standing.plan_return / _GOOD_RETURN,
        "drawdown": 100 - 100 * standing.plan_drawdown / _BAD_DRAWDOWN,
        "regime": 100 - 100 * (0.0 if now is None else distance(planned, now)),
        "hit_rate": 50.0
        if standing.closed < _LEAST_TRADES
        else 100 * standing.won / standing.closed,
        "activity": 100 - (100 * standing.idle_hours / settings.idle_hours if idle else 0),
        "blocked": 100 - 100 * (standing.blocked / standing.triggered if standing.triggered else 0),
    }
    bounded = {name: round(min(max(c, 0.0), 100.0), 4) for name, c in components.items()}
    return Score(bounded, opinion)


def distance(planned: Regime, now: Regime) -> float:
    """How far two regimes are apart, 0 to 1.

    0.5 for a step between bear, range or mixed, and bull; 0.25 between range and mixed; 0.75 from
    high volatility to anything else.

    Examples:
        >>> distance(Regime.BULL, Regime.BEAR), distance(Regime.RANGE, Regime.HIGH_VOL)
        (1.0, 0.75)
    """
    if planned is now:
        return 0.0
    if Regime.HIGH_VOL in (planned, now):
        return 0.75
    return abs(_TREND[planned] - _TREND[now]) / 2 or 0.25


def complaints(standing: Standing, score: Score, settings: JudgeSettings) -> tuple[str, ...]:
    """Why the judge asks for a new plan, with numbers; nothing where it does not.

    Examples:
        >>> calm = score_of(Standing(), Regime.BULL, Regime.BULL)
        >>> complaints(Standing(day_return=-0.031), calm, JudgeSettings())
        ('day return -3.10 % < -2.00 %',)
    """
    found = []
    if score.value < settings.score_below:
        found.append(f"score {score.value:.1f} < {settings.score_below:.1f}")
    if 100 * standing.day_return < -settings.day_loss_pct:
        found.append(
            f"day return {100 * standing.day_return:.2f} % < -{settings.day_loss_pct:.2f} %"
        )
    if (
        standing.idle_triggers > settings.idle_triggers
        and standing.idle_hours >= settings.idle_hours
    ):
        found.append(
            f"{standing.idle_triggers} triggers and no entry for {standing.idle_hours:.1f} h"
        )
    return tuple(found)
