"""A login with the role of a writer does all the work, one with that of a reader only looks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import make_conninfo

from backtest_pipeline.market.asset_identity import Remark, Trait
from backtest_pipeline.market.errors import StoreError
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.look_ahead import probe_look_ahead, record
from backtest_pipeline.pipeline.audits.negative_controls import Controls, run_negative_controls
from backtest_pipeline.pipeline.audits.restatements import watch_history
from backtest_pipeline.pipeline.jobs.requests import submit
from backtest_pipeline.pipeline.ranking.leaderboard import publish_leaderboard
from backtest_pipeline.pipeline.runs.identity import RunTerms
from backtest_pipeline.pipeline.runs.summary import backtests_summary
from backtest_pipeline.pipeline.specs import JobSpec, RunSpec
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig
from backtest_pipeline.pipeline.stages.rollups import roll_up
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan
from backtest_pipeline.pipeline.stages.walk_forward.walk_forward_batch import space_of
from backtest_pipeline.pipeline.use_cases.declaration import declare_walk_forward
from backtest_pipeline.pipeline.use_cases.walk_forward import prepare_walk_forward, run_walk_forward
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.validation.schedule import Schedule
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.external.watermarks import Watermark, write_watermarks
from backtest_pipeline.storage.postgres.database import connect_database
from backtest_pipeline.storage.postgres.migrations import check
from backtest_pipeline.storage.run_tables.quarantine import quarantine_run
from backtest_pipeline.storage.run_tables.run_search import note_request, pin_runs
from backtest_pipeline.storage.tables.api_keys import create_key
from backtest_pipeline.storage.tables.asset_identity import replace_remarks
from backtest_pipeline.storage.tables.counts import Key, add_counts
from backtest_pipeline.storage.tables.dimensions import asset_ids
from backtest_pipeline.storage.tables.jobs import Claim, claim_job, store_unit
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh, us
from backtest_pipeline_tests.pipeline.on_demand import assess_once, backtest_once

PARTITIONS = [Partition(asset, "1D") for asset in "ABC"]


def _market(factor: float) -> StaticSource:
    """Two assets, and C with a single bar, too few for a run; `factor` moves one close of A."""
    panel = daily_panel({"A": 300, "B": 250, "C": 1})
    close = panel["close"].copy()
    close[100] = panel["low"][100] + factor * (close[100] - panel["low"][100])
    return StaticSource({"1D": panel.with_columns({**panel.columns, "close": close})})


MARKET, RESTATED = _market(1.0), _market(0.5)
TERMS = RunTerms(SimulationConfig())

Opening = Callable[[str], Workspace]


@pytest.fixture
def login(workspace: Workspace) -> Iterator[Opening]:
    """Opens the store as a new user of a role and nothing else."""
    opened: list[Workspace] = []
    names: list[str] = []
    with psycopg.connect(workspace.database.conninfo, autocommit=True) as server:

        def open_as(role: str) -> Workspace:
            names.append(f"login_{uuid.uuid4().hex[:12]}")
            create = sql.SQL("CREATE ROLE {} LOGIN IN ROLE {}")
            server.execute(create.format(sql.Identifier(names[-1]), sql.Identifier(role)))
            dsn = make_conninfo(workspace.database.conninfo, user=names[-1])
            opened.append(Workspace(connect_database(dsn), workspace.artifacts))
            return opened[-1]

        yield open_as
        for one in opened:
            one.database.close()
        for name in names:
            server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_a_writer_does_all_the_work(login: Opening) -> None:
    writer = login("backtest_writer")
    check(writer.database)
    plan = WalkForwardPlan(Schedule(150, 60))
    declared = declare_walk_forward(writer, PARTITIONS[0], space_of("ema", {}), plan, TERMS)
    for rebuild in (False, True):
        reports = refresh(writer, MARKET, PARTITIONS, rebuild=rebuild)
        assert not any(report.failed for report in reports.values())
    assert roll_up(writer, "1D", RollupConfig(lookback=40))
    one = {"signal": "ema_9_21", "asset": "A", "tf": "1D", "terms": TERMS}
    assert assess_once(writer, MARKET, **one, draws=5)["robustness"]
    prepared = prepare_walk_forward(
        writer, MARKET, asset="A", tf="1D", terms=TERMS, schedule=plan.schedule
    )
    walk = run_walk_forward(writer, prepared, strategy="ema", params={}, terms=TERMS, plan=plan)
    assert walk["declared_at"] == declared.declared_at
    assert publish_leaderboard(writer, late_gates=True).rows
    run_negative_controls(writer, Controls(searches=1, n_bars=200))
    record(writer, MARKET, probe_look_ahead(writer, MARKET, assets=["A"], cuts=1))
    poor = SimulationConfig(min_notional=1e9)  # blocks each entry
    refresh(writer, RESTATED, PARTITIONS)
    assert watch_history(writer).effects
    run = backtest_once(writer, RESTATED, **{**one, "terms": RunTerms(poor)})
    _write_the_rest(writer, run["run_id"])


def _write_the_rest(writer: Workspace, run_id: uuid.UUID) -> None:
    """A job with a unit, a request, a pin, a key; a quarantine, a count, a trait, a watermark."""
    spec = JobSpec(spec=RunSpec(symbol="A", strategy="ema"), timeframes=["1D"])
    job = submit(writer.database, spec, "ann", most_combinations=1)
    claim = Claim(job.job_id, 1, "worker")
    with writer.database.begin() as connection:
        assert claim_job(connection, claim, None, 60)
        assert store_unit(connection, claim, "1D", [run_id], {})
        note_request(connection, [run_id], "ann")
        pin_runs(connection, [run_id], "ann", "for the paper")
        quarantine_run(connection, run_id, expected="x", found="y", reason="a number moved")
        create_key(connection, "ann", "runner", 60)
        add_counts(connection, {Key("runs_total"): 1.0})
        ids = asset_ids(connection, ["A"])
        replace_remarks(connection, ids, [Remark("A", "1D", Trait.STABLE, 0, 1, "near 1")])
    with writer.database.arrow() as connection, connection.cursor() as cursor:
        write_watermarks(cursor, ids, {PARTITIONS[0]: Watermark("v", 1, us("2026-01-01"))})


def test_a_writer_may_write_and_a_reader_read_every_table(workspace: Workspace) -> None:
    with workspace.database.begin() as connection:
        granted = connection.execute(
            sa.text("""
            SELECT c.relname AS name,
                   has_table_privilege('backtest_writer', c.oid, 'INSERT')
                   AND has_table_privilege('backtest_writer', c.oid, 'UPDATE')
                   AND has_table_privilege('backtest_writer', c.oid, 'DELETE') AS written,
                   has_table_privilege('backtest_reader', c.oid, 'SELECT') AS read
            FROM pg_class c
            WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
        """)
        ).all()
    assert {row.name for row in granted if not row.written} == {"schema_migrations"}
    assert {row.name for row in granted if not row.read} == {"api_keys"}


def test_a_reader_sees_results_and_can_change_none(workspace: Workspace, login: Opening) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    reader = login("backtest_reader")
    found = backtests_summary(reader, PARTITIONS)
    assert found.numbers == backtests_summary(workspace, PARTITIONS).numbers
    with pytest.raises(StoreError, match="permission denied"):
        refresh(reader, MARKET, PARTITIONS, rebuild=True)
    with pytest.raises(StoreError, match="permission denied"):
        roll_up(reader, "1D", RollupConfig(lookback=40))
    with pytest.raises(StoreError, match="permission denied"):
        publish_leaderboard(reader, late_gates=True)
