"""Runs that rank a universe, on a real store."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from uuid import UUID

import numpy as np
import pytest

from backtest_pipeline.market.errors import (
    BadSymbols,
    InvalidInput,
    NoFeatures,
    UnknownColumn,
    UnknownName,
)
from backtest_pipeline.pipeline.cross_section.ranked_identity import RankedTerms
from backtest_pipeline.pipeline.cross_section.ranked_runs import run_ranked
from backtest_pipeline.pipeline.cross_section.ranked_universe import universe_at
from backtest_pipeline.pipeline.ranking.leaderboard import publish_leaderboard
from backtest_pipeline.pipeline.replay.bundle_verifier import problems_of
from backtest_pipeline.pipeline.replay.export import bundle_files
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.result_rows import cross_section_result
from backtest_pipeline.pipeline.runs.identity import Window
from backtest_pipeline.pipeline.runs.query import get_run, run_timeseries
from backtest_pipeline.pipeline.runs.retention import delete_runs
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.run_tables.cross_sections import note_refreshed
from backtest_pipeline.storage.run_tables.leaderboard import runs_to_rank
from backtest_pipeline.storage.run_tables.runs import with_provenance
from backtest_pipeline.strategies.cross_section.definition import CrossSection
from backtest_pipeline_tests.sql import column, execute_sql, scalar

RUNS = "SELECT count(*) FROM backtest_runs WHERE split = 'cross_section'"
TRIALS = "SELECT count(*) FROM trials WHERE strategy LIKE 'cross_section:%'"
NEVER = RankedTerms(window=Window(date(1990, 1, 1), date(1990, 2, 1)))
MOMENTUM = CrossSection(
    "momentum",
    score="rank_pct(close / shift(close, 20) - 1) - rsi_14 / 1000",
    count=3,
    side="long_short",
    universe="mean(close * volume, 20) > 0",
    horizon=5,
)


@pytest.fixture
def stored(refreshed: Workspace) -> tuple[Workspace, UUID]:
    return refreshed, run_ranked(refreshed, MOMENTUM, "1D", RankedTerms())[0]


def test_a_run_is_stored_once_and_its_bundle_verifies(refreshed: Workspace) -> None:
    run_id, is_new = run_ranked(refreshed, MOMENTUM, "1D", RankedTerms())
    assert is_new
    assert run_ranked(refreshed, MOMENTUM, "1D", RankedTerms()) == (run_id, False)
    run = get_run(refreshed, run_id)
    assert (run.split, run.strategy, run.is_current) == (
        "cross_section",
        "cross_section:momentum",
        True,
    )
    found = run.results["cross_section"]
    assert found["figures"]["mean_ic"] is not None
    assert found["rebalances"]["traded"] > 50
    equity = run_timeseries(refreshed, run_id)["equity"].to_numpy()
    pnl = column(
        refreshed.database, "SELECT pnl FROM backtest_trades WHERE run_id = :id", id=run_id
    )
    assert 10_000 + sum(pnl) == pytest.approx(equity[-1], rel=1e-9)
    files = bundle_files(refreshed, run_id)
    assert problems_of(files) == []
    assert {"daily_ic.parquet", "daily_signals.parquet", "daily_weights.parquet"} <= files.keys()


def test_a_window_and_a_universe_are_runs_of_their_own(refreshed: Workspace) -> None:
    whole = run_ranked(refreshed, MOMENTUM, "1D", RankedTerms())[0]
    first = get_run(refreshed, whole).first_ts.date() + timedelta(days=100)
    dates = (first, first + timedelta(days=200))
    window = RankedTerms(window=Window(*dates))
    cut = run_ranked(refreshed, MOMENTUM, "1D", window)[0]
    few = run_ranked(refreshed, MOMENTUM, "1D", RankedTerms(symbols=("S-ALPHA", "S-MU")))[0]
    assert len({whole, cut, few}) == 3
    run = get_run(refreshed, cut)
    assert (run.first_ts.date(), run.window) == (first, dates)
    assert run.is_current
    assert get_run(refreshed, whole).is_current
    changed = run_ranked(refreshed, replace(MOMENTUM, count=1), "1D", RankedTerms())[0]
    assert not get_run(refreshed, whole).is_current
    assert get_run(refreshed, changed).is_current
    assert (
        len(column(refreshed, "SELECT 1 FROM trials WHERE strategy = 'cross_section:momentum'"))
        == 4
    )


def test_the_spelling_of_a_score_makes_no_other_run(refreshed: Workspace) -> None:
    one = replace(MOMENTUM, score="rsi_14/2", universe="close>1")
    other = replace(MOMENTUM, score="(rsi_14 / 2)", universe="(close > 1)", description="same")
    run_id, _ = run_ranked(refreshed, one, "1D", RankedTerms())
    assert run_ranked(refreshed, other, "1D", RankedTerms()) == (run_id, False)


@pytest.mark.parametrize(
    ("rule", "terms", "error", "message"),
    [
        (MOMENTUM, RankedTerms(symbols=("S-ALPHA",)), BadSymbols, "at least two"),
        (MOMENTUM, RankedTerms(symbols=("S-ALPHA", "S-ALPHA")), BadSymbols, "more than once"),
        (MOMENTUM, RankedTerms(symbols=("S-ALPHA", "S-BETTA")), UnknownName, "S-BETA|S-ZETA|S-MU"),
        (
            replace(MOMENTUM, score="mood / close"),
            RankedTerms(),
            UnknownColumn,
            "mood is no feature",
        ),
        (replace(MOMENTUM, score="close / close"), RankedTerms(), InvalidInput, "all scores equal"),
        (replace(MOMENTUM, universe="close < 0"), RankedTerms(), InvalidInput, "empty universe"),
        (
            MOMENTUM,
            RankedTerms(window=Window(date(1990, 1, 1), date(1990, 2, 1))),
            BadSymbols,
            "none has bars",
        ),
    ],
)
def test_bad_input_is_named_and_stores_nothing(
    refreshed: Workspace,
    rule: CrossSection,
    terms: RankedTerms,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        run_ranked(refreshed, rule, "1D", terms)
    assert (
        scalar(refreshed, "SELECT count(*) FROM backtest_runs WHERE split = 'cross_section'") == 0
    )
    assert (
        scalar(refreshed, "SELECT count(*) FROM trials WHERE strategy LIKE 'cross_section%'") == 0
    )


def test_weights_and_coefficients_are_files_beside_the_equity(
    stored: tuple[Workspace, UUID],
) -> None:
    workspace, run_id = stored
    uri = get_run(workspace, run_id).artifact_uri
    weights, signals, ic = (
        workspace.artifacts.read_table(uri, f"{name}.parquet").to_pandas()
        for name in ("daily_weights", "daily_signals", "daily_ic")
    )
    held = weights.groupby("ts")["weight"].sum()
    series = run_timeseries(workspace, run_id).to_pandas().set_index("ts")
    exposure = series["exposure"][series["exposure"] != 0]
    np.testing.assert_allclose(held[exposure.index], exposure, atol=1e-12)
    assert not signals.duplicated(["ts", "symbol"]).any()
    assert ic["ts"].is_monotonic_increasing
    assert len(ic) == len(series)


def test_a_run_replays_to_the_bit_and_a_changed_summary_is_found(
    stored: tuple[Workspace, UUID],
) -> None:
    workspace, run_id = stored
    changed, _ = run_ranked(workspace, replace(MOMENTUM, count=2), "1D", RankedTerms())
    execute_sql(
        workspace,
        "UPDATE backtest_runs SET results = jsonb_set(results,"
        " '{cross_section,figures,mean_ic}', '0.5') WHERE run_id = :id",
        id=changed,
    )
    same, other = replay_runs(workspace, [run_id, changed])
    assert (same.verdict, same.differences) == (ReplayVerdict.SAME, ())
    assert other.differences == ("the stored summary (backtest_runs.results) differs",)


def test_a_run_without_inputs_is_an_error_that_names_them(stored: tuple[Workspace, UUID]) -> None:
    workspace, run_id = stored
    with pytest.raises(ValueError, match="snapshot_id"):
        with_provenance(
            [{"run_id": run_id, "snapshot_id": None, "dataset_version_ids": {"a": "b"}}]
        )
    assert cross_section_result(workspace, run_id).snapshot_id


def test_the_leaderboard_ranks_runs_of_the_asset(refreshed: Workspace) -> None:
    run_id, _ = run_ranked(refreshed, MOMENTUM, "1D", RankedTerms(), "refresh")
    by_hand, _ = run_ranked(refreshed, replace(MOMENTUM, name="other"), "1D", RankedTerms())
    with refreshed.database.begin() as connection:
        note_refreshed(connection, "1D", {"momentum": run_id}, ["momentum"])
        ranked = runs_to_rank(connection, ["sharpe"])
    of_refresh = {row["run_id"]: row["of_refresh"] for row in ranked}
    assert (of_refresh[run_id], of_refresh[by_hand]) == (True, False)
    board = publish_leaderboard(refreshed)
    rows = {row["run_id"]: row for row in board.rows}
    assert rows[run_id]["rank"] is not None
    assert rows[run_id]["signal_name"] == "momentum"
    assert rows[by_hand]["unranked"]


def test_retention_and_a_backup_of_the_files_know_the_run(refreshed: Workspace) -> None:
    run_id, _ = run_ranked(refreshed, MOMENTUM, "1D", RankedTerms())
    uri = get_run(refreshed, run_id).artifact_uri
    delete_runs(refreshed, [run_id])
    assert scalar(refreshed, RUNS) == 0
    assert refreshed.artifacts.gone([uri]) == {uri}


def test_a_family_is_a_strategy_at_a_timeframe_whatever_the_universe(refreshed: Workspace) -> None:
    def n_trials(rule: CrossSection, symbols: tuple[str, ...] = ()) -> int:
        run_id, _ = run_ranked(refreshed, rule, "1D", RankedTerms(symbols=symbols))
        counted = "SELECT n_trials FROM backtest_metrics WHERE run_id = :id"
        return scalar(refreshed.database, counted, id=run_id)

    listed = "UPDATE dim_assets SET is_synthetic = FALSE WHERE symbol = ANY(:symbols)"
    *before, later = universe_at(refreshed, "1D")
    execute_sql(refreshed, listed, symbols=before)
    assert [n_trials(replace(MOMENTUM, count=n)) for n in (1, 2, 3)] == [1, 2, 3]
    execute_sql(refreshed, listed, symbols=[later])
    assert n_trials(MOMENTUM) == 3
    assert n_trials(MOMENTUM, (before[0], later)) == 4
    assert n_trials(MOMENTUM, (later, before[0])) == 4
    counted = column(
        refreshed.database,
        "SELECT DISTINCT n_trials FROM backtest_metrics JOIN backtest_runs USING (run_id)"
        " WHERE is_current AND split = 'cross_section'",
    )
    assert counted == [4]


def test_a_timeframe_without_features_says_what_to_refresh(refreshed: Workspace) -> None:
    with pytest.raises(NoFeatures, match="none have features there; refresh cmc_features") as told:
        run_ranked(refreshed, MOMENTUM, "9Q", RankedTerms())
    assert told.value.code == "NO_FEATURES"
