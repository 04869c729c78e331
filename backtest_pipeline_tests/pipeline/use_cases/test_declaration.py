"""Walk-forwards declared before the first trial: when they count, and by how many."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import backtest_pipeline as bp
from backtest_pipeline.market.errors import InvalidInput, StoreError, UnknownName
from backtest_pipeline.pipeline.execution import declare, execute
from backtest_pipeline.pipeline.results import Declaration, WalkForwardResult
from backtest_pipeline.pipeline.specs import RunSpec, WalkForwardSpec
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.sql import count, execute_sql, scalar

SMALL: dict[str, Any] = {
    "symbol": "S-ALPHA",
    "strategy": "ema",
    "params": {"fast": [5, 9], "slow": [21, 40]},
}


def declared(workspace: Workspace, **changes: Any) -> Declaration:
    spec = WalkForwardSpec.model_validate({**SMALL, **changes})
    return declare(workspace, load_settings(bars=""), spec)


def walked(workspace: Workspace, **changes: Any) -> WalkForwardResult:
    spec = WalkForwardSpec.model_validate({**SMALL, **changes})
    result = execute(workspace, load_settings(bars=""), spec)
    assert isinstance(result, WalkForwardResult)
    return result


def judged_by(workspace: Workspace, result: WalkForwardResult) -> Any:
    known = f"SELECT n_walk_forwards FROM walk_forward_runs WHERE run_id = '{result.run_id}'"
    return scalar(workspace.database, known)


def needed(result: WalkForwardResult) -> float:
    """The probabilistic Sharpe ratio that the reason of a verdict asks for."""
    assert result.verdict in ("overfit", "insignificant")
    return float(result.reason.split(", ")[-1 if "as one" not in result.reason else -2].split()[0])


def test_a_declared_walk_forward_is_judged_alone_whatever_is_tried_later(
    workspace: Workspace,
) -> None:
    declaration = declared(workspace)
    assert count(workspace.database, "trials") == 0
    mine = walked(workspace)
    assert mine.declared_at == declaration.declared_at
    assert (mine.n_walk_forwards, needed(mine)) == (1, 0.95)
    others = [walked(workspace, test_days=days) for days in (100, 120)]
    assert [other.declared_at for other in others] == [None, None]
    assert [judged_by(workspace, one) for one in (mine, *others)] == [1, 3, 3]
    assert needed(others[1]) == pytest.approx(1 - 0.05 / 3, abs=1e-3)
    again = walked(workspace)
    assert (again.n_walk_forwards, again.declared_at) == (1, declaration.declared_at)


def test_a_declaration_after_a_trial_is_refused(workspace: Workspace) -> None:
    settings = load_settings(bars="")
    run = RunSpec(symbol="S-ALPHA", strategy="ema_crossover", params={"fast": 9, "slow": 21})
    execute(workspace, settings, run)
    with pytest.raises(InvalidInput, match=r"the ledger has 1 trial of it there, the first of 20"):
        declared(workspace)
    assert count(workspace.database, "walk_forward_declarations") == 0
    # Elsewhere nothing was tried: another strategy, asset or timeframe.
    assert declared(workspace, strategy="rsi", params={}).strategy == "rsi_mean_revert"
    assert declared(workspace, symbol="S-BETA").symbol == "S-BETA"
    assert declared(workspace, timeframe="1W").timeframe == "1W"


def test_one_that_was_declared_stays_so_and_is_told_again(workspace: Workspace) -> None:
    first = declared(workspace)
    walked(workspace)
    assert declared(workspace) == first
    with pytest.raises(InvalidInput, match="cannot be declared any more"):
        declared(workspace, test_days=100)


def test_another_window_space_or_schedule_is_another_walk_forward(workspace: Workspace) -> None:
    declaration = declared(workspace)
    assert walked(workspace, start="2021-01-01").declared_at is None
    assert walked(workspace, params={"fast": [5, 9], "slow": [21, 41]}).declared_at is None
    assert walked(workspace, costs={"fee_bps": 20}).declared_at is None
    assert walked(workspace).declared_at == declaration.declared_at


def test_whoever_declares_several_has_as_many_chances(workspace: Workspace) -> None:
    declared(workspace)
    for days in (100, 120, 150):
        declared(workspace, test_days=days)
    assert walked(workspace).n_walk_forwards == 1, "the others have not been run"
    second = walked(workspace, test_days=100)
    assert (second.n_walk_forwards, needed(second)) == (2, 0.975)
    walked(workspace, mode="rolling")
    walked(workspace, mode="rolling", test_days=100)
    assert [walked(workspace).n_walk_forwards, judged_by(workspace, second)] == [4, 4]


def test_a_later_declaration_of_another_strategy_judges_again(workspace: Workspace) -> None:
    declared(workspace)
    mine = walked(workspace)
    walked(workspace, test_days=100)
    assert judged_by(workspace, mine) == 1
    declared(workspace, strategy="rsi", params={})
    assert judged_by(workspace, mine) == 2


def test_the_database_sets_the_stamp_and_refuses_a_change(workspace: Workspace) -> None:
    database = workspace.database
    declared(workspace)
    walked(workspace)
    row = "SELECT gen_random_uuid(), strategy, symbol, tf, params, config_hash, window_start"
    into = "INSERT INTO walk_forward_declarations"
    execute_sql(database, f"{into} {row}, window_end, '2001-01-01' FROM walk_forward_declarations")
    assert scalar(database, "SELECT min(declared_at) > '2002-01-01' FROM walk_forward_declarations")
    for change in (
        "UPDATE walk_forward_declarations SET declared_at = '2001-01-01'",
        "DELETE FROM walk_forward_declarations",
        "TRUNCATE walk_forward_declarations",
    ):
        with (
            pytest.raises(StoreError, match="never changed or removed"),
            database.begin() as connection,
        ):
            connection.execute(sa.text(change))


def test_from_python_it_is_judged_by_the_same_count(workspace: Workspace) -> None:
    bars = bp.load_bars(asset="S-ALPHA")
    declared(workspace)

    def judged(**changes: Any) -> str:
        walk = bp.walk_forward(
            bars, "ema", SMALL["params"], asset="S-ALPHA", workspace=workspace, **changes
        )
        return walk.efficiency.reason

    assert "0.950 needed" in judged()
    assert "0.975 needed, as one of 2" in judged(schedule=bp.Schedule(test=100))
    assert "0.983 needed, as one of 3" in judged(schedule=bp.Schedule(test=120))
    assert "0.950 needed" in judged()


def test_a_declaration_cannot_be_kept_open_until_results_are_known(workspace: Workspace) -> None:
    database = workspace.database
    walked(workspace)
    trial = "INSERT INTO trials (trial_id, configuration_id, strategy, params, symbol, tf, source,"
    trial += " config_hash, dataset_version, code_version, n_obs, first_week, weekly_returns)"
    trial += " SELECT gen_random_uuid(), configuration_id, strategy, params, 'B', tf, source,"
    trial += " config_hash, dataset_version, code_version, n_obs, first_week, weekly_returns"
    trial += " FROM trials LIMIT 1"
    with psycopg.connect(database.conninfo) as declaring:
        declaring.execute(
            "INSERT INTO walk_forward_declarations SELECT gen_random_uuid(), 'ema_crossover', 'B',"
            " '1D', '{}', 'x', NULL, NULL, now()"
        )
        with psycopg.connect(database.conninfo, autocommit=True) as trying:
            trying.execute("SET lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                trying.execute(trial.encode())
    execute_sql(database, trial)


def test_one_written_past_the_check_has_no_effect(workspace: Workspace) -> None:
    late = walked(workspace)
    walked(workspace, test_days=100)
    execute_sql(
        workspace.database,
        "INSERT INTO walk_forward_declarations SELECT configuration_id, strategy, symbol, tf,"
        " params, config_hash, window_start, window_end, '2001-01-01' FROM trials WHERE trial_id"
        f" = (SELECT trial_id FROM backtest_runs WHERE run_id = '{late.run_id}')",
    )
    again = walked(workspace, test_days=120)
    assert (again.n_walk_forwards, judged_by(workspace, late)) == (3, 3)
    assert walked(workspace).declared_at is None


def test_what_could_not_be_run_cannot_be_declared(workspace: Workspace) -> None:
    with pytest.raises(UnknownName, match="S-NONE"):
        declared(workspace, symbol="S-NONE")
    with pytest.raises(UnknownName, match="fats"):
        declared(workspace, params={"fats": [5]})
    assert count(workspace.database, "walk_forward_declarations") == 0
