"""Metadata of stages and summaries, as the Dagster UI shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from backtest_pipeline.pipeline.runs.reports.report import report_url
from backtest_pipeline.pipeline.runs.summary import Summary
from backtest_pipeline.pipeline.stage import StageReport, Status
from backtest_pipeline.report.svg import sparkline, svg_markdown

_MOST_SHOWN = 20
_FIRST = (
    *("report", "equity", "best_sharpe", "best_return", "best_drawdown", "trades", "best_run"),
    "why",
)
_ALONE = ("best_return", "best_drawdown")


def table_schema(*columns: tuple[str, str, str]) -> dg.TableSchema:
    """Columns as (name, type, meaning)."""
    return dg.TableSchema(
        [dg.TableColumn(name, kind, description=about or None) for name, kind, about in columns]
    )


def counts_of(report: StageReport) -> dict[str, Any]:
    """How many partitions a stage stored, skipped or failed, and how many rows it wrote."""
    return {
        "partitions": len(report.outcomes),
        **{f"partitions_{status}": count for status, count in report.counts.items()},
        "rows_written": report.rows,
    }


def of_stage(report: StageReport, summary: Summary) -> dict[str, Any]:
    """A stage's counts, the tables of its summary, and why partitions lack a result or a part."""
    metadata = counts_of(report)
    remarks = [
        {"partition": str(o.partition), "status": o.status.value, "why": o.detail}
        for o in report.outcomes
        if o.status in (Status.EMPTY, Status.NO_INPUT, Status.PARTIAL, Status.FAILED)
    ]
    if remarks:
        metadata["without_result"] = _table(remarks[:_MOST_SHOWN])
        if len(remarks) > _MOST_SHOWN:
            metadata["without_result_not_shown"] = len(remarks) - _MOST_SHOWN
    return metadata | of_summary(summary)


def of_summary(summary: Summary) -> dict[str, Any]:
    """A summary's link to a report, chart, tables and numbers as metadata values, in that order."""
    metadata: dict[str, Any] = linked({"best_run_id": summary.best_run})
    if summary.chart:
        chart = summary.chart
        metadata["equity"] = dg.MetadataValue.md(svg_markdown(sparkline(chart.lines), chart.title))
    metadata |= {name: _table(rows) for name, rows in summary.tables.items() if rows}
    return metadata | dict(summary.numbers)


def linked(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures with a link to the report of their best run in place of its id.

    The link needs the service's address, BACKTEST_SERVICE_URL.
    """
    others = {name: value for name, value in figures.items() if name != "best_run_id"}
    best = figures.get("best_run_id")
    address = report_url(best) if best is not None else ""
    return {"report": dg.MetadataValue.url(address), **others} if address else others


def in_order(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as a page reads best: link and chart, figures of the best run, tables, the rest."""
    first = [name for name in _FIRST if name in metadata]
    tables = [name for name, value in metadata.items() if isinstance(value, dg.TableMetadataValue)]
    return {name: metadata[name] for name in (*first, *tables)} | dict(metadata)


def brief(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the event of one of many partitions has of its figures: such events fill the log.

    One that is computed alone has all of them.
    """
    return {k: v for k, v in metadata.items() if v is not None and k not in _ALONE}


def _table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    kinds = {str: "string", bool: "bool", int: "int", float: "float"}
    columns = [
        dg.TableColumn(name, kinds.get(type(value), "string")) for name, value in rows[0].items()
    ]
    records = [dg.TableRecord({k: "" if v is None else v for k, v in row.items()}) for row in rows]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))
