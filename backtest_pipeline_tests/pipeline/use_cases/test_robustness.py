"""Robustness as a use case: what is stored, when it is kept, and what it agrees with."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest_pipeline as bp
from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.robustness.robustness import DOUBTS, NUMBERS
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import VolatilityScaled
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.pipeline.on_demand import assess_once, backtest_once
from backtest_pipeline_tests.sql import rows, scalar

STORED = "SELECT * FROM run_robustness ORDER BY run_id"
YEARS = Window(date(2023, 1, 1), date(2025, 1, 1))


def terms(
    window: Window = YEARS, config: SimulationConfig | None = None, **changes: Any
) -> dict[str, Any]:
    return {
        "signal": "ema_9_21",
        "asset": "S-ALPHA",
        "tf": "1D",
        "terms": RunTerms(config or SimulationConfig(), window),
        **changes,
    }


def test_what_is_stored_is_what_the_python_api_finds(workspace: Workspace) -> None:
    costs = CostModel(8.0, 4.0)
    stored = assess_once(
        workspace,
        SampleMarket(),
        **terms(Window(), config=SimulationConfig(costs)),
        draws=60,
        seed=3,
    )
    found = bp.robustness(
        bp.load_bars(asset="S-ALPHA"),
        "ema",
        {"fast": 9, "slow": 21},
        costs=costs,
        draws=60,
        seed=3,
    )
    both = {**stored, **stored["robustness"]}
    for name in NUMBERS:
        assert both[name] == pytest.approx(found.numbers[name], rel=1e-9), name
    assert (both["fragile"], tuple(both["reasons"])) == (found.fragile, found.reasons)
    assert both["undefined"] == found.undefined == {}
    assert [s["total_return"] for s in both["envelope"]] == pytest.approx(
        [s.total_return for s in found.scenarios]
    )

    read, uri = workspace.artifacts.read_table, both["artifact_uri"]
    bands = read(uri, "bands.parquet").to_pandas().set_index("ts")
    pd.testing.assert_frame_equal(bands, found.bands, check_freq=False, check_index_type=False)
    pd.testing.assert_frame_equal(read(uri, "samples.parquet").to_pandas(), found.samples)


def test_the_same_question_stores_nothing_and_a_rebuild_the_same(workspace: Workspace) -> None:
    first = assess_once(workspace, SampleMarket(), **terms(), draws=20)
    stored = rows(workspace, STORED)
    versions = scalar(workspace, "SELECT xmin::text FROM run_robustness")
    assert assess_once(workspace, SampleMarket(), **terms(), draws=20) == first
    assert scalar(workspace, "SELECT xmin::text FROM run_robustness") == versions
    assess_once(workspace, SampleMarket(), **terms(), draws=20, rebuild=True)
    assert rows(workspace, STORED) == stored


def test_other_draws_or_another_seed_take_the_place_of_what_was_found(
    workspace: Workspace,
) -> None:
    first = assess_once(workspace, SampleMarket(), **terms(), draws=20)
    more = assess_once(workspace, SampleMarket(), **terms(), draws=30)
    other = assess_once(workspace, SampleMarket(), **terms(), draws=30, seed=1)
    (only,) = rows(workspace, STORED)
    assert (only["draws"], only["seed"]) == (30, 1)
    assert first["run_id"] == more["run_id"] == other["run_id"]
    numbers = [[row["robustness"][name] for name in DOUBTS] for row in (first, more, other)]
    assert numbers[0] != numbers[1] != numbers[2]


def test_files_that_were_damaged_are_written_again(workspace: Workspace) -> None:
    found = assess_once(workspace, SampleMarket(), **terms(), draws=10)["robustness"]
    file = workspace.artifacts.root / found["artifact_uri"] / "bands.parquet"
    before = file.read_bytes()
    file.write_bytes(before[:-1])
    assert assess_once(workspace, SampleMarket(), **terms(), draws=10)["robustness"] == found
    assert file.read_bytes() == before


def test_a_run_that_goes_takes_its_robustness_with_it(workspace: Workspace) -> None:
    assess_once(workspace, SampleMarket(), **terms(), draws=10)
    backtest_once(workspace, SampleMarket(), **terms(), rebuild=True)
    assert rows(workspace, STORED) == []


def test_what_is_undefined_is_null_with_its_reason(workspace: Workspace) -> None:
    idle = Window(date(2023, 1, 1), date(2023, 1, 4))
    found = assess_once(workspace, SampleMarket(), **terms(idle), draws=10)
    assert found["trade_count"] == 0
    (row,) = rows(workspace, STORED)
    assert row["fragile"] is None
    assert row["reasons"] == []
    missing = {name for name in DOUBTS if row[name] is None}
    assert missing == set(DOUBTS)
    assert missing | {"fragile", "sharpe"} == set(row["undefined"])
    assert json.loads(json.dumps(row["undefined"]))["fragile"] == "no trade"


def test_the_doubted_run_is_the_stored_run_with_stops_and_sizing_too(workspace: Workspace) -> None:
    config = SimulationConfig(
        CostModel(funding_bps_day=2.0),
        VolatilityScaled(0.3, 20),
        stops=StopRules(trailing_atr=3.0, take_profit=0.2, max_bars=40),
    )
    found = assess_once(workspace, SampleMarket(), **terms(config=config), draws=5)
    first = found["robustness"]["envelope"][0]
    assert first["assumption"] == "as run"
    assert first["total_return"] == found["total_return"]
    assert found["trade_count"] > 3


def test_a_table_of_funding_rates_is_paid_in_every_repetition(workspace: Workspace) -> None:
    each_day = pd.date_range("2022-12-31", "2025-01-02", freq="D", tz="UTC")
    rates = FundingRates.of({"S-ALPHA": pd.Series(5e-4, each_day)})
    free = assess_once(workspace, SampleMarket(), **terms(), draws=5)
    question = RunTerms(SimulationConfig(), YEARS, funding=rates)
    paid = assess_once(workspace, SampleMarket(), **{**terms(), "terms": question}, draws=5)
    assert paid["run_id"] != free["run_id"]
    assert paid["total_return"] == paid["robustness"]["envelope"][0]["total_return"]
    for name in ("random_entry_median", "random_fill_low", "random_fill_high"):
        assert paid["robustness"][name] != free["robustness"][name]


def test_bad_questions_store_nothing(workspace: Workspace) -> None:
    for changes, error, message in (
        ({"draws": 0}, InvalidInput, "draws must be a whole number from 1 to 10,000, not 0"),
        ({"seed": -1}, InvalidInput, "seed must be"),
        ({"signal": "ema_9_12"}, UnknownName, "did you mean ema_9_21"),
        (terms(Window(date(2024, 1, 1), date(2024, 1, 2))), InvalidInput, "has 1 bars"),
    ):
        with pytest.raises(error, match=message):
            assess_once(workspace, SampleMarket(), **{**terms(), **changes})
    assert rows(workspace, STORED) == []


def test_the_api_takes_what_a_simulation_takes() -> None:
    bars = bp.load_bars(asset="S-BETA", timeframe="1W")
    eight_hours = pd.date_range(bars.index[0], bars.index[-1], freq="8h")
    asked_with = {
        "costs": CostModel(5.0),
        "stops": bp.StopRules(stop_loss=0.1, take_profit=0.1),
        "funding": pd.Series(1e-4, eight_hours),
        "finer": bp.load_bars(asset="S-BETA", timeframe="1D"),
        "initial_cash": 500.0,
        "max_leverage": 2.0,
        "sizing": bp.FixedFractional(2.0),
        "delay_bars": 1,
        "intrabar": "target_first",
    }
    ema = {"fast": 3, "slow": 8}
    result = bp.run_backtest(bars, "ema", ema, direction="long", **asked_with)
    found = bp.robustness(bars, "ema", ema, direction="long", **asked_with, draws=5)
    assert len(result.trades) > 5
    for name in ("total_return", "sharpe", "max_drawdown"):
        assert found.numbers[name] == result.metrics[name]
    assert found.scenarios[0].intrabar == "target_first"
    assert found.scenarios[1].delay_bars == 2
    assert np.all(found.bands.iloc[0] == 500.0)
    with pytest.raises(UnknownName, match="intrabar"):
        bp.robustness(bars, "ema", ema, intrabar="best")
    with pytest.raises(UnknownName, match="direction"):
        bp.robustness(bars, "ema", ema, direction="up")
    with pytest.raises(InvalidInput, match="draws must be"):
        bp.robustness(bars, "ema", ema, draws=0)
