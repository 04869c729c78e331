"""Reads a source of bars once, for whoever needs its bars at some timeframe."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from threading import Lock

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.panel import BAR_COLUMNS, Panel
from backtest_pipeline.market.partitions import checked_symbol
from backtest_pipeline.market.resample import coarsest_base, divides, resample
from backtest_pipeline.market.timeframes import Timeframe, timeframe
from backtest_pipeline.market.validation import Reason
from backtest_pipeline.pipeline.monitoring.counters import count_look_ups
from backtest_pipeline.pipeline.versions import BARS_CODE
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.base import BarSource, SourceBars
from backtest_pipeline.storage.source_states import clock_us

_PASSING = (Reason.UNFINISHED_BAR, Reason.NOT_FETCHED)
"""What a later read may find otherwise, although the source stays as it is."""


def now_us() -> int:
    """The time, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def states_of_bars(source: BarSource, assets: Sequence[str]) -> dict[str, str]:
    """The state of a source by asset, with the version of the code that validates its bars."""
    return {asset: f"{BARS_CODE}, {state}" for asset, state in source.states(assets).items()}


class SourceReader:
    """Reads a source once, when the first batch of bars is requested."""

    def __init__(
        self, source: BarSource, assets: Sequence[str], workspace: Workspace | None = None
    ) -> None:
        """Reads nothing yet.

        Cache hits are counted in the workspace, if one is given, whose database tells the time.
        """
        self.source = source
        self._workspace = workspace
        self._assets = [checked_symbol(asset) for asset in assets]
        self._absent: tuple[str, ...] = ()
        self._symbols: tuple[str, ...] = ()
        self._unread: tuple[str, ...] = ()
        self._states: dict[str, str] = {}
        self._read_at_us = 0
        self._lock = Lock()

    @cached_property
    def _read(self) -> SourceBars:
        self._read_at_us = self._now_us()
        before = states_of_bars(self.source, self._assets)
        read = self._offered()
        after = states_of_bars(self.source, self._assets)
        if not any(issue.reason in _PASSING for issue in read.issues):
            self._states = dict(before.items() & after.items())
        if self._workspace is not None:
            count_look_ups(self._workspace, read)
        self._unread = (*read.unread, *(f"{asset} is not in the source" for asset in self._absent))
        return read

    def _now_us(self) -> int:
        if self._workspace is None:
            return now_us()
        # The clocks of hosts differ, and tell nothing of who has read first.
        with self._workspace.database.begin() as connection:
            return clock_us(connection)

    def _offered(self) -> SourceBars:
        """The bars of those of the assets that the source has."""
        try:
            return self.source.read(self._assets)
        except UnknownName:
            # Assets that the source does not have cost those that it has nothing.
            self._symbols = tuple(self.source.symbols())
            self._absent = tuple(sorted({*self._assets} - {*self._symbols}))
            if not self._absent:
                raise
            there = [asset for asset in self._assets if asset not in self._absent]
            return self.source.read(there) if there else SourceBars({}, (), ())

    @property
    def bars(self) -> SourceBars:
        with self._lock:
            return self._read

    @property
    def absent(self) -> tuple[str, ...]:
        """Those of the assets that the source does not have, or not any more, sorted."""
        with self._lock:
            return self._absent if self._read else ()

    @property
    def symbols(self) -> tuple[str, ...]:
        """The assets that the source has; none where it has all that were asked for."""
        with self._lock:
            return self._symbols if self._read else ()

    @property
    def unread(self) -> tuple[str, ...]:
        """A sentence on each part of the source that was not read; empty before it is read."""
        with self._lock:
            return self._unread

    @property
    def read_at_us(self) -> int:
        """When reading began, in microseconds since 1970 UTC; 0 before the source is read.

        By the database's clock where there is a workspace, else by this machine's.
        """
        with self._lock:
            return self._read_at_us

    @property
    def states(self) -> Mapping[str, str]:
        """The state of the source that was read, by asset; without those that may have changed."""
        with self._lock:
            return self._states

    def bases_of(self, asset: str) -> list[Timeframe]:
        """The timeframes at which the source has the asset."""
        return [panel.timeframe for panel in self.bars.panels.values() if asset in panel.assets]

    def has_bars(self, asset: str) -> bool:
        """Whether the source has a bar of the asset that can be used, at any timeframe."""
        panels = self.bars.panels
        return any(len(panels[base.name].select([asset])) for base in self.bases_of(asset))

    def base_of(self, asset: str, target: Timeframe) -> str | None:
        """The timeframe that `target` bars are resampled from; None where all are coarser."""
        fitting = [base for base in self.bases_of(asset) if divides(base, target)]
        return coarsest_base(target, fitting).name if fitting else None

    def resampled(self, tf: str, assets: Sequence[str]) -> Panel:
        """Complete bars of the assets at a timeframe; an asset without any has no rows.

        Each asset is resampled from the coarsest of its own timeframes that divides the target.

        Raises:
            UnknownName: for an asset that the source does not have.
        """
        target = timeframe(tf)
        for asset in assets:
            if asset in self.absent:
                raise UnknownName("asset", asset, self.symbols)
        by_base: dict[str, list[str]] = {}
        for asset in assets:
            base = self.base_of(asset, target)
            if base is not None:
                by_base.setdefault(base, []).append(asset)
        panels = [
            resample(self.bars.panels[base].select(of_base), target)
            for base, of_base in by_base.items()
        ]
        return Panel.join(target, assets, panels, BAR_COLUMNS)
