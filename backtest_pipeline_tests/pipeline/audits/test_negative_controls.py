"""Negative controls of a store: stored once, repeatable, and alarming where they should be."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.negative_controls import (
    Controls,
    believes_too_much,
    controls_summary,
    newest_controls,
    run_negative_controls,
    shown_controls,
    shown_power,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline_tests.pipeline.markets import refresh, whole

FEW = Controls(searches=60, n_bars=500)
DAILY = [Partition("S-ALPHA", "1D"), Partition("S-ZETA", "1D")]


def test_controls_are_stored_once_and_a_rebuild_finds_the_same(workspace: Workspace) -> None:
    refresh(workspace, whole(), DAILY)
    first = run_negative_controls(workspace, FEW)
    assert [row["world"] for row in first] == ["random_walk", "shuffled_bars"]
    for row in first:
        assert (row["n_searches"], row["n_bars"], row["n_assets"]) == (60, 500, 2)
        assert row["rate"] == row["n_significant"] / 60 <= 0.05 < row["n_naive"] / 60
        assert row["rate"] < row["upper_bound"] < 1
        assert row["n_trials"] > 20
        assert row["gate_set"] == "default"
    assert run_negative_controls(workspace, FEW) == first
    again = run_negative_controls(workspace, FEW, rebuild=True)
    passing = {"created_at"}
    assert [{k: v for k, v in row.items() if k not in passing} for row in again] == [
        {k: v for k, v in row.items() if k not in passing} for row in first
    ]
    assert again[0]["created_at"] > first[0]["created_at"]
    other = run_negative_controls(workspace, Controls(60, 500, seed=1))
    assert other[0]["control_id"] != first[0]["control_id"]
    assert newest_controls(workspace) == other
    assert controls_summary(other).numbers["searches"] == 120


def test_more_than_one_in_twenty_in_any_world_is_too_much(workspace: Workspace) -> None:
    refresh(workspace, whole(), DAILY)
    rows = run_negative_controls(workspace, FEW)
    assert not believes_too_much(rows)
    with workspace.database.begin() as connection:
        for world, rate in (("random_walk", 0.05), ("shuffled_bars", 0.0501)):
            connection.execute(
                sa.text(
                    "UPDATE negative_controls SET rate = :rate, upper_bound = 1 WHERE world = :w"
                ),
                {"rate": rate, "w": world},
            )
    rows = newest_controls(workspace)
    assert not believes_too_much(rows[:1])
    assert believes_too_much(rows)
    for name in ("run_rate", "walk_forward_rate"):
        assert believes_too_much([{**rows[0], name: 0.0501}])


def test_power_stands_beside_the_false_positives(workspace: Workspace) -> None:
    refresh(workspace, whole(), DAILY)
    rows = run_negative_controls(workspace, Controls(50, 900, planted=(4.0, 1.0)))
    assert [(row["planted"], row["world"]) for row in rows] == [
        (planted, world)
        for planted in (0.0, 1.0, 4.0)
        for world in ("random_walk", "shuffled_bars")
    ]
    assert len(shown_controls(rows)) == 2
    assert not believes_too_much(rows), "an edge that is found is no false positive"
    power = shown_power(rows)
    assert [row["true_sharpe"] for row in power] == [1, 1, 4, 4]
    assert all(row["walk_forward"] <= row["declared"] for row in power)
    assert power[0]["declared"] < power[2]["declared"]
    assert power[0]["passed_gates"] <= power[0]["significant"] < power[2]["significant"]
    share = power[0]["declared"]
    error = (share * (1 - share) / rows[2]["n_walk_forwards"]) ** 0.5
    assert power[0]["declared_se"] == pytest.approx(error, abs=1e-3)
    assert rows[2]["n_walk_forwards"] == 50
    assert controls_summary(rows).tables["power"] == power
    assert newest_controls(workspace) == rows


def test_bad_questions_are_refused(workspace: Workspace) -> None:
    with pytest.raises(InvalidInput, match="no asset has 100 stored bars"):
        run_negative_controls(workspace, FEW)
    with pytest.raises(UnknownName, match="gate set"):
        run_negative_controls(workspace, Controls(10, 500, gates="none"))
    with pytest.raises(InvalidInput, match="draws must be"):
        Controls(searches=0)
    with pytest.raises(InvalidInput, match="n_bars must be at least 2"):
        Controls(n_bars=1)
    for planted in (0.0, -1.0, 11.0, float("nan")):
        with pytest.raises(InvalidInput, match="planted Sharpe ratios must be above 0"):
            Controls(planted=(planted,))
    with pytest.raises(InvalidInput, match="must be given once"):
        Controls(planted=(1.0, 1.0))
    assert newest_controls(workspace) == []
