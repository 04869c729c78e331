"""What vectorbt cannot simulate, named one by one; docs/vectorbt.md says why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.simulation.config import PositionRules, SimulationConfig
from backtest_pipeline.trading.stops import IntrabarOrder

_INSTEAD = "or simulate it with engine=account"


def require_held_by_vectorbt(
    config: SimulationConfig,
    rules: Sequence[PositionRules],
    *,
    has_funding: bool = False,
    has_finer_bars: bool = False,
    in_stretches: bool = False,
) -> None:
    """Raise InvalidInput, naming it, for the first assumption that vectorbt cannot hold.

    Args:
        config: assumptions of the runs.
        rules: stops and cooldowns of the runs, the strategies' own included.
        has_funding: whether funding rates by symbol are given.
        has_finer_bars: whether finer bars are to decide between stop and target.
        in_stretches: whether the rules change along the bars, as a walk-forward's do.

    Examples:
        >>> require_held_by_vectorbt(SimulationConfig(), [SimulationConfig().rules])
    """
    if in_stretches and len({one.stops.trailing for one in rules}) > 1:
        raise InvalidInput(
            "engine vectorbt: it cannot change the distance of a trailing stop under a position: "
            f"trailing chosen by a walk-forward; give one for all folds, {_INSTEAD}"
        )
    for problem, remedy in _problems(config, rules, has_funding, has_finer_bars):
        raise InvalidInput(f"engine vectorbt: {problem}; {remedy}, {_INSTEAD}")


def _problems(
    config: SimulationConfig,
    rules: Sequence[PositionRules],
    has_funding: bool,
    has_finer_bars: bool,
) -> Iterator[tuple[str, str]]:
    if has_funding or config.costs.funding_bps_day != 0:
        yield "it does not know funding", "leave funding out"
    if config.max_leverage > 1:
        yield "it does not know max_leverage above 1", "set max_leverage to 1"
    if config.lot_size != 0:
        yield (
            "its lots lose one to rounding where a size is a whole number of them: lot_size",
            ("leave lot_size out"),
        )
    if config.min_notional != 0:
        yield (
            "it knows a smallest size in units, not a value: min_notional",
            ("leave min_notional out"),
        )
    for one in rules:
        yield from _problems_of_rules(one, config.intrabar, has_finer_bars)


def _problems_of_rules(
    rules: PositionRules, intrabar: IntrabarOrder, has_finer_bars: bool
) -> Iterator[tuple[str, str]]:
    stops = rules.stops
    if rules.cooldown_bars:
        yield "it does not know cooldown_bars", "set cooldown_bars to 0"
    if stops.max_bars is not None:
        yield "it does not know a time stop: max_bars", "leave max_bars out"
    if stops.trailing_atr is not None:
        yield (
            "its trailing stops are fractions of the price: trailing_atr",
            ("use trailing, or another stop of the run in place of the strategy's own"),
        )
    if stops.trailing is not None and stops.stop_loss is not None:
        yield "it holds one stop a position: stop_loss and trailing together", "give one of them"
    if stops.take_profit is not None and (stops.stop_loss or stops.trailing) is not None:
        if intrabar is IntrabarOrder.TARGET_FIRST:
            yield (
                "its stop always comes before its target: intrabar=target_first",
                ("use stop_first"),
            )
        if has_finer_bars:
            yield (
                "it cannot ask finer bars whether stop or target came first",
                ("leave the finer bars out"),
            )
