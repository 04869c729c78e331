"""Runs under plans are recomputed from what is recorded, without anybody planning again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from backtest_pipeline.market.errors import ArtifactCorrupt, CannotReplay
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.planning.book_replans import replan
from backtest_pipeline.pipeline.planning.planned_runs import follow_book
from backtest_pipeline.pipeline.replay import bundle_verifier
from backtest_pipeline.pipeline.replay.explain import explain_runs
from backtest_pipeline.pipeline.replay.export import bundle_files, export_run
from backtest_pipeline.pipeline.replay.replay import replay_runs
from backtest_pipeline.pipeline.replay.worker import PROTOCOL, respond
from backtest_pipeline.pipeline.replay.worker_process import ReplayRequest
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.run_tables.recorded_runs import recorded_runs
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.pipeline.planning.stores import SYMBOLS, added, without_last
from backtest_pipeline_tests.sql import column, execute_sql


def followed(store: Workspace, *symbols: str, cash: float = 10_000.0) -> UUID:
    name = f"book-{len(symbols)}"
    book = added(store, name, *symbols, replans={"judge": None})
    replan(store, book)
    return follow_book(store, book, "1D", SimulationConfig(initial_cash=cash)).run_id


@pytest.mark.parametrize("symbols", [SYMBOLS[:1], SYMBOLS, (SYMBOLS[0], "WITHOUT-BARS")])
def test_recorded_plans_and_rows_give_the_same_run(
    store: Workspace, symbols: tuple[str, ...]
) -> None:
    execute_sql(store, "INSERT INTO dim_assets (id, symbol) VALUES (77, 'WITHOUT-BARS')")
    run_id = followed(store, *symbols)
    assert column(store, "SELECT symbol FROM backtest_runs") == ["+".join(symbols)]
    execute_sql(store, "DELETE FROM plan_books")
    with store.database.begin() as connection:
        (recorded,) = recorded_runs(connection, [run_id])
    request = json.loads(json.dumps(ReplayRequest.of(recorded).as_json()))
    answer = respond(
        {
            "protocol": PROTOCOL,
            "artifacts": str(store.artifacts.root),
            "series": False,
            "runs": [request],
        }
    )
    (result,) = answer["runs"]
    assert result.get("error") is None
    assert (result["run_id"], result["fingerprint"]) == (str(run_id), recorded.fingerprint)
    assert result["results"] == recorded.results


@pytest.mark.parametrize("symbols", [SYMBOLS[:1], SYMBOLS])
def test_a_bundle_verifies_itself_with_blocks_and_plans(
    store: Workspace, symbols: tuple[str, ...], tmp_path: Path
) -> None:
    run_id = followed(store, *symbols)
    files = bundle_files(store, run_id)
    assert bundle_verifier.problems_of(files) == []
    assert "metrics recomputed" in bundle_verifier.verdict(files)
    assert json.loads(files["plans.json"])[0]["replan_reasons"] == ["initial_plan"]
    blocks = pq.read_table(io.BytesIO(files["blocks.parquet"]))
    assert blocks.num_rows == json.loads(files["run.json"])["results"]["limit_enforcement"]["total"]
    manifest = json.loads(files["manifest.json"])
    trades = pq.read_table(io.BytesIO(files["trades.parquet"]))
    other = pa.array(["t_other"] * trades.num_rows)
    sink = io.BytesIO()
    position = trades.column_names.index("trigger_id")
    pq.write_table(trades.set_column(position, "trigger_id", other), sink)
    changed = {**files, "trades.parquet": sink.getvalue()}
    assert bundle_verifier.fingerprint_of(changed, manifest) != manifest["result_fingerprint"]
    export_run(store, run_id, tmp_path, "csv")
    results = json.loads(files["run.json"])["results"]
    written = {n: pa_csv.read_csv(tmp_path / f"{n}.csv") for n in ("blocks", "plan_log")}
    assert written["blocks"].num_rows == results["limit_enforcement"]["total"]
    log = written["plan_log"]
    assert log.num_rows == results["plan_log"]["total"]
    assert log["replan_reasons"][0].as_py() == "initial_plan"
    assert json.loads(log["plan"][0].as_py())["plan_id"] == log["plan_id"][0].as_py()
    execute_sql(store, "UPDATE backtest_trades SET category = 'other' WHERE trade_no = 1")
    with pytest.raises(ArtifactCorrupt, match="has changed since it was stored"):
        bundle_files(store, run_id)


def test_exits_that_are_blocked_are_counted_apart_and_verified(store: Workspace) -> None:
    book = added(store, replans={"judge": None})
    replan(store, book)
    execute_sql(store, "UPDATE plans SET plan = plan - 'plan_id' || '{\"min_hold_bars\": 30}'")
    run_id = follow_book(store, book, "1D", SimulationConfig()).run_id
    files = bundle_files(store, run_id)
    assert bundle_verifier.problems_of(files) == []
    results = json.loads(files["run.json"])["results"]
    enforced = results["limit_enforcement"]
    assert enforced["exits"]["blocked"] > 0
    assert results["blocked_entries"] == enforced["total"] - enforced["exits"]["blocked"]


@pytest.mark.slow
def test_replays_and_explanations_know_plans(store: Workspace) -> None:
    run_id = followed(store, *SYMBOLS)
    (same,) = replay_runs(store, [run_id])
    assert (same.verdict.value, same.differences) == ("same", ())
    execute_sql(store, "UPDATE block_events SET detail = 'nothing' WHERE event_no = 1")
    (differs,) = replay_runs(store, [run_id])
    assert differs.differences == ("the stored blocked entries and exits (block_events) differ",)
    assert differs.quarantine == "set"
    other = followed(store, SYMBOLS[0])
    explained = explain_runs(store, run_id, other)
    assert "config" in explained.movers or "data" in explained.movers
    assert explained.remainder == ()


def test_a_run_under_plans_cannot_be_explained_against_one_of_a_strategy(store: Workspace) -> None:
    refresh(store, without_last(5), [Partition(SYMBOLS[0], "1D")])
    planned = followed(store, SYMBOLS[0])
    query = "SELECT run_id FROM backtest_runs WHERE strategy = 'ema_crossover' LIMIT 1"
    (traded,) = column(store, query)
    for pair in ((planned, traded), (traded, planned)):
        with pytest.raises(CannotReplay, match=r"no factor can be swapped; use `runs compare`"):
            explain_runs(store, *pair)
