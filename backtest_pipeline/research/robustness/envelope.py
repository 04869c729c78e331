"""The same run under other assumptions: a bar later, at other costs, in the other intrabar order.

What survives none of them is an assumption, not an edge.
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
"""Cost multipliers beyond this one are shown and not held against a run."""
MOST_COST_BPS = 5_000.0
"""Where the search for a break-even cost ends: half of what is traded, on each side."""


@dataclass(frozen=True)
class Scenario:
    """A run repeated with one assumption changed, or with both of its costs.

    Attributes:
        assumption: what is changed: `as run`, `delay`, `intrabar` or `costs`.
        fee_bps, slippage_bps, delay_bars, intrabar: what is assumed.
        fee_multiplier, slippage_multiplier: the costs as multiples of the run's.
        total_return: what comes of it, a fraction.
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
        scenarios: the run as it is, then every change.
        reasons: what it does not survive, in words; none where it is robust.
    """

    scenarios: tuple[Scenario, ...]
    reasons: tuple[str, ...]

    @property
    def fragile(self) -> bool:
        """Whether some assumption turns the sign of the total return, or halves a gain."""
        return bool(self.reasons)


def envelope(run: RunInputs) -> Envelope:
    """Repeat a run one bar later, in the other intrabar order, and at a grid of costs.

    The grid are MULTIPLIERS of the run's fee by those of its slippage; where the run has none, of
    the defaults of `CostModel`, so that a run without costs is shown some too. Total return is
    what is compared, not the excess over the benchmark: the benchmark pays the same costs, and a
    gain that is only a smaller loss than another's pays nobody.
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
    """One sentence for each kind of assumption that the run does not survive."""

    def broken(kind: str) -> list[Scenario]:
        return [s for s in changed if s.assumption == kind and _is_broken(run, s) and _is_judged(s)]

    def distance(s: Scenario) -> float:
        return abs(s.fee_bps + s.slippage_bps - run.fee_bps - run.slippage_bps)

    found = [*broken("delay"), *broken("intrabar"), *sorted(broken("costs"), key=distance)[:1]]
    return [_sentence(run, s) for s in found]


def _is_judged(s: Scenario) -> bool:
    return max(s.fee_multiplier, s.slippage_multiplier) <= JUDGED_UP_TO


def _is_broken(run: Scenario, changed: Scenario) -> bool:
    if run.total_return > 0:
        return changed.total_return < run.total_return / 2
    return changed.total_return > 0


def _sentence(run: Scenario, s: Scenario) -> str:
    what = {
        "delay": "one bar later",
        "intrabar": f"with {s.intrabar} within a bar",
        "costs": f"at a fee of {s.fee_bps:g} and a slippage of {s.slippage_bps:g} bps",
    }[s.assumption]
    if run.total_return <= 0:
        verdict = "the loss becomes a gain"
    elif s.total_return <= 0:
        verdict = "the gain becomes a loss"
    else:
        verdict = "the gain is less than half"
    return f"{what} {verdict}: {s.total_return:.1%} instead of {run.total_return:.1%}"


def break_even_bps(run: RunInputs) -> tuple[float | None, str]:
    """The cost per side, fee and slippage together, at which the run's total return is 0.

    The run is simulated anew at each cost that is tried; fee and slippage keep their proportion
    (all fee where the run has neither), funding stays.

    Returns:
        Basis points and an empty reason, or None and why there is no such cost.
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
        return None, "loses or gains nothing even without costs"
    low, high = 0.0, start
    while at(high) > 0:
        if high >= MOST_COST_BPS:
            return None, f"gains even at {MOST_COST_BPS:,.0f} bps a side"
        low, high = high, min(2 * high, MOST_COST_BPS)
    from scipy.optimize import root_scalar  # half a second to load

    found = root_scalar(at, bracket=(low, high), method="brentq", xtol=1e-6)
    return float(found.root), ""
