"""Triggers evaluated on all bars at once: what each would enter or leave, whatever is in force."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import BacktestError, InvalidInput
from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline.simulation.engine import FEATURE_MISSING, RULE_UNDEFINED
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT
from backtest_pipeline.simulation.strategy_conditions import conditions_where_possible
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.strategies.rules.expressions import (
    ConditionExpression,
    condition_expression,
)

_BOTH_ENTRIES, _BOTH_EXITS = np.uint8(LONG_ENTRY | SHORT_ENTRY), np.uint8(LONG_EXIT | SHORT_EXIT)


@dataclass(frozen=True)
class TriggerEvents:
    """A trigger on the bars of its symbol.

    Attributes:
        bits: uint8 `(n_bars,)` as in `simulation.orders`; a rule's are of both sides.
        unknown: int8 `(n_bars,)`, 0 where its rule, the entry's if it has one, is true or false, or
            still warming up; else FEATURE_MISSING where a column that it reads has no value, or
            RULE_UNDEFINED.
        failure: why it cannot be evaluated at all; empty where it can.
    """

    bits: np.ndarray
    unknown: np.ndarray
    failure: str = ""


def trigger_events(panel: Panel, triggers: Sequence[Trigger]) -> list[TriggerEvents]:
    """The events of each trigger; equal rules of many symbols are computed once.

    Args:
        panel: bars from each asset's first one on, or with the features that are read.
        triggers: triggers of symbols of the panel.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for position, trigger in enumerate(triggers):
        groups.setdefault(_rules_of(trigger), []).append(position)
    panel = _with_reads(panel, triggers)
    found: dict[int, TriggerEvents] = {}
    for positions in groups.values():
        symbols = {triggers[position].symbol for position in positions}
        known = panel.select([asset for asset in panel.assets if asset in symbols])
        first = triggers[positions[0]]
        by_symbol = _of_strategy(known, first) if first.strategy else _of_rules(known, first)
        found |= {position: by_symbol[triggers[position].symbol] for position in positions}
    return [found[position] for position in range(len(triggers))]


def _rules_of(trigger: Trigger) -> tuple[str, ...]:
    """What its conditions follow from, beside its symbol."""
    if trigger.strategy is not None:
        return ("strategy", trigger.strategy, json.dumps(trigger.params, sort_keys=True))
    return tuple(
        condition_expression(rule, name).digest if rule else ""
        for name, rule in (("entry", trigger.entry), ("exit", trigger.exit))
    )


def _with_reads(panel: Panel, triggers: Sequence[Trigger]) -> Panel:
    """The panel with the features that rules read, as far as they can be computed from its bars.

    A trigger that reads another fails by itself.
    """
    rules = {(n, rule) for t in triggers for n, rule in (("entry", t.entry), ("exit", t.exit))}
    read = {name for n, rule in rules if rule for name in condition_expression(rule, n).reads}
    try:
        return with_indicators(panel, sorted(read))
    except InvalidInput:
        for name in sorted(read):
            try:
                panel = with_indicators(panel, [name])
            except InvalidInput:
                continue
        return panel


def _of_strategy(panel: Panel, trigger: Trigger) -> dict[str, TriggerEvents]:
    strategy = strategy_of(str(trigger.strategy))
    params = strategy.parse(trigger.params)
    known = np.zeros(len(panel), np.int8)
    try:
        bits, failures = conditions_where_possible(panel, [(strategy, params)])
        failed = {asset: str(of_asset[0]) for asset, of_asset in failures.items()}
    except InvalidInput as error:  # a column that it reads is not there
        bits = np.zeros((1, len(panel)), np.uint8)
        failed = dict.fromkeys(panel.assets, f"strategy {strategy.name}: {error}")
    return {
        asset: TriggerEvents(bits[0, rows], known[rows], failed.get(asset, ""))
        for asset, rows in ((asset, panel.rows_of(asset)) for asset in panel.assets)
    }


def _of_rules(panel: Panel, trigger: Trigger) -> dict[str, TriggerEvents]:
    bits, unknown = np.zeros(len(panel), np.uint8), np.zeros(len(panel), np.int8)
    failure = ""
    try:
        if trigger.exit is not None:
            rule = condition_expression(trigger.exit, "exit")
            true, false = rule.known(panel)
            bits[true] |= _BOTH_EXITS
            unknown = _unknown(panel, rule, true | false)
        if trigger.entry is not None:
            rule = condition_expression(trigger.entry, "entry")
            true, false = rule.known(panel)
            bits[true] |= _BOTH_ENTRIES
            unknown = _unknown(panel, rule, true | false)
    except BacktestError as error:
        bits[:], unknown[:], failure = 0, 0, str(error)
    rows = {asset: panel.rows_of(asset) for asset in panel.assets}
    return {asset: TriggerEvents(bits[r], unknown[r], failure) for asset, r in rows.items()}


def _unknown(panel: Panel, rule: ConditionExpression, known: np.ndarray) -> np.ndarray:
    """Why a rule is neither true nor false after its warm-up, at each row; 0 where it is not so."""
    first = panel.offsets[:-1]
    if rule.warm_up is not None:
        warm = first + rule.warm_up
    else:  # from its first value on
        rows = np.where(known, np.arange(len(panel)), len(panel))
        bounds = zip(first, panel.offsets[1:], strict=True)
        warm = np.array([rows[a:b].min(initial=b) for a, b in bounds], np.int64)
    after = np.arange(len(panel)) >= warm[panel.segment_of_row]
    missing = np.zeros(len(panel), bool)
    columns = with_indicators(panel, rule.reads)
    for name in rule.reads:
        if columns[name].dtype.kind == "f":
            missing |= np.isnan(columns[name])
    why = np.where(missing, np.int8(FEATURE_MISSING), np.int8(RULE_UNDEFINED))
    return np.where(after & ~known, why, np.int8(0))
