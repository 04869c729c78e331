"""Specs: what is wrong with one is said by field, and options come to the same spec."""

from __future__ import annotations

from typing import Any

import pytest

from backtest_pipeline.market.errors import BacktestError, InvalidInput, UnknownName
from backtest_pipeline.pipeline.runs.identity import RunTerms, configurations
from backtest_pipeline.pipeline.spec_options import options_of, spec_from
from backtest_pipeline.pipeline.specs import RunSpec, SimulationSpec, WalkForwardSpec, spec_of
from backtest_pipeline.service.routes.filters import RunQuery
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.trading.sizing import FixedFractional

ONE = {"symbol": "BTC"}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"symbl": "BTC"}, UnknownName, "unknown field 'symbl'; did you mean symbol"),
        ({"costs": {"fee": 3}}, UnknownName, "unknown field 'fee'; did you mean fee_bps"),
        ({"sizing": {"mode": "atr", "rsk": 1}}, UnknownName, "'rsk'; did you mean risk?"),
        ({"sizing": {"mode": "fixd"}}, UnknownName, "unknown sizing 'fixd'; did you mean fixed"),
        ({"direction": "lng"}, UnknownName, "unknown direction 'lng'; did you mean long"),
        ({"params": {"fast": "9"}}, InvalidInput, "params.fast"),
        (
            {"symbol": "A\0B"},
            InvalidInput,
            "symbol must have no blanks around it, and no control characters, not",
        ),
        ({"initial_cash": float("nan")}, InvalidInput, "initial_cash must be a finite number"),
        (
            {"kind": "walkforward", "train_days": 0},
            InvalidInput,
            "train_days must be above 0, not 0",
        ),
    ],
)
def test_what_is_wrong_is_said_by_field(
    changes: dict[str, Any], error: type[BacktestError], message: str
) -> None:
    with pytest.raises(error, match=message.replace("?", r"\?")):
        spec_of({**ONE, **changes})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stops": {"stop_loss": 5}}, "it is a fraction, 5 % is 0.05"),
        ({"risk_free": 0.04}, "risk_free must be above -0.01 and below 0.01, not 0.04"),
        ({"costs": {"venue": "binance_prep"}}, "did you mean binance_perp"),
    ],
)
def test_a_wrong_unit_is_refused_with_the_right_one(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BacktestError, match=message):
        SimulationSpec.model_validate(given).config()


def test_a_service_may_say_use_cache_in_either_way() -> None:
    for name in ("useCache", "use_cache"):
        spec = spec_of({**ONE, name: False})
        assert isinstance(spec, RunSpec)
        assert not spec.use_cache


def test_options_that_are_left_alone_give_the_spec_of_the_defaults() -> None:
    for kind in (RunSpec, WalkForwardSpec):
        typed = {o.name: o.default for o in options_of(kind)} | {"asset": "BTC"}
        assert spec_from(kind, typed) == kind(symbol="BTC")


def test_what_is_at_its_default_is_no_part_of_what_an_id_follows_from() -> None:
    preset = SignalRow(1, "ema_9_21", "ema_crossover", {"fast": 9, "slow": 21})
    (found,) = configurations([preset], ["BTC"], "1D", RunTerms(SimulationConfig()))
    assert found.identifying == {
        "strategy": "ema_crossover",
        "symbol": "BTC",
        "params": {},
        "timeframe": "1D",
    }
    again = RunSpec.model_validate(found.config)
    assert (again.symbol, again.config()) == (
        "BTC",
        SimulationConfig(sizing=FixedFractional()),
    )
    other = SignalRow(2, "another name", "ema_crossover", {"slow": 21})
    assert (
        configurations([other], ["BTC"], "1D", RunTerms(SimulationConfig()))[0].hash == found.hash
    )


@pytest.mark.parametrize(("spelled", "name"), [("1d", "1D"), ("7d", "7D"), ("1m", "1m")])
def test_a_timeframe_is_one_however_it_is_spelled(spelled: str, name: str) -> None:
    assert spec_of({**ONE, "timeframe": spelled}) == spec_of({**ONE, "timeframe": name})
    assert RunQuery.model_validate({"timeframe": spelled}).timeframe == name  # filters of lists too
    assert RunQuery.model_validate({"timeframe": "7X"}).timeframe == "7X"
