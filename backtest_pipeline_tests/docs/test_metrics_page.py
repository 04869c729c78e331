"""docs/metrics.md says what the code does."""

from __future__ import annotations

from pathlib import Path

from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS, METRICS, metrics_page

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_of_the_metrics_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == metrics_page(), "run `make reference`"


def test_each_metric_is_one_row_of_six_cells() -> None:
    rows = [line for line in metrics_page().splitlines() if line.startswith("| `")]
    assert len(rows) == len(METRICS) + len(FAMILY_METRICS)
    assert {row.count("|") for row in rows} == {7}
