"""The command that assesses a stored run's robustness."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from backtest_pipeline.pipeline.spec_options import options_of
from backtest_pipeline.pipeline.specs import RobustnessSpec
from backtest_pipeline.strategies.registry import strategies
from backtest_pipeline.trading.costs import CostModel

_BY_THEIR_OWN = ("symbol", "timeframe", "strategy", "params", "costs", "sizing", "stops", "funding")


def assess_command(config: Mapping[str, Any]) -> str:
    """`backtest-pipeline robustness ...` for the configuration of a plain run.

    Fields at their default are left out. Funding rates of a run's own are named by no option.
    """
    words = ["backtest-pipeline", "robustness", *_words(config)]
    return " ".join(map(shlex.quote, words))


def _words(config: Mapping[str, Any]) -> Iterator[str]:
    yield from ("--asset", config["symbol"], "--tf", config["timeframe"])
    yield from ("--strategy", config["strategy"])
    known = strategies().get(config["strategy"])
    usual = known.parse({}).model_dump(mode="json") if known else {}
    for name, value in config["params"].items():
        if value is not None and value != usual.get(name):
            yield from ("--param", f"{name}={value}")
    defaults = {option.name: option.default for option in options_of(RobustnessSpec)}
    defaults |= {f.name: f.default for f in fields(CostModel)}
    plain = {name: value for name, value in config.items() if name not in _BY_THEIR_OWN}
    for name, value in {**plain, **config["costs"]}.items():
        if name in defaults and value is not None and value != defaults[name]:
            yield from (f"--{name.replace('_', '-')}", f"{value}")
    if sizing := _sizing(config["sizing"]):
        yield from ("--sizing", sizing)
    default_stops = {"atr_period": 14}
    stops = {
        name: value
        for name, value in config["stops"].items()
        if value is not None and value != default_stops.get(name)
    }
    if stops:
        yield from ("--stops", _pairs(stops))


def _sizing(sizing: Mapping[str, Any]) -> str:
    values = {name: value for name, value in sizing.items() if name != "mode" and value is not None}
    if sizing["mode"] == "fixed" and values.get("fraction") == 1.0:
        return ""
    return f"{sizing['mode']}:{_pairs(values)}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in values.items())
