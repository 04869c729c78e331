"""Cross-sections of the folder, as the asset runs them."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from backtest_pipeline.market.errors import PartitionError
from backtest_pipeline.pipeline.specs import CrossSectionSpec
from backtest_pipeline.pipeline.use_cases.cross_section import refresh_at, run_cross_section
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.run_tables.leaderboard import runs_to_rank
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.own_strategies import own_strategies, write
from backtest_pipeline_tests.sql import scalar

RULES = 'kind = "cross_section"\nname = "{name}"\nscore = "{score}"\ncount = 2\nrebalance = 30\n'
STRENGTH = RULES.format(name="strength", score="rsi_14")


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
