"""The page names every metric and every alert that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient

from backtest_pipeline.pipeline.monitoring.counters import METRICS
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.service.metrics_endpoint import Metrics
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.ops.queries import alerts
from backtest_pipeline_tests.service.pools import Waiting

PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()


def _rows(header: str) -> list[list[str]]:
    """The cells of the tables that begin with a header, without their marks."""
    found = re.findall(rf"^\| {header} \|.*\n\| ---.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    lines = "".join(found).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_tables_have_the_metrics_that_are_told(database: Database, tmp_path: Path) -> None:
    workspace = Workspace(database, ArtifactStore(tmp_path))
    metrics = Metrics(lambda: workspace, Waiting)
    app = FastAPI()
    app.include_router(metrics.router)
    with TestClient(app):
        told = {
            f"{family.name}_total" if family.type == "counter" else family.name: family
            for family in metrics.registry.collect()
        }
    rows = {row[0].strip("`"): row for row in _rows("metric")}
    ours = {name for name in told if not name.startswith("process_")}
    assert {name for name in rows if not name.startswith("process_")} == ours
    for name, (_, kind, labels, _what) in rows.items():
        assert kind == told[name].type, name
        known = [metric for metric in METRICS if metric.name == name]
        if known:
            assert set(re.findall(r"`(\w+)`", labels)) == set(known[0].labels), name


def test_every_alert_has_its_severity_and_what_to_do() -> None:
    rows = {row[0].strip("`"): row for row in _rows("alert")}
    assert set(rows) == {alert["alert"] for alert in alerts()}
    for alert in alerts():
        _, severity, what = rows[alert["alert"]]
        assert severity == alert["labels"]["severity"]
        assert what
