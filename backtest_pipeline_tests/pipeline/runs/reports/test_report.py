"""The report of stored runs: read from a real store, written as files, and what is amiss."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from backtest_pipeline.market.errors import ReportNotWritten, RunNotFound
from backtest_pipeline.pipeline.runs.identity import RunTerms
from backtest_pipeline.pipeline.runs.query import get_run
from backtest_pipeline.pipeline.runs.reports.assess_command import assess_command
from backtest_pipeline.pipeline.runs.reports.bands import run_bands
from backtest_pipeline.pipeline.runs.reports.report import report_page, report_url, write_report
from backtest_pipeline.pipeline.runs.reports.reported_runs import reported_run
from backtest_pipeline.pipeline.spec_options import spec_from
from backtest_pipeline.pipeline.specs import RobustnessSpec, RunSpec
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.report.number_formats import kind_of, written
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import FixedFractional
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import whole
from backtest_pipeline_tests.pipeline.on_demand import assess_once, backtest_once
from backtest_pipeline_tests.sql import rows, scalar

TERMS = RunTerms(
    SimulationConfig(
        CostModel(8.0, 4.0), stops=StopRules(stop_loss=0.1), sizing=FixedFractional(0.5)
    )
)


@pytest.fixture(scope="module")
def made(
    template: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Workspace, UUID]]:
    """A store with one assessed run with stops; tests put right what they damage."""
    for database in database_like(template, "backtest"):
        store = Workspace(database, ArtifactStore(tmp_path_factory.mktemp("reported")))
        run = assess_once(
            store, whole(), signal="ema_9_21", asset="S-ALPHA", tf="1D", terms=TERMS, draws=30
        )
        run_bands(store, run, 0.0)
        yield store, run["run_id"]


def test_a_report_shows_what_is_stored(made: tuple[Workspace, UUID]) -> None:
    store, run_id = made
    detail, page = get_run(store, run_id), report_page(store, run_id).html
    for name, value in {**detail.metrics, **detail.significance}.items():
        text = written(value, kind_of(name))
        stored = "" if value is None else repr(value)
        assert f'data-metric="{name}" data-value="{stored}">{text}<' in page, name
    run = reported_run(store, run_id)
    assert run.missing == ()
    assert run.series is not None
    assert run.closes is not None
    assert run.closes.ts[0] == run.series.ts[0]
    assert len(run.trades) == detail.metrics["trade_count"]
    assert 'class="st"' in page  # the stops of its trades
    assert "synthetic" in page


def test_the_band_is_one_whatever_the_draws_of_the_rest(made: tuple[Workspace, UUID]) -> None:
    store, run_id = made
    (stored,) = rows(store.database, "SELECT draws, seed, sharpe_low, sharpe_high FROM run_bands")
    assert (stored["draws"], stored["seed"]) == (1000, 0)
    run = reported_run(store, run_id)
    assert run.intervals is not None
    assert run.intervals["sharpe"] == (stored["sharpe_low"], stored["sharpe_high"])
    assert get_run(store, run_id).bands == run.intervals
    assert run.doubts is not None
    assert run.doubts.draws == 30
    assert f'data-value="{stored["sharpe_low"]!r}"' in report_page(store, run_id).html


def test_a_run_without_a_band_or_robustness_names_the_command_and_computes_nothing(
    made: tuple[Workspace, UUID],
) -> None:
    store, _ = made
    plain = backtest_once(
        store, whole(), signal="rsi_14_30_70", asset="S-ALPHA", tf="1D", terms=TERMS
    )
    page = report_page(store, plain["run_id"]).html
    assert "Not assessed yet" in page
    assert re.search(r"<code>backtest-pipeline robustness --asset S-ALPHA [^<]+</code>", page)
    assert scalar(store.database, "SELECT count(*) FROM run_bands") == 1


def test_the_command_means_the_same_run(made: tuple[Workspace, UUID]) -> None:
    store, run_id = made
    config = get_run(store, run_id).config
    words = assess_command(config).split()[2:]
    typed: dict[str, object] = {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        name = option.removeprefix("--").replace("-", "_")
        listed = typed.setdefault(name, [])
        if name == "param":
            assert isinstance(listed, list)
            listed.append(value)
        else:
            typed[name] = float(value) if name.endswith("_bps") else value
    spec = spec_from(RobustnessSpec, typed)
    assert (
        spec.config()
        == RunSpec.model_validate(
            {k: v for k, v in config.items() if k in RunSpec.model_fields}
        ).config()
    )
    assert (spec.symbol, spec.timeframe, spec.strategy) == ("S-ALPHA", "1D", "ema_crossover")


@pytest.mark.parametrize("damage", ["gone", "corrupt"])
def test_missing_and_damaged_files_are_said_and_the_rest_is_shown(
    made: tuple[Workspace, UUID], damage: str
) -> None:
    store, run_id = made
    folder = Path(store.artifacts.where) / get_run(store, run_id).artifact_uri
    kept = folder.with_name("kept")
    folder.rename(kept)
    try:
        if damage == "corrupt":
            folder.mkdir()
            for file in kept.iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
            (folder / "equity.parquet").write_bytes(b"PAR1")
        page = report_page(store, run_id).html
    finally:
        for file in folder.iterdir() if folder.exists() else ():
            file.unlink()
        if folder.exists():
            folder.rmdir()
        kept.rename(folder)
    assert "Curves and figures by day are not shown" in page
    assert 'data-metric="sharpe"' in page
    assert "All trades" in page
    assert str(folder.parents[2]) not in page


def test_a_run_that_is_not_stored_has_no_report(made: tuple[Workspace, UUID]) -> None:
    with pytest.raises(RunNotFound, match=r"not stored|no run"):
        report_page(made[0], uuid4())


def test_a_report_is_written_once_unless_it_may_be_replaced(
    made: tuple[Workspace, UUID], tmp_path: Path
) -> None:
    store, run_id = made
    (written_,) = write_report(store, run_id, tmp_path)
    assert written_ == tmp_path / f"{run_id}.html"
    with pytest.raises(ReportNotWritten, match="exists; choose another name"):
        write_report(store, run_id, tmp_path)
    first = written_.read_bytes()
    write_report(store, run_id, written_, replace=True)
    assert written_.read_bytes() == first


def test_a_path_that_cannot_be_written_is_named(
    made: tuple[Workspace, UUID], tmp_path: Path
) -> None:
    with pytest.raises(ReportNotWritten, match=r"nowhere/run\.html cannot be written: No such"):
        write_report(*made, tmp_path / "nowhere" / "run.html")


def test_a_link_needs_the_address_of_the_service() -> None:
    run_id = UUID(int=7)
    assert report_url(run_id, load_settings(service_url="")) == ""
    address = report_url(run_id, load_settings(service_url="https://desk.example.com/"))
    assert address == f"https://desk.example.com/backtests/{run_id}/report"
