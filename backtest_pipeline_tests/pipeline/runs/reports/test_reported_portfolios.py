"""The report of stored portfolios and cross-sections: what it shows is what is stored."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest

from backtest_pipeline.market.errors import RunNotFound
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.results import CrossSectionResult, PortfolioResult
from backtest_pipeline.pipeline.runs.query import get_run
from backtest_pipeline.pipeline.runs.reports.report import find_reported, write_report
from backtest_pipeline.pipeline.runs.reports.reported_portfolios import reported_portfolio
from backtest_pipeline.pipeline.runs.reports.reported_runs import reported_run
from backtest_pipeline.pipeline.specs import CrossSectionSpec, PortfolioSpec
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.sql import rows

SYMBOLS = ["S-ALPHA", "S-BETA", "S-GAMMA"]
RULES = 'kind = "cross_section"\nname = "strength"\nscore = "rsi_14"\ncount = 1'


def portfolio_of(workspace: Workspace) -> PortfolioResult:
    spec = PortfolioSpec(
        symbols=SYMBOLS, timeframe="1W", strategy="ema", params={"fast": 9, "slow": 21}
    )
    found = execute(workspace, load_settings(bars=""), spec, "quant")
    assert isinstance(found, PortfolioResult)
    return found


def test_a_portfolio_is_shown_as_it_is_stored(workspace: Workspace, tmp_path: Path) -> None:
    found = portfolio_of(workspace)
    run = reported_portfolio(workspace, found.portfolio_id)
    assert run.missing == ()
    assert run.series is not None
    assert run.series.equity[-1] / run.series.equity[0] - 1 == pytest.approx(
        run.metrics["total_return"]
    )
    held = run.holdings
    assert held is not None
    assert sorted(held.members) == SYMBOLS
    stored = rows(workspace.database, "SELECT symbol, weight FROM portfolio_weights"
                  " JOIN dim_assets USING (id) ORDER BY ts DESC, symbol LIMIT 3")  # fmt: skip
    last = {name: held.weights[-1, i] for i, name in enumerate(held.members)}
    assert {row["symbol"]: row["weight"] for row in stored} == last
    assert held.risk is not None
    assert held.risk.sum() == pytest.approx(1)
    assert held.correlations is not None
    pairs = held.correlations[np.triu_indices(3, 1)]
    assert pairs.mean() == pytest.approx(run.metrics["mean_pairwise_correlation"])
    (path,) = write_report(workspace, found.portfolio_id, tmp_path)
    assert "What diversification gained" in path.read_text()
    assert find_reported(workspace, str(found.portfolio_id)) == found.portfolio_id
    for nothing in (str(uuid4()), "zz"):
        with pytest.raises(RunNotFound):
            find_reported(workspace, nothing)

    (uri,) = (r["artifact_uri"] for r in rows(workspace.database, "SELECT * FROM portfolio_runs"))
    shutil.rmtree(Path(workspace.artifacts.where.removeprefix("file://")) / uri)
    gone = reported_portfolio(workspace, found.portfolio_id)
    assert (gone.series, gone.holdings, len(gone.missing)) == (None, None, 2)
    assert gone.metrics == run.metrics


def test_a_cross_section_shows_its_weights_and_misses_no_price(workspace: Workspace) -> None:
    spec = CrossSectionSpec(rules=RULES, symbols=SYMBOLS, timeframe="1W")
    portfolio_of(workspace)  # which stores the features
    found = execute(workspace, load_settings(bars=""), spec, "quant")
    assert isinstance(found, CrossSectionResult)
    run = reported_run(workspace, UUID(str(found.run_id)))
    assert run.missing == ()
    assert run.closes is None
    assert run.holdings is not None
    stored = workspace.artifacts.read_table(
        get_run(workspace, found.run_id).artifact_uri, "daily_weights.parquet"
    )
    assert run.holdings.weights.sum() == pytest.approx(sum(stored["weight"].to_pylist()))
    assert np.count_nonzero(run.holdings.weights) == stored.num_rows
