"""The same question gives the same run, whoever asks it and however it is asked."""

from __future__ import annotations

from typing import Any

import pytest

from backtest_pipeline.market.errors import (
    BadRange,
    BadSymbols,
    ConfigurationError,
    EmptyGrid,
    GridTooLarge,
    InvalidInput,
    NotEnoughBars,
    UnknownName,
)
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.results import (
    PortfolioResult,
    RunResult,
    SweepResult,
    WalkForwardResult,
)
from backtest_pipeline.pipeline.specs import (
    PortfolioSpec,
    RunSpec,
    SweepSpec,
    WalkForwardSpec,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.storage.run_tables.runs import current_runs
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.sql import count, execute_sql

EMA = {"fast": 9, "slow": 21}
WEEKLY = {"timeframe": "1W", "strategy": "ema"}


def run_of(workspace: Workspace, symbol: str = "S-ALPHA", **changes: Any) -> RunResult:
    asked = {**WEEKLY, "symbol": symbol, "params": EMA} | changes
    found = execute(workspace, settings(), RunSpec.model_validate(asked), "quant")
    assert isinstance(found, RunResult)
    return found


def portfolio_of(workspace: Workspace, *symbols: str, **changes: object) -> PortfolioResult:
    asked = {**WEEKLY, "symbols": list(symbols), "params": EMA} | changes
    found = execute(workspace, settings(), PortfolioSpec.model_validate(asked), "quant")
    assert isinstance(found, PortfolioResult)
    return found


def settings():
    return load_settings(bars="")


def test_a_question_about_a_registered_signal_is_answered_by_the_run_of_the_refresh(
    workspace: Workspace,
) -> None:
    refresh(workspace, SampleMarket(), [Partition("S-ALPHA", "1W")])
    before = count(workspace, "backtest_runs")
    with workspace.database.begin() as connection:
        known = {run["signal_name"]: run for run in current_runs(connection)}
    found = run_of(workspace)
    assert found.run_id == known["ema_9_21"]["run_id"]
    assert found.result_fingerprint == known["ema_9_21"]["result_fingerprint"]
    spelled_out = run_of(workspace, params={"slow": 21, "fast": 9, "cooldown_bars": 0})
    assert spelled_out.run_id == found.run_id
    assert count(workspace, "backtest_runs") == before


def test_a_portfolio_that_was_edited_is_as_it_was_after_a_rebuild(workspace: Workspace) -> None:
    before = portfolio_of(workspace, "S-ALPHA", "S-BETA")
    execute_sql(workspace, "UPDATE portfolio_runs SET metrics = '{}', is_current = TRUE")
    spec = PortfolioSpec.model_validate({**WEEKLY, "symbols": ["S-ALPHA", "S-BETA"], "params": EMA})
    assert execute(workspace, settings(), spec, rebuild=True) == before
    assert count(workspace, "portfolio_runs WHERE is_current") == 1


def test_parameters_of_ones_own_are_signals_that_no_refresh_computes(
    workspace: Workspace,
) -> None:
    found = run_of(workspace, params={"fast": 5, "slow": 13})
    assert (found.strategy, found.preset) == ("ema_crossover", None)
    assert (found.params["fast"], found.params["slow"]) == (5, 13)
    assert run_of(workspace, params={"slow": 13, "fast": 5}) == found
    assert count(workspace, "dim_signals WHERE NOT is_active") == 1
    refresh(workspace, SampleMarket(), [Partition("S-ALPHA", "1W")])
    with workspace.database.begin() as connection:
        assert len(current_runs(connection)) == 6
    assert count(workspace, "signals WHERE signal_id > 100000") == 0


def test_many_assets_at_once_give_each_the_run_that_it_has_alone(workspace: Workspace) -> None:
    alone = {symbol: run_of(workspace, symbol) for symbol in ("S-ALPHA", "S-BETA")}
    together = portfolio_of(workspace, "S-GAMMA", "S-BETA", "S-ALPHA")
    assert [member.symbol for member in together.members] == ["S-ALPHA", "S-BETA", "S-GAMMA"]
    for member in together.members[:2]:
        assert member.run_id == alone[member.symbol].run_id
    assert run_of(workspace, "S-GAMMA").run_id == together.members[2].run_id
    assert count(workspace, "run_requests WHERE requested_by = 'quant'") == 3


def test_a_portfolio_does_not_depend_on_the_order_of_its_assets_and_is_stored_once(
    workspace: Workspace,
) -> None:
    weights = {"S-ALPHA": 0.25, "S-BETA": 0.75}
    one = portfolio_of(workspace, "S-ALPHA", "S-BETA", weights=weights)
    other = portfolio_of(workspace, "S-BETA", "S-ALPHA", weights=dict(reversed(weights.items())))
    assert one == other
    assert one.scheme == "fixed"
    assert count(workspace, "portfolio_runs WHERE NOT is_current") == 1
    swapped = portfolio_of(
        workspace, "S-ALPHA", "S-BETA", weights={"S-ALPHA": 0.75, "S-BETA": 0.25}
    )
    assert swapped.portfolio_id != one.portfolio_id
    assert swapped.metrics["total_return"] != one.metrics["total_return"]
    assert swapped.metrics["n_trials"] == 2  # the other one was tried as well


def test_all_weight_on_one_asset_is_that_assets_run(workspace: Workspace) -> None:
    alone = run_of(workspace)
    found = portfolio_of(workspace, "S-ALPHA", "S-BETA", weights={"S-ALPHA": 1.0, "S-BETA": 0.0})
    # Capital is spread at the second bar's close, and until then the account has not traded.
    expected = alone.metrics["total_return"]
    assert found.metrics["total_return"] == pytest.approx(expected, rel=1e-9)


def test_a_search_names_the_best_and_stores_it_as_a_run(workspace: Workspace) -> None:
    question = SweepSpec.model_validate(
        {**WEEKLY, "symbol": "S-ALPHA", "params": {"fast": [3, 5, 8], "slow": [13, 21]}, "top": 3}
    )
    found = execute(workspace, settings(), question, "quant")
    assert isinstance(found, SweepResult)
    assert (found.n_combinations, len(found.ranked)) == (6, 3)
    sharpes = [combination.metrics["sharpe"] for combination in found.ranked]
    assert sharpes == sorted(sharpes, key=lambda sharpe: -(sharpe or 0.0))
    best = run_of(workspace, params=found.ranked[0].params)
    assert best.run_id == found.best_run.run_id
    assert best.metrics["sharpe"] == sharpes[0]
    assert count(workspace, "trials WHERE source = 'sweep'") == 6


@pytest.mark.parametrize("strategy", ["ema", "bollinger"])
def test_a_walk_forward_of_any_strategy_is_stored_with_its_folds(
    workspace: Workspace, strategy: str
) -> None:
    question = WalkForwardSpec.model_validate(
        {**WEEKLY, "strategy": strategy, "symbol": "S-ALPHA", "train_days": 730, "test_days": 365}
    )
    found = execute(workspace, settings(), question, "quant")
    assert isinstance(found, WalkForwardResult)
    assert len(found.folds) >= 2
    assert all(fold.train_end < fold.test_start for fold in found.folds)
    assert found.folds[0].train.keys() == found.folds[0].test.keys()
    assert execute(workspace, settings(), question, "quant") == found


def test_a_run_that_others_took_the_place_of_takes_it_again_when_it_is_asked_for(
    workspace: Workspace,
) -> None:
    found = run_of(workspace)
    execute_sql(workspace, "UPDATE backtest_runs SET is_current = FALSE")
    assert run_of(workspace) == found
    assert count(workspace, "backtest_runs WHERE is_current") == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"symbol": "NOBODY"}, UnknownName),
        ({"strategy": "nonsense"}, UnknownName),
        ({"timeframe": "9X"}, UnknownName),
        ({"params": {"fast": 21, "slow": 9}}, InvalidInput),
        ({"params": {"fast": 9, "slow": 21, "speed": 1}}, InvalidInput),
        ({"start": "2024-01-01", "end": "2023-01-01"}, BadRange),
        ({"start": "1999-01-01", "end": "2000-01-01"}, NotEnoughBars),
        ({"benchmark": "NOBODY"}, UnknownName),
        ({"costs": {"venue": "nowhere"}}, UnknownName),
        ({"costs": {"fee_bps": -1}}, InvalidInput),
        ({"sizing": {"mode": "fixed", "fraction": 0}}, InvalidInput),
    ],
)
def test_questions_without_an_answer_say_why(
    workspace: Workspace, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        run_of(workspace, **changes)
    assert count(workspace, "backtest_runs") == 0


@pytest.mark.parametrize(
    ("symbols", "changes", "error"),
    [
        (("S-ALPHA",), {}, BadSymbols),
        (("S-ALPHA", "S-ALPHA"), {}, BadSymbols),
        (("S-ALPHA", "S-BETA"), {"weights": {"S-ALPHA": 1.0}}, BadSymbols),
        (("S-ALPHA", "S-BETA"), {"weights": {"S-ALPHA": 0.5, "S-BETA": 0.4}}, InvalidInput),
        (("S-ALPHA", "S-BETA"), {"weights": {"S-ALPHA": 1.5, "S-BETA": -0.5}}, InvalidInput),
        (("S-ALPHA", "S-BETA"), {"scheme": "luck"}, UnknownName),
    ],
)
def test_portfolios_that_cannot_be_are_refused(
    workspace: Workspace, symbols: tuple[str, ...], changes: dict[str, Any], error: type
) -> None:
    with pytest.raises(error):
        portfolio_of(workspace, *symbols, **changes)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"fast": list(range(1, 60)), "slow": list(range(60, 70))}, GridTooLarge),
        ({"fast": [50, 60], "slow": [10, 20]}, EmptyGrid),
    ],
)
def test_grids_that_cannot_be_swept_are_refused(
    workspace: Workspace, params: dict[str, object], error: type
) -> None:
    question = SweepSpec.model_validate({**WEEKLY, "symbol": "S-ALPHA", "params": params})
    with pytest.raises(error):
        execute(workspace, settings(), question, "quant")


def test_an_exchange_is_no_source_where_features_are_the_users_own(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_FEATURES_TABLE", "public.features")
    with pytest.raises(ConfigurationError, match="cannot replace it"):
        run_of(workspace, exchange="binance")
