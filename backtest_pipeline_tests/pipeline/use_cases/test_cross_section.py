"""Cross-sections of the folder, as the asset runs them, and rules that are given with a spec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from backtest_pipeline.market.errors import InvalidInput, PartitionError, StrategyRefused
from backtest_pipeline.pipeline.specs import CrossSectionSpec
from backtest_pipeline.pipeline.use_cases.cross_section import (
    refresh_at,
    rule_of_spec,
    run_cross_section,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.run_tables.leaderboard import runs_to_rank
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.own_strategies import own_strategies, write
from backtest_pipeline_tests.sql import column, scalar

RULES = 'kind = "cross_section"\nname = "{name}"\nscore = "{score}"\ncount = 2\nrebalance = 30\n'
STRENGTH = RULES.format(name="strength", score="rsi_14")
MOM = RULES.format(name="mom", score="rsi_14")
CURRENT = (
    "SELECT signal_name FROM backtest_runs WHERE is_current AND split = 'cross_section' ORDER BY 1"
)


def of_refresh(workspace: Workspace) -> set[UUID]:
    with workspace.database.begin() as connection:
        rows = runs_to_rank(connection, ["sharpe"])
    return {
        r["run_id"]
        for r in rows
        if r["of_refresh"] and str(r["strategy"]).startswith("cross_section:")
    }


def by_hand(workspace: Workspace, **asked: object) -> UUID:
    spec = CrossSectionSpec.model_validate({"strategy": "strength", **asked})
    return run_cross_section(workspace, load_settings(bars=""), spec)


def test_the_asset_takes_over_a_run_that_was_made_by_hand(
    refreshed: Workspace, tmp_path: Path
) -> None:
    with own_strategies(tmp_path / "own", {"strength.toml": STRENGTH}) as folder:
        run_id = by_hand(refreshed)
        assert of_refresh(refreshed) == set()
        found = refresh_at(refreshed, "1D", [], SimulationConfig())
        assert (dict(found.run_ids), found.n_new) == ({"strength": run_id}, 0)
        assert scalar(refreshed, "SELECT source FROM trials WHERE strategy LIKE 'cross%'") == "run"
        assert of_refresh(refreshed) == {run_id}
        few = by_hand(refreshed, symbols=["S-ALPHA", "S-MU"])
        assert of_refresh(refreshed) == {run_id} != {few}

        dear = SimulationConfig(costs=CostModel(fee_bps=50))
        (newer,) = refresh_at(refreshed, "1D", [], dear).run_ids.values()
        assert of_refresh(refreshed) == {newer} != {run_id}
        write(folder, "flat.toml", RULES.format(name="flat", score="close / close"))
        with pytest.raises(PartitionError, match="flat: nothing could be ranked"):
            refresh_at(refreshed, "1D", [], SimulationConfig())
        assert of_refresh(refreshed) == {run_id}

        for file in folder.glob("*.toml"):
            file.unlink()
        assert refresh_at(refreshed, "1D", [], SimulationConfig()).run_ids == {}
        assert of_refresh(refreshed) == set()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with own_strategies(tmp_path / "own") as folder:
        write(folder, "mom.toml", MOM)
        yield folder


def test_given_rules_never_take_the_name_of_another_strategy(folder: Path) -> None:
    other = RULES.format(name="mom", score="close / open")
    for rules, where in (
        (other, "mom.toml"),
        (MOM.replace('"mom"', '"ema_crossover"'), "shipped"),
        (MOM.replace('"mom"', '"rsi"'), "shipped"),
    ):
        with pytest.raises(StrategyRefused, match=where):
            rule_of_spec(CrossSectionSpec(rules=rules))
    spec = CrossSectionSpec(rules=MOM + 'description = "The same."')
    assert rule_of_spec(spec).version == rule_of_spec(CrossSectionSpec(strategy="mom")).version


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["ema_crossover", "ema"])
def test_a_strategy_on_single_assets_is_told_with_its_command(name: str) -> None:
    with pytest.raises(
        InvalidInput, match=r"^ema_crossover is a strategy on single assets; use `run`$"
    ):
        rule_of_spec(CrossSectionSpec(strategy=name))


def test_a_refresh_retires_what_the_folder_has_no_more(refreshed: Workspace, folder: Path) -> None:
    write(folder, "gone.toml", MOM.replace("mom", "gone"))
    first = refresh_at(refreshed, "1D", [], SimulationConfig())
    by_hand = CrossSectionSpec(rules=MOM.replace("mom", "by_hand"))
    run_cross_section(refreshed, load_settings(), by_hand)
    (folder / "gone.toml").unlink()
    again = refresh_at(refreshed, "1D", ["mom"], SimulationConfig())
    assert (again.n_new, column(refreshed, CURRENT)) == (0, ["by_hand", "gone", "mom"])
    refresh_at(refreshed, "1D", [], SimulationConfig())
    assert column(refreshed, CURRENT) == ["by_hand", "mom"]
    costly = SimulationConfig(costs=CostModel(fee_bps=50.0))
    dear = refresh_at(refreshed, "1D", ["mom"], costly)
    assert column(refreshed, CURRENT) == ["by_hand", "mom"]
    assert dear.run_ids["mom"] != first.run_ids["mom"]
    back = refresh_at(refreshed, "1D", [], SimulationConfig())
    assert back.run_ids["mom"] == first.run_ids["mom"]
    assert column(refreshed, CURRENT) == ["by_hand", "mom"]
