"""Files of pages over HTTP: kept by browsers for good, compressed once, the same either way."""

from __future__ import annotations

from starlette.testclient import TestClient

from backtest_pipeline.report.zoom_page import page_files
from backtest_pipeline_tests.service.conftest import QUESTION
from backtest_pipeline_tests.service.problems import told


def test_a_page_loads_files_that_are_kept_for_good(
    client: TestClient, runner: dict[str, str]
) -> None:
    ran = client.post("/backtest/run", json=QUESTION, headers=runner).json()
    where = f"/backtests/{ran['run_id']}/report"
    assert '<a href="report/zoom">Zoom</a>' in client.get(where, headers=runner).text
    page = client.get(f"{where}/zoom", headers=runner)
    assert "script-src 'self'; style-src 'self'" in page.headers["Content-Security-Policy"]
    for name, file in page_files().items():
        assert f'"../../../page-files/{name}"' in page.text
        zipped = client.get(f"/page-files/{name}", headers={"Accept-Encoding": "gzip"})
        plain = client.get(f"/page-files/{name}", headers={"Accept-Encoding": "identity"})
        assert zipped.headers["Content-Encoding"] == "gzip"
        assert int(zipped.headers["Content-Length"]) == len(file.gzipped)
        assert zipped.content == plain.content
        assert "immutable" in plain.headers["Cache-Control"]
        assert plain.headers["Content-Type"] == file.media_type


def test_no_other_file_is_served(client: TestClient) -> None:
    for name in ("plotly.min.js", "0" * 16 + "-zoom.js"):
        told(client.get(f"/page-files/{name}"), "NOT_FOUND")
