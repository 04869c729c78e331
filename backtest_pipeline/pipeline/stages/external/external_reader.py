"""What the external table holds, looked at once for all partitions of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from threading import RLock
from typing import NamedTuple

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import is_timeframe
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.external.assets import asset_names
from backtest_pipeline.storage.external.overview import left_out
from backtest_pipeline.storage.external.probe import FeatureTable
from backtest_pipeline.storage.external.watermarks import (
    Watermark,
    look_at,
)

_log = logging.getLogger(__name__)


class TableLook(NamedTuple):
    """What the external table holds, as it was found at one time."""

    marks: dict[Partition, Watermark]
    ids: dict[str, int]
    unusable: dict[Partition, int]
    left_out: tuple[str, ...]
    timeframes: dict[str, list[str]]


class ExternalReader:
    """Reads the external table's watermarks once, when the first partition is requested.

    Raises:
        ConfigurationError: where no external table is configured.
    """

    def __init__(self, workspace: Workspace, look: TableLook | None = None) -> None:
        """Reads nothing yet, and nothing at all with the look of another process."""
        if workspace.external is None:
            raise ConfigurationError(
                "no external feature table is configured, so features are built from bars; set "
                "BACKTEST_FEATURES_TABLE to read your own table"
            )
        self.table: FeatureTable = workspace.external
        self._workspace = workspace
        self._lock = RLock()
        self._look_of_another = look

    @cached_property
    def _look(self) -> TableLook:
        if self._look_of_another is not None:
            return self._look_of_another
        look = look_at(self.table)
        current = look.watermarks
        names = asset_names(self._workspace.database, self.table, (id_ for id_, _ in current))
        marks = {
            Partition(names[id_], tf): mark
            for (id_, tf), mark in current.items()
            if is_timeframe(tf)
        }
        unusable = {
            Partition(names[id_], tf): n
            for (id_, tf), n in look.unusable.items()
            if id_ in names and tf is not None and is_timeframe(tf)
        }
        sentences = tuple(left_out(look))
        for sentence in sentences:
            _log.warning("%s: %s", self.table.features.name, sentence)
        timeframes: dict[str, list[str]] = {}
        for id_, tf in sorted(current):
            timeframes.setdefault(names[id_], []).append(tf)
        ids = {symbol: id_ for id_, symbol in names.items()}
        return TableLook(marks, ids, unusable, sentences, timeframes)

    @property
    def look(self) -> TableLook:
        """What was found, for the reader of another process."""
        with self._lock:
            return self._look

    @property
    def watermarks(self) -> Mapping[Partition, Watermark]:
        """The watermark of each partition of the table, at timeframes that this project knows."""
        with self._lock:
            return self._look.marks

    @property
    def ids(self) -> Mapping[str, int]:
        """The id of each symbol in the table."""
        with self._lock:
            return self._look.ids

    @property
    def unusable(self) -> Mapping[Partition, int]:
        """How many rows of each partition have a stamp that is none."""
        with self._lock:
            return self._look.unusable

    @property
    def left_out(self) -> tuple[str, ...]:
        """A sentence on the rows of each id that cannot be used."""
        with self._lock:
            return self._look.left_out

    def timeframes_of(self, symbol: str) -> list[str]:
        """What the table has in `tf` of an asset, also what no timeframe is called."""
        with self._lock:
            return self._look.timeframes.get(symbol, [])

    def symbols(self) -> tuple[str, ...]:
        """The symbols of the table, sorted."""
        return tuple(sorted(self.ids))
