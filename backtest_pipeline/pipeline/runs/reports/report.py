"""A stored run as a report, a page or a file, and its artifact files."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from backtest_pipeline.market.errors import ReportNotWritten, RunNotFound, UnknownName
from backtest_pipeline.pipeline.runs.query import find_runs, get_run
from backtest_pipeline.pipeline.runs.reports.reported_portfolios import reported_portfolio
from backtest_pipeline.pipeline.runs.reports.reported_runs import reported_run
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.report.run_report.contents import ReportedRun
from backtest_pipeline.report.run_report.run_document import (
    MOST_BYTES,
    PAGE_TRADES,
    Document,
    run_document,
)
from backtest_pipeline.report.run_report.trades_section import trades_csv
from backtest_pipeline.report.zoom_page import zoom_page
from backtest_pipeline.storage.run_tables.portfolios import stored_portfolio
from backtest_pipeline.storage.settings import Settings, load_settings


def report_url(run_id: UUID, settings: Settings | None = None) -> str:
    """Address of a run's report; empty where BACKTEST_SERVICE_URL does not say where it is."""
    service = (settings or load_settings()).service_url
    return f"{service}/backtests/{run_id}/report" if service else ""


def report_page(workspace: Workspace, run_id: UUID) -> Document:
    """The report of a run as a page of the service; its first trades, and a link to all.

    Raises:
        RunNotFound: where it is not stored, or is being deleted.
    """
    run = reported_run(workspace, run_id)
    return run_document(run, most_trades=PAGE_TRADES, others="trades", zoom="report/zoom")


def portfolio_page(workspace: Workspace, portfolio_id: UUID) -> Document:
    """The report of a portfolio as a page of the service.

    Raises:
        RunNotFound: where it is not stored.
    """
    return run_document(reported_portfolio(workspace, portfolio_id))


def find_reported(workspace: Workspace, given: str) -> UUID:
    """The full id of a run by its beginning, or of a portfolio by its whole id.

    Raises:
        RunNotFound: where there is none, or several runs begin so.
    """
    try:
        return find_runs(workspace, [given])[0]
    except RunNotFound:
        if not _is_portfolio(workspace, given):
            raise
        return UUID(given)


@retried
def _is_portfolio(workspace: Workspace, given: str) -> bool:
    try:
        portfolio_id = UUID(given)
    except ValueError:
        return False
    with workspace.database.begin() as connection:
        return stored_portfolio(connection, portfolio_id) is not None


def run_zoom_page(workspace: Workspace, run_id: UUID, files_at: str) -> str:
    """The curves of a run as a page of the service that zooms; as `report.zoom_page` says.

    Raises:
        RunNotFound: where it is not stored, or is being deleted.
    """
    return zoom_page(reported_run(workspace, run_id), files_at)


def write_report(
    workspace: Workspace, run_id: UUID, path: Path, *, replace: bool = False
) -> list[Path]:
    """Write the report of a run, or of a portfolio, as one file that opens offline.

    It has at most MOST_BYTES. Trades that do not fit are said to be missing, and all of them are
    written as CSV beside it.

    Args:
        workspace: the open store.
        run_id: the run.
        path: the file, or a folder to put `<run id>.html` in.
        replace: whether files that exist are written over.

    Returns:
        What was written: the report first.

    Raises:
        RunNotFound: where the run is not stored, or is being deleted.
        ReportNotWritten: where a file exists or cannot be written.
    """
    is_portfolio = _is_portfolio(workspace, str(run_id))
    read = reported_portfolio if is_portfolio else reported_run
    return write_reported(read(workspace, run_id), path, replace=replace)


def write_reported(run: ReportedRun, path: Path, *, replace: bool = False) -> list[Path]:
    """Write the report of a run that is read already; otherwise as `write_report`."""
    target = path / f"{run.run_id}.html" if path.is_dir() else path
    beside = target.with_suffix(".trades.csv")
    document = run_document(run, most_bytes=MOST_BYTES, others=beside.name)
    files = {target: document.html}
    if document.n_trades < len(run.trades):
        files[beside] = trades_csv(run.trades)
    for file, text in files.items():
        _write(file, text, replace=replace)
    return list(files)


def _write(file: Path, text: str, *, replace: bool) -> None:
    try:
        with file.open("w" if replace else "x", encoding="utf-8", newline="\n") as opened:
            opened.write(text)
    except FileExistsError:
        raise ReportNotWritten(
            f"{file} exists; choose another name, or say that it may be replaced (--replace)"
        ) from None
    except OSError as error:
        raise ReportNotWritten(f"{file} cannot be written: {error.strerror}") from error


def run_artifact(workspace: Workspace, run_id: UUID, name: str) -> bytes:
    """Read a file of a run's artifacts, checked against the manifest.

    Runs that were computed together share files; the column `run_id` says whose a row is.

    Args:
        workspace: the open store.
        run_id: the run.
        name: file name as listed in the manifest; any other name is rejected.

    Raises:
        UnknownName: for a name that the manifest does not list.
        RunNotFound, ResultPathMissing, ArtifactCorrupt: as `pipeline.runs.query` says.
    """
    uri = get_run(workspace, run_id).artifact_uri
    files = workspace.artifacts.manifest(uri).files
    if name not in files:
        raise UnknownName("artifact", name, files)
    return workspace.artifacts.read_bytes(uri, name)
