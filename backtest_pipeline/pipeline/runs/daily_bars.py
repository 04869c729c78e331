"""Daily bars that mark the runs on longer bars, and their part in what a run was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.runs.read_rows import Read
from backtest_pipeline.simulation.marks import DAILY, MARK_COLUMNS, Marks, marks_of
from backtest_pipeline.storage.provenance import combined, content_versions
from backtest_pipeline.storage.tables.datasets import DatasetVersion


@dataclass(frozen=True)
class DailyBars:
    """The days that mark runs on some longer bars.

    Attributes:
        days: the daily bars between the closes of those bars; None where there are none.
        stored: versions of the stored daily features, by asset, also of those that mark nothing.
        contents: hash of the days of each asset that is marked daily. Days before the first close
            and after the last are not in it: a new day makes no run stale.
    """

    days: Panel | None = None
    stored: Mapping[str, DatasetVersion] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(panel: Panel, daily: Panel, stored: Mapping[str, DatasetVersion]) -> DailyBars:
        """Those of the daily bars (with MARK_COLUMNS) that mark runs on the panel."""
        days = marks_of(panel, daily).days
        days = days.select([a for a, n in zip(days.assets, days.lengths, strict=True) if n])
        return DailyBars(days, stored, content_versions(days, MARK_COLUMNS).whole)

    def marks(self, panel: Panel) -> Marks:
        """The marks of runs on the panel, or on some of its bars."""
        return marks_of(panel, self.days)

    def read_by(self, asset: str) -> dict[str, Read]:
        """What the runs of an asset were made from, by partition; empty without daily marks."""
        if asset not in self.contents:
            return {}
        return {str(Partition(asset, DAILY)): Read(self.stored[asset], self.contents[asset])}

    def code_of(self, code: str, asset: str) -> str:
        """The `code_version` of what is made from an asset's bars, with its daily bars in it.

        They may be none that mark a run: whether they do is seen when they are read.
        """
        return combined(code, self.stored[asset].version) if asset in self.stored else code

    def version_of(self, version: str, asset: str) -> str:
        """The version of what is made from an asset's bars, with the days that mark it in it."""
        return combined(version, self.contents[asset]) if asset in self.contents else version
