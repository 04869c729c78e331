"""Bundles of runs that rank a universe: what was forged in them is named."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.pipeline.cross_section.ranked_identity import RankedTerms
from backtest_pipeline.pipeline.cross_section.ranked_runs import run_ranked
from backtest_pipeline.pipeline.replay.bundle_verifier import (
    MANIFEST,
    OF_UNIVERSE,
    RUN,
    SEAL,
    problems_of,
    verdict,
)
from backtest_pipeline.pipeline.replay.export import bundle_files
from backtest_pipeline.pipeline.replay.vectorbt_portfolio import vectorbt_portfolio
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.strategies.cross_section.definition import CrossSection

Files = dict[str, bytes]


def _hashed_again(files: Files) -> Files:
    manifest = json.loads(files[MANIFEST])
    for name, about in manifest["files"].items():
        about["sha256"] = hashlib.sha256(files[name]).hexdigest()
    data = json.dumps(manifest).encode()
    return {**files, MANIFEST: data, SEAL: hashlib.sha256(data).hexdigest().encode()}


def _with_results(files: Files, change: Callable[[dict[str, Any]], object]) -> Files:
    run = json.loads(files[RUN])
    change(run["results"]["cross_section"])
    return _hashed_again({**files, RUN: json.dumps(run).encode()})


def _with_column(files: Files, file: str, name: str, value: float) -> Files:
    table, sink = pq.read_table(io.BytesIO(files[file])), io.BytesIO()
    kept = [None if v is None else value for v in table[name].to_pylist()]
    filled = pa.array(kept, table[name].type)
    pq.write_table(table.set_column(table.column_names.index(name), name, filled), sink)
    return _hashed_again({**files, file: sink.getvalue()})


def test_figures_and_tables_of_a_ranked_run_that_were_forged_are_named(
    refreshed: Workspace,
) -> None:
    for horizon in (1, 5):
        rule = CrossSection("up", "close / shift(close, 20) - 1", count=2, horizon=horizon)
        run_id, _ = run_ranked(refreshed, rule, "1D", RankedTerms())
        files = bundle_files(refreshed, run_id)
        assert problems_of(files) == []
    assert all(name in verdict(files).split("; figures in")[1] for name in OF_UNIVERSE)
    results = json.loads(files[RUN])["results"]["cross_section"]
    for name in results["figures"]:
        forged = _with_results(files, lambda own, n=name: own["figures"].update({n: 0.9}))
        (problem,) = problems_of(forged)
        assert problem.startswith(f"run.json, results.cross_section: {name} is 0.9, but daily_ic")
    forged = _with_results(files, lambda own: own["quantiles"][1].update(mean_return=0.9))
    (problem,) = problems_of(forged)
    assert "quantile 2: mean_return is 0.9" in problem
    (problem,) = problems_of(_with_results(files, lambda own: own.update(dates_with_ic=3)))
    assert "dates_with_ic is 3" in problem
    for file, name in (
        ("daily_ic.parquet", "turnover"),
        ("daily_signals.parquet", "score"),
        ("daily_weights.parquet", "weight"),
    ):
        (problem,) = problems_of(_with_column(files, file, name, 0.9))
        assert problem.startswith(f"{file} has values with hash ")
    with pytest.raises(InvalidInput, match="ranks a universe, so that it holds several assets"):
        vectorbt_portfolio(refreshed, run_id)
