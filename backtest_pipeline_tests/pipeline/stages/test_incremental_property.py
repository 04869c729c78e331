"""Any sequence of appended, late, corrected and withdrawn bars ends as one full refresh would.

Each example refreshes assets step by step, each with a history of its own, and twins of them at
once with the bars that are known in the end; both lie in one store and must hold the same.
The suite goes through 100 histories, `make fuzz` through 500, BACKTEST_EXAMPLES=20000 through more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.pools.work_pool import Threads
from backtest_pipeline.pipeline.stages.bars import BAR_COLUMNS
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS
from backtest_pipeline.pipeline.use_cases.refresh import refresh_signals
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.panel_files import read_panel
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.datasets import read_versions
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel

HISTORIES = int(os.environ.get("BACKTEST_EXAMPLES", "100"))
AT_ONCE = 5  # the assets of an example are refreshed together, which takes hardly longer
FEWEST = 8  # days of which every timeframe has a bar
LONGEST = 640
TRUTH = daily_panel(dict.fromkeys("ABC", LONGEST), seed=23)
_number = count()


@dataclass(frozen=True)
class Known:
    """What a source knows of an asset: so many of its first days, and what is wrong with them."""

    days: int
    corrected: int | None = None
    missing: int | None = None

    def rows(self, truth: Panel) -> Panel:
        """The bars as the source has them; `corrected` and `missing` count days from the end."""
        n = max(self.days, FEWEST)
        columns = {name: values[:n].copy() for name, values in truth.columns.items()}
        if self.corrected is not None:
            row = n - 1 - self.corrected % n
            for name in ("open", "high", "low", "close"):
                columns[name][row] *= 1.05
        bars = Panel(truth.timeframe, truth.assets, np.array([0, n]), truth.ts[:n], columns)
        if self.missing is None:
            return bars
        return bars.take(np.arange(n) != n - 1 - self.missing % (n - 2))


lately = st.integers(0, 30) | st.integers(0, LONGEST)
trouble = st.none() | st.none() | lately
sizes = st.one_of(*[st.integers(FEWEST, 120)] * 5, st.integers(480, LONGEST))


@st.composite
def histories(draw: st.DrawFn) -> list[Known]:
    """How one asset is known at each of a few refreshes; mostly it grows."""
    days = draw(sizes)
    known = []
    for _ in range(draw(st.integers(2, 3))):
        known.append(Known(days, draw(trouble), draw(trouble)))
        days = min(LONGEST, days + draw(st.integers(0, 3) | st.integers(-5, 70)))
    return known


@pytest.fixture(scope="module")
def store(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """One store for all examples, whose assets do not touch each other."""
    root: Path = tmp_path_factory.mktemp("examples")
    for database in database_like(template, "backtest"):
        yield Workspace(database, ArtifactStore(root), pool=Threads(1))


def source(known: dict[str, tuple[Known, str]]) -> StaticSource:
    """Assets by the name they go by, each known in a way, with the prices of one of TRUTH."""
    panels = [how.rows(TRUTH.select([prices])) for how, prices in known.values()]
    joined = [
        Panel(p.timeframe, (name,), p.offsets, p.ts, p.columns)
        for name, p in zip(known, panels, strict=True)
    ]
    columns = list(TRUTH.columns)
    return StaticSource({"1D": Panel.join(timeframe("1D"), list(known), joined, columns)})


@settings(
    max_examples=HISTORIES // AT_ONCE,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    assets=st.lists(histories(), min_size=AT_ONCE, max_size=AT_ONCE),
    coarse=st.sampled_from([None, None, "2D", "1W"]),
)
def test_any_way_of_growing_ends_as_a_full_refresh(
    store: Workspace, assets: list[list[Known]], coarse: str | None
) -> None:
    names = [f"E{next(_number)}-{'ABC'[i % 3]}" for i in range(len(assets))]
    timeframes = ["1D", coarse] if coarse else ["1D"]
    steps = max(map(len, assets))
    for step in range(steps):
        now = {
            name: (known[min(step, len(known) - 1)], name[-1])
            for name, known in zip(names, assets, strict=True)
        }
        if step == steps - 1:
            now |= {_twin(name): how for name, how in now.items()}
        refresh(store, now, timeframes)
    for name in names:
        assert contents(store, name, timeframes) == contents(store, _twin(name), timeframes)


def _twin(name: str) -> str:
    return f"F{name[1:]}"


def refresh(
    store: Workspace, known: dict[str, tuple[Known, str]], timeframes: Sequence[str]
) -> None:
    partitions = [Partition(name, tf) for tf in timeframes for name in known]
    for report in refresh_signals(store, source(known), partitions):
        assert not report.failed, report.failed[0]


_HASHED = {
    "cmc_features": "tf, ts",
    "cmc_ema_multi_tf_u": "tf, ts, period",
    "signals": "tf, ts, signal_id, direction, action",
    "signal_state": "tf, signal_id",
    "feature_checkpoints": "tf",
    "dataset_versions": "dataset, tf",
}
_PASSING = {"id", "updated_at", "created_at", "generation", "input_generation", "uris"}


def contents(store: Workspace, name: str, timeframes: Sequence[str]) -> dict[str, object]:
    """All that the store holds of an asset, but when and in how many steps it was written."""
    found: dict[str, object] = {}
    with store.database.begin() as connection:
        id_ = connection.scalar(
            sa.text("SELECT id FROM dim_assets WHERE symbol = :name"), {"name": name}
        )
        for table, order in _HASHED.items():
            columns = ", ".join(_columns(connection, table))
            rows = connection.execute(
                sa.text(
                    f"SELECT count(*), md5(string_agg(ROW({columns})::text, '' ORDER BY {order}))"
                    f" FROM {table} WHERE id = :id"
                ),
                {"id": id_},
            )
            found[table] = tuple(rows.one())
        for dataset in ("bars", "features"):
            partitions = [Partition(name, tf) for tf in timeframes]
            versions = read_versions(connection, dataset, partitions)
            for tf in timeframes:
                columns = BAR_COLUMNS if dataset == "bars" else SNAPSHOT_COLUMNS
                uris = versions[Partition(name, tf)].uris
                panel = read_panel(store.artifacts, tf, {name: uris}, columns)
                found[f"{dataset} of {tf}"] = [
                    panel.ts.tobytes(),
                    *(values.tobytes() for values in panel.columns.values()),
                ]
    return found


_known_columns: dict[str, list[str]] = {}


def _columns(connection: sa.Connection, table: str) -> list[str]:
    if table not in _known_columns:
        names = connection.scalars(
            sa.text("SELECT column_name FROM information_schema.columns WHERE table_name = :name"),
            {"name": table},
        )
        _known_columns[table] = [
            "(feature_snapshot - 'id')" if n == "feature_snapshot" else f'"{n}"'
            for n in names
            if n not in _PASSING
        ]
    return _known_columns[table]
