"""Further columns of the user's own table, read as those of files are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backtest_pipeline.market.errors import ColumnsError
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.look_ahead import probe_look_ahead
from backtest_pipeline.pipeline.audits.negative_controls import honest_grids
from backtest_pipeline.pipeline.columns.column_sets import known_sets
from backtest_pipeline.pipeline.presets import active_presets, left_out_presets
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.strategies.known_strategies import look_again
from backtest_pipeline_tests.own_columns import SCORED, scores, with_columns
from backtest_pipeline_tests.own_strategies import own_strategies, write
from backtest_pipeline_tests.pipeline.external_chain import PARTS, on, take
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh
from backtest_pipeline_tests.sql import column
from backtest_pipeline_tests.theirs import Theirs

EXTRA = """
    ALTER TABLE theirs.features ADD COLUMN score REAL, ADD COLUMN calm BOOLEAN,
        ADD COLUMN unread INTEGER DEFAULT 3, ADD COLUMN mood TEXT;
    UPDATE theirs.features SET score = (abs(hashint8(extract(epoch FROM ts)::bigint)) % 1000)
        / 999.0, calm = extract(day FROM ts) < 28
"""


@pytest.fixture
def strategies(tmp_path: Path) -> Iterator[Path]:
    with own_strategies(tmp_path / "strategies", {"scored.toml": SCORED}) as folder:
        yield folder


def _runs(store: Workspace, condition: str) -> list[str]:
    query = f"SELECT run_id::text FROM backtest_runs WHERE is_current AND {condition} ORDER BY 1"
    return column(store, query)


def test_columns_of_the_table_are_read_and_followed(
    fresh_store: Callable[[], Workspace], theirs: Theirs, strategies: Path
) -> None:
    theirs.run(EXTRA)
    store = fresh_store()
    reports = take(store, theirs.open())
    assert not any(report.failed for report in reports.values())
    own, others = _runs(store, "strategy = 'scored'"), _runs(store, "strategy <> 'scored'")
    assert len(own) == len(PARTS)
    (uri,) = column(
        store,
        "SELECT DISTINCT unnest(uris) FROM dataset_versions"
        " WHERE dataset = 'columns:external.table' AND tf = '1D'",
    )
    assert store.artifacts.columns_of(uri) == ["asset", "ts", "calm", "score"]
    stored = store.artifacts.read_snapshot(uri, ["ts", "score", "calm"], ["ID-1"]).to_pandas()
    there = theirs.run(
        "SELECT score::float8, calm::int::float8 FROM theirs.features"
        " WHERE id = 1 AND tf = '1D' ORDER BY ts"
    )
    np.testing.assert_array_equal(stored[["score", "calm"]].to_numpy(), np.array(there))
    again = take(store, theirs.open())
    assert {report.counts.get("unchanged") for report in again.values()} == {len(PARTS)}
    theirs.run(
        "UPDATE theirs.features SET score = 1 - score, updated_at = now() + interval '1 second'"
        " WHERE id = 2 AND tf = '1D'"
    )
    take(store, theirs.open())
    assert len(set(own) & set(_runs(store, "strategy = 'scored'"))) == len(PARTS) - 1
    assert _runs(store, "strategy <> 'scored'") == others


def test_a_file_may_not_have_a_column_of_the_table(
    fresh_store: Callable[[], Workspace], theirs: Theirs, strategies: Path, tmp_path: Path
) -> None:
    theirs.run(EXTRA)
    folder = tmp_path / "columns"
    folder.mkdir()
    scores().to_parquet(folder / "model.parquet")
    with on(fresh_store(), theirs.open()) as workspace:
        workspace = replace(workspace, columns_folder=folder)
        known = known_sets(workspace)
        (why,) = known.refused.values()
        assert "model.parquet and the table " in why
        assert "both have a column calm, score; rename one" in why
        assert [one.names for one in known.sets] == [("calm", "score")]
        assert left_out_presets(workspace) == {}
        with pytest.raises(ColumnsError, match=r"unknown column 'unred'; did you mean unread\?"):
            known.with_columns(["unred"])


PEEK = """
from backtest_pipeline.strategies import Params, Strategy, per_asset


class Peek(Params):
    pass


def rule(features, params):
    return {"long_entry": features["score"].shift(-1) > 0.6, "long_exit": features["score"] < 0.4}


STRATEGY = Strategy(
    name="peek",
    params_type=Peek,
    columns=lambda params: ("score",),
    conditions=per_asset(rule),
    presets={"peeks": {}},
)
"""


def test_a_strategy_that_reads_a_later_score_is_left_out_and_the_others_are_probed(
    workspace: Workspace, tmp_path: Path
) -> None:
    partitions = [Partition("A", "1D")]
    market = StaticSource({"1D": daily_panel({"A": 400})})
    with with_columns(workspace, tmp_path, {"model.csv": scores("A")}) as (store, _):
        write(tmp_path / "strategies", "peek.py", PEEK)
        look_again()
        assert "looks ahead" in left_out_presets(store)["peeks"]
        assert not any(report.failed for report in refresh(store, market, partitions).values())
        (scored,) = (p for p in active_presets(store) if p.name == "scored_60")
        probe = probe_look_ahead(store, market, presets=[scored])
        assert probe.signals > 0
        assert probe.leaks == ()
        assert "peek reads score" in honest_grids(store)[1]["peek"]
        assert "scored" not in {grid.strategy.name for grid in honest_grids(store)[0]}
