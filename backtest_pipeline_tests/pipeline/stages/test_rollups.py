"""Portfolios on a real store."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.stored_tables import check_dataset
from backtest_pipeline.pipeline.ranking.leaderboard import SYNTHETIC, publish_leaderboard
from backtest_pipeline.pipeline.runs.retention import remove_source
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig
from backtest_pipeline.pipeline.stages.rollups import roll_up, rollups_summary
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.portfolio.weights import SCHEMES
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.metrics.significance import (
    deflated_sharpe_ratio,
    probabilistic_sharpe_ratio,
)
from backtest_pipeline.storage.postgres.copy import lock_cells
from backtest_pipeline.storage.run_tables.portfolios import current_portfolios
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh
from backtest_pipeline_tests.sql import execute_sql, rows

# F is listed a hundred days after the others.
LENGTHS = dict.fromkeys("ABCDE", 250) | {"F": 150}
MARKET = StaticSource({"1D": daily_panel(LENGTHS)})
PARTITIONS = tuple(Partition(asset, "1D") for asset in LENGTHS)
CONFIG = RollupConfig(lookback=40)
N_SIGNALS = 6


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    refresh(workspace, MARKET, PARTITIONS)
    return workspace


def stored(workspace: Workspace) -> dict[tuple[str, str], Any]:
    with workspace.database.begin() as connection:
        found = current_portfolios(connection, ["1D"])
    return {(row["signal_name"], row["scheme"]): row for row in found}


def test_portfolios_of_runs_that_were_replaced_meanwhile_are_formed_again(
    filled: Workspace,
) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with ThreadPoolExecutor(1) as pool, filled.database.arrow() as holder:
        with holder.cursor() as cursor:
            lock_cells(cursor, "portfolios", "1D", [0])
            late = pool.submit(roll_up, filled, "1D", CONFIG)
            while not rows(filled, waiting)[0]["count"]:
                assert not late.done()
        refresh(filled, StaticSource({"1D": daily_panel(LENGTHS, seed=8)}), PARTITIONS)
        holder.commit()
        assert late.result()
    members = rows(filled, "SELECT unnest(member_run_ids) FROM portfolio_runs WHERE is_current")
    current = rows(filled, "SELECT run_id FROM backtest_runs WHERE is_current")
    alone = {row["unnest"] for row in members} - {row["run_id"] for row in current}
    portfolios = rows(filled, "SELECT run_id FROM portfolio_runs WHERE is_current")
    assert alone <= {row["run_id"] for row in portfolios}  # the members of "all" are portfolios


def test_each_strategy_and_all_together_have_a_portfolio_of_each_scheme(filled: Workspace) -> None:
    assert roll_up(filled, "1D", CONFIG) == (N_SIGNALS + 1) * len(SCHEMES)
    found = stored(filled)
    assert len(found) == (N_SIGNALS + 1) * len(SCHEMES)
    assert {scheme for _, scheme in found} == set(SCHEMES)
    for (signal, _), row in found.items():
        assert row["n_members"] == (N_SIGNALS if signal == "all" else len(LENGTHS))
        assert set(row["undefined"]) == {k for k, v in row["metrics"].items() if v is None}
    assert check_dataset(filled, "portfolio_rollups") == {
        "weights_without_sum": 0,
        "weights_above_cap": 0,
        "weights_before_history": 0,
        "rebalances_missing": 0,
    }


def test_a_portfolio_is_deflated_by_all_that_could_have_been_chosen(filled: Workspace) -> None:
    roll_up(filled, "1D", CONFIG)
    n_trials = (N_SIGNALS + 1) * len(SCHEMES)
    for row in stored(filled).values():
        metrics = row["metrics"]
        first, last = rows(
            filled,
            f"SELECT first_ts, last_ts FROM portfolio_runs WHERE run_id = '{row['run_id']}'",
        )[0].values()
        measured = (
            metrics["sharpe"] / np.sqrt(365),
            (last.date() - first.date()).days,
            metrics["skew"],
            metrics["kurtosis"],
        )
        assert metrics["psr"] == pytest.approx(probabilistic_sharpe_ratio(*measured))
        wanted = deflated_sharpe_ratio(*measured, 1 / (measured[1] - 1), n_trials)
        assert metrics["dsr"] == pytest.approx(wanted)
        assert metrics["dsr"] < metrics["dsr_effective"] < metrics["psr"]
        assert metrics["n_trials"] == n_trials
        assert 1 < metrics["n_trials_effective"] < n_trials
    best = rollups_summary(filled, ["1D"]).tables["portfolios_by_sharpe"][0]
    assert list(best) == ["portfolio", "Sharpe", "return", "drawdown", "diversification"]


def test_a_repeat_forms_and_changes_nothing(filled: Workspace) -> None:
    roll_up(filled, "1D", CONFIG)
    everything = "SELECT md5(string_agg(p::text, '' ORDER BY p::text)) AS md5 FROM portfolio_runs p"
    before = rows(filled, everything)
    assert roll_up(filled, "1D", CONFIG) == 0
    assert rows(filled, everything) == before


def test_other_rules_supersede_what_was_current(filled: Workspace) -> None:
    roll_up(filled, "1D", CONFIG)
    other = RollupConfig(lookback=40, schemes=("equal_weight", "hrp"), rebalance="weekly")
    assert roll_up(filled, "1D", other) == (N_SIGNALS + 1) * 2
    assert {scheme for _, scheme in stored(filled)} == {"equal_weight", "hrp"}
    (total,) = rows(filled, "SELECT count(*) AS n FROM portfolio_runs")
    assert total["n"] == (N_SIGNALS + 1) * (2 + len(SCHEMES))


def test_what_is_no_longer_asked_for_is_no_longer_current(filled: Workspace) -> None:
    roll_up(filled, "1D", RollupConfig(lookback=40, schemes=("equal_weight", "hrp")))
    roll_up(filled, "1D", RollupConfig(lookback=40, schemes=("hrp",)))
    assert {scheme for _, scheme in stored(filled)} == {"hrp"}
    execute_sql(filled, "UPDATE backtest_runs SET is_current = FALSE")
    assert roll_up(filled, "1D", CONFIG) == 0
    assert stored(filled) == {}


def test_only_the_current_runs_of_a_configuration_are_members(filled: Workspace) -> None:
    dear = SimulationConfig(costs=CostModel(100, 100))
    roll_up(filled, "1D", CONFIG)
    refresh(filled, MARKET, PARTITIONS, dear)
    assert roll_up(filled, "1D", RollupConfig(dear.costs, lookback=40)) > 0
    assert stored(filled)["ema_9_21", "equal_weight"]["n_members"] == len(LENGTHS)
    assert sum(check_dataset(filled, "portfolio_rollups").values()) == 0


def test_provenance_is_complete(filled: Workspace) -> None:
    roll_up(filled, "1D", CONFIG)
    versions = rows(filled, "SELECT version FROM dataset_versions WHERE dataset = 'features'")
    for row in rows(filled, "SELECT * FROM portfolio_runs"):
        assert set(row["dataset_version_ids"]) == {f"{asset}|1D" for asset in LENGTHS}
        assert set(row["dataset_version_ids"].values()) == {v["version"] for v in versions}
        for name in ("snapshot_id", "config_hash", "environment_hash", "code_version", "engine"):
            assert row[name]


def test_the_same_inputs_give_the_same_portfolios_under_other_asset_ids(
    filled: Workspace, fresh_store: Callable[[], Workspace]
) -> None:
    roll_up(filled, "1D", CONFIG)
    other = fresh_store()
    numbered = tuple((asset, 900 - i) for i, asset in enumerate(LENGTHS))
    refresh(other, StaticSource(MARKET.panels, known_ids=numbered), PARTITIONS)
    roll_up(other, "1D", CONFIG)
    query = "SELECT run_id, result_fingerprint FROM portfolio_runs ORDER BY run_id"
    assert rows(filled, query) == rows(other, query)
    weights = """
        SELECT w.run_id, w.ts, a.symbol, w.weight FROM portfolio_weights w
        JOIN dim_assets a USING (id) ORDER BY w.run_id, w.ts, a.symbol
    """
    assert rows(filled, weights) == rows(other, weights)


def test_a_late_listing_is_counted_until_it_has_enough_history(filled: Workspace) -> None:
    roll_up(filled, "1D", CONFIG)
    found = stored(filled)["ema_9_21", "inverse_volatility"]
    # 250 days to the end of 2025, F's begin on 4 August: it is alive and short of 40 returns on
    # 1 September only. The others have 40 from June on; the strategy may not have traded by then.
    assert found["left_out"]["short_history"] == 1
    first = rows(
        filled,
        f"""
        SELECT min(w.ts) AS ts FROM portfolio_weights w JOIN dim_assets a USING (id)
        WHERE a.symbol = 'F' AND w.run_id = '{found["run_id"]}'
        """,
    )
    assert str(first[0]["ts"].date()) == "2025-10-02"  # decided the day before


def test_too_short_a_history_is_null_with_its_reason(filled: Workspace) -> None:
    config = RollupConfig(lookback=300)
    roll_up(filled, "1D", config)
    found = stored(filled)
    assert found["ema_9_21", "equal_weight"]["n_rebalances"] > 0
    for (_, scheme), row in found.items():
        if scheme != "equal_weight":
            assert row["n_rebalances"] == 0
            assert row["metrics"]["sharpe"] is None
            assert (
                "never formed: at no rebalance did a member have 300 returns"
                in row["undefined"]["sharpe"]
            )
    assert sum(check_dataset(filled, "portfolio_rollups").values()) == 0
    summary = rollups_summary(filled, ["1D"])
    assert summary.numbers["portfolios_never_formed"] == 7 * 4
    assert [row["scheme"] for row in summary.tables["by_scheme"]] == ["equal_weight"]


def test_a_cap_leaves_cash_and_holds(filled: Workspace) -> None:
    roll_up(filled, "1D", RollupConfig(lookback=40, max_weight=0.18))
    assert sum(check_dataset(filled, "portfolio_rollups").values()) == 0
    (found,) = rows(
        filled,
        """
        SELECT max(total) AS most, min(total) AS least FROM (
            SELECT sum(weight) AS total FROM portfolio_weights GROUP BY run_id, ts) AS t
        """,
    )
    assert found["most"] == pytest.approx(1.0)
    assert found["least"] <= 5 * 0.18 + 1e-9


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("UPDATE portfolio_weights SET weight = weight / 2", "weights_without_sum"),
        (
            """UPDATE portfolio_runs SET config = jsonb_set(config, '{max_weight}', '0.1')
               WHERE scheme = 'equal_weight'""",
            "weights_above_cap",
        ),
        ("UPDATE portfolio_weights SET ts = ts - interval '300 days'", "weights_before_history"),
        ("DELETE FROM portfolio_strategy_weights", "rebalances_missing"),
    ],
)
def test_the_check_finds_what_is_wrong(filled: Workspace, change: str, rule: str) -> None:
    roll_up(filled, "1D", CONFIG)
    execute_sql(filled, change)
    assert check_dataset(filled, "portfolio_rollups")[rule] > 0


def test_the_files_hold_what_the_rows_sum_up(filled: Workspace) -> None:
    roll_up(filled, "1D", CONFIG)
    for (signal, scheme), row in stored(filled).items():
        own = [("run_id", "==", str(row["run_id"]))]
        read = filled.artifacts.read_table
        risk = read(row["artifact_uri"], "risk_contributions.parquet", filters=own).to_pandas()
        assert len(risk) == row["n_members"]
        assert risk["contribution"].sum() == pytest.approx(row["metrics"]["return_variance"])
        assert risk["share"].sum() == pytest.approx(1.0)
        when = read(row["artifact_uri"], "rebalances.parquet", filters=own).to_pandas()
        assert len(when) == row["n_rebalances"]
        assert when["short_history"].sum() == row["left_out"]["short_history"]
        pairs = read(row["artifact_uri"], "correlations.parquet").to_pandas()
        own_scheme = pairs["scheme"] == scheme if signal == "all" else pairs["scheme"].isna()
        of_members = pairs[(pairs["signal"] == signal) & own_scheme]
        n = row["n_members"]
        assert len(of_members) == n * (n - 1) // 2
        known = of_members["correlation"].dropna()
        mean = float(known.mean()) if len(known) else None
        assert mean == pytest.approx(row["metrics"]["mean_pairwise_correlation"])
        benefit = row["metrics"]["sharpe"] - row["metrics"]["mean_member_sharpe"]
        assert row["metrics"]["diversification_benefit"] == pytest.approx(benefit)


def test_one_asset_is_a_portfolio_of_its_own(workspace: Workspace) -> None:
    source = StaticSource({"1D": daily_panel({"A": 250})})
    refresh(workspace, source, [Partition("A", "1D")])
    roll_up(workspace, "1D", CONFIG)
    row = stored(workspace)["ema_9_21", "minimum_variance"]
    assert row["metrics"]["effective_bets"] == pytest.approx(1.0)
    assert row["metrics"]["diversification_ratio"] == pytest.approx(1.0)
    assert row["metrics"]["mean_pairwise_correlation"] is None
    assert "no two members" in row["undefined"]["mean_pairwise_correlation"]


def test_a_portfolio_of_one_has_no_benefit_whatever_cash_earns(workspace: Workspace) -> None:
    source = StaticSource({"1D": daily_panel({"A": 250})})
    refresh(workspace, source, [Partition("A", "1D")], SimulationConfig(risk_free=0.0005))
    roll_up(workspace, "1D", RollupConfig(schemes=("equal_weight",), risk_free=0.0005))
    row = stored(workspace)["ema_9_21", "equal_weight"]
    # 0.0005 a day lowers a Sharpe ratio by 0.4 at a volatility of 0.5.
    assert abs(row["metrics"]["diversification_benefit"]) < 0.01


def test_without_runs_there_is_nothing_to_form(workspace: Workspace) -> None:
    assert roll_up(workspace, "1D", CONFIG) == 0
    assert rollups_summary(workspace, ["1D"]).numbers["portfolios"] == 0


def test_bad_rules_are_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="did you mean minimum_variance"):
        RollupConfig(schemes=("min_variance",))
    with pytest.raises(UnknownName, match="monthly"):
        RollupConfig(rebalance="month")
    with pytest.raises(InvalidInput, match="distinct names"):
        RollupConfig(schemes=())
    with pytest.raises(InvalidInput, match="distinct names"):
        RollupConfig(schemes=("hrp", "hrp"))
    for cap in (0.0, -0.1, 1.1, np.nan):
        with pytest.raises(InvalidInput, match="max_weight"):
            RollupConfig(max_weight=cap)
    with pytest.raises(InvalidInput, match="lookback"):
        RollupConfig(lookback=1)


REAL = daily_panel({"BTC": 250, "ETH": 240})


def members(workspace: Workspace) -> set[str]:
    found = rows(
        workspace,
        "SELECT DISTINCT r.symbol FROM portfolio_runs p JOIN backtest_runs r"
        " ON r.run_id = ANY (p.member_run_ids) WHERE p.is_current",
    )
    return {row["symbol"] for row in found}


def test_synthetic_assets_are_left_out_of_portfolios_and_boards_of_real_ones(
    filled: Workspace,
) -> None:
    roll_up(filled, "1D", CONFIG)
    assert members(filled) == set(LENGTHS)  # only synthetic assets: theirs
    real = StaticSource({"1D": REAL}, name="real", synthetic=False)
    refresh(filled, real, [Partition("BTC", "1D"), Partition("ETH", "1D")])
    roll_up(filled, "1D", CONFIG)
    assert members(filled) == {"BTC", "ETH"}

    board = publish_leaderboard(filled, late_gates=True)
    ranked = {row["symbol"] for row in board.rows if row["rank"]}
    assert ranked <= {"BTC", "ETH"}
    assert {row["unranked"] for row in board.rows if row["symbol"] in LENGTHS} == {SYNTHETIC}
    assert all("synthetic" in row["identity"] for row in board.rows if row["symbol"] in LENGTHS)


def test_a_removed_source_leaves_nothing_and_costs_the_others_nothing(filled: Workspace) -> None:
    real = StaticSource({"1D": REAL}, name="real", synthetic=False)
    refresh(filled, real, [Partition("BTC", "1D"), Partition("ETH", "1D")])
    roll_up(filled, "1D", CONFIG)
    publish_leaderboard(filled, late_gates=True)
    kept = rows(
        filled, "SELECT run_id FROM backtest_runs WHERE symbol IN ('BTC', 'ETH') ORDER BY 1"
    )

    symbols, runs = remove_source(filled, "static")
    assert (symbols, runs) == (sorted(LENGTHS), len(LENGTHS) * N_SIGNALS)
    assert rows(filled, "SELECT symbol FROM dim_assets ORDER BY 1") == [
        {"symbol": "BTC"},
        {"symbol": "ETH"},
    ]
    assert rows(filled, "SELECT run_id FROM backtest_runs ORDER BY 1") == kept
    for table in ("trials", "leaderboard"):
        left = rows(filled, f"SELECT DISTINCT symbol FROM {table}")
        assert {row["symbol"] for row in left} <= {"BTC", "ETH"}
    assert members(filled) == {"BTC", "ETH"}
    assert roll_up(filled, "1D", CONFIG) == 0
    assert remove_source(filled, "static") == ([], 0)
    refresh(filled, MARKET, PARTITIONS)  # it can come back
