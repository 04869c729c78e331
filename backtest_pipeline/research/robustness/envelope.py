"""The same run under other assumptions: one bar later, other costs, the other intrabar order.

A gain that no other assumption leaves standing is an artefact of its assumptions, not an edge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from backtest_pipeline.research.robustness.repeat import RunInputs
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.stops import IntrabarOrder

MULTIPLIERS = (0.0, 0.5, 1.0, 2.0, 3.0)
JUDGED_UP_TO = 2.0
"""Highest cost multiplier that can make a run fragile; higher ones are shown only."""
MOST_COST_BPS = 5_000.0
"""Upper limit of the search for the break-even cost: half of the notional, on each side."""


@dataclass(frozen=True)
class Scenario:
    """A run repeated with one assumption changed; `costs` changes fee and slippage together.

    Attributes:
        assumption: the change: `as run` (none), `delay`, `intrabar` or `costs`.
        fee_bps, slippage_bps, delay_bars, intrabar: the assumptions of this scenario.
        fee_multiplier, slippage_multiplier: costs as multiples of the run's.
        total_return: total return, a fraction.
    """

    assumption: str
    fee_bps: float
    slippage_bps: float
    delay_bars: int
    intrabar: str
    fee_multiplier: float
    slippage_multiplier: float
    total_return: float


@dataclass(frozen=True)
class Envelope:
    """A run under all assumptions.

    Attributes:
        scenarios: the run as it is, then one scenario per change.
        reasons: a sentence for each assumption that breaks the run; empty if it is robust.
    """

    scenarios: tuple[Scenario, ...]
    reasons: tuple[str, ...]

    @property
    def fragile(self) -> bool:
        """Whether an assumption flips the sign of the total return, or more than halves a gain."""
        return bool(self.reasons)


def envelope(run: RunInputs) -> Envelope:
    """Repeat a run one bar later, with the other intrabar order, and over a grid of costs.

    The grid is MULTIPLIERS of the run's fee by MULTIPLIERS of its slippage; a zero cost is replaced
    by the default of `CostModel`, so that a run without costs is tested too. Scenarios compare
    total returns, not the excess over the benchmark: the benchmark pays the same costs, and losing
    less than something else is still a loss.
    """
    config = run.config

    def scenario(
        assumption: str, changed: SimulationConfig, fees: float = 1.0, slippages: float = 1.0
    ) -> Scenario:
        return Scenario(
            assumption,
            changed.costs.fee_bps,
            changed.costs.slippage_bps,
            changed.delay_bars,
            changed.intrabar.value,
            fees,
            slippages,
            replace(run, config=changed).total_return,
        )

    (other,) = set(IntrabarOrder) - {config.intrabar}
    scenarios = (
        scenario("as run", config),
        scenario("delay", replace(config, delay_bars=config.delay_bars + 1)),
        scenario("intrabar", replace(config, intrabar=other)),
        *(
            scenario("costs", replace(config, costs=costs), fees, slippages)
            for fees in MULTIPLIERS
            for slippages in MULTIPLIERS
            if (costs := _multiplied(config.costs, fees, slippages)) != config.costs
        ),
    )
    return Envelope(scenarios, tuple(_reasons(scenarios[0], scenarios[1:])))


def _multiplied(costs: CostModel, fees: float, slippages: float) -> CostModel:
    usual = CostModel()
    most = MOST_COST_BPS
    return replace(
        costs,
        fee_bps=min((costs.fee_bps or usual.fee_bps) * fees, most),
        slippage_bps=min((costs.slippage_bps or usual.slippage_bps) * slippages, most),
    )


def _reasons(run: Scenario, changed: Sequence[Scenario]) -> list[str]:
    """One sentence for each kind of assumption that breaks the run."""

    def broken(kind: str) -> list[Scenario]:
        return [s for s in changed if s.assumption == kind and _is_broken(run, s) and _is_judged(s)]

    def distance(s: Scenario) -> float:
        return abs(s.fee_bps + s.slippage_bps - run.fee_bps - run.slippage_bps)

    nearest = sorted(broken("costs"), key=distance)[:1]
    return [_sentence(run, s) for s in (*broken("delay"), *broken("intrabar"), *nearest)]


def _is_judged(s: Scenario) -> bool:
    return max(s.fee_multiplier, s.slippage_multiplier) <= JUDGED_UP_TO


def _is_broken(run: Scenario, changed: Scenario) -> bool:
    if run.total_return > 0:
        return changed.total_return < run.total_return / 2
    return changed.total_return > 0


def _sentence(run: Scenario, s: Scenario) -> str:
    what = {
        "delay": "filled one bar later",
        "intrabar": f"with {s.intrabar} inside a bar",
        "costs": f"at a fee of {s.fee_bps:g} bps and slippage of {s.slippage_bps:g} bps",
    }[s.assumption]
    if run.total_return <= 0:
        verdict = "the loss turns into a gain"
    elif s.total_return <= 0:
        verdict = "the gain turns into a loss"
    else:
        verdict = "the gain falls by more than half"
    return f"{what}, {verdict}: {s.total_return:.1%} instead of {run.total_return:.1%}"


def break_even_bps(run: RunInputs) -> tuple[float | None, str]:
    """The break-even cost: fee plus slippage per side at which the run's total return is 0.

    The run is simulated again at each cost tried. Fee and slippage keep their proportion (all fee
    if the run has neither); funding is unchanged.

    Returns:
        Basis points and an empty reason, or None and the reason why there is no such cost.
    """
    costs = run.config.costs
    own = costs.fee_bps + costs.slippage_bps
    fee_share = costs.fee_bps / own if own else 1.0

    def at(bps: float) -> float:
        tried = replace(costs, fee_bps=bps * fee_share, slippage_bps=bps * (1.0 - fee_share))
        return replace(run, config=replace(run.config, costs=tried)).total_return

    return _first_zero(at, start=max(own, 1.0))


def _first_zero(at: Callable[[float], float], start: float) -> tuple[float | None, str]:
    if at(0.0) <= 0:
        return None, "no gain even without costs"
    low, high = 0.0, start
    while at(high) > 0:
        if high >= MOST_COST_BPS:
            return None, f"still a gain at {MOST_COST_BPS:,.0f} bps per side"
        low, high = high, min(2 * high, MOST_COST_BPS)
    from scipy.optimize import root_scalar  # half a second to load

    solution = root_scalar(at, bracket=(low, high), method="brentq", xtol=1e-6)
    return float(solution.root), ""
