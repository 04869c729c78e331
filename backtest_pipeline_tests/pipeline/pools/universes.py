"""A small universe whose refresh is spread, and a store that workers open themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.pools import staged_batches
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import Settings, load_settings
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel
from backtest_pipeline_tests.pipeline.pools.tasks import FEWEST_ROWS

ASSETS = tuple(f"U{number:02}" for number in range(8))
PARTITIONS = [Partition(asset, tf) for tf in ("1D", "2D", "3D", "1W") for asset in ASSETS]
_PANEL = daily_panel(dict.fromkeys(ASSETS, 300), seed=5)
UNIVERSE = StaticSource({"1D": _PANEL})
EARLIER = StaticSource({"1D": _PANEL.take(_PANEL.ts <= _PANEL.ts.max() - 21 * DAY_US)})
"""The same three weeks before its last bar."""

assert len(EARLIER.panels["1D"].ts) * (1 + 1 / 2 + 1 / 3 + 1 / 7) > 4 * FEWEST_ROWS


@dataclass(frozen=True)
class WorkedStore:
    """A store of its own, which workers find by its settings."""

    database: Database
    folder: Path

    @property
    def given(self) -> dict[str, Any]:
        """Its settings, as words."""
        return {
            "run_store_mode": "postgres",
            "postgres_dsn": self.database.conninfo,
            "home": str(self.folder),
            "artifacts_url": str(self.folder / "artifacts"),
            "strategies": str(self.folder / "strategies"),
        }

    def settings(self, **more: Any) -> Settings:
        return load_settings(**self.given, **more)

    def environment(self, **more: Any) -> dict[str, str]:
        """What leads a process of its own to it."""
        return {f"BACKTEST_{name.upper()}": str(word) for name, word in (self.given | more).items()}


def worked_store(template: Database, folder: Path) -> Iterator[WorkedStore]:
    """One that is empty, and whose refreshes are spread though they are small."""
    (folder / "strategies").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(staged_batches, "FEWEST_ROWS", FEWEST_ROWS)
        for database in database_like(template, "backtest"):
            yield WorkedStore(database, folder)
