"""Which partitions a refresh would change now, and why: what is stored against what should be.

Nothing here remembers earlier refreshes or ticks of a clock. What is due follows from the store
alone: the versions of its datasets, the code that declares others by now, and when the source was
last read. So it does not matter how often it is looked at, or for how long nobody did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, Timeframe, timeframe
from backtest_pipeline.pipeline.stages.backtests import BacktestsStage
from backtest_pipeline.pipeline.stages.features import FeaturesStage
from backtest_pipeline.pipeline.stages.signals import SignalsStage
from backtest_pipeline.pipeline.stages.source_reader import states_of_bars
from backtest_pipeline.pipeline.versions import BARS_CODE
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.marks import DAILY
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.storage.source_states import read_states, read_times
from backtest_pipeline.storage.tables.datasets import DatasetVersion, read_versions
from backtest_pipeline.strategies.known_strategies import look_again

_SILENT = 8
"""An asset without new bars is read again after this fraction of the time of its silence."""
_MOST_NAMED = 5


class DueReason(StrEnum):
    """Why a partition is due."""

    MISSING = "missing"
    NEW_BARS = "new bars"
    STALE = "stale"


class BarsClose(StrEnum):
    """When bars of a timeframe close: the schedules are by that."""

    INTRADAY = "hourly"
    DAYS = "daily"
    WEEKS = "weekly"
    MONTHS = "monthly"

    @staticmethod
    def of(tf: Timeframe) -> BarsClose:
        """When the bars of a timeframe close; of 30 fixed days (`1M`) at the end of any day.

        Examples:
            >>> BarsClose.of(timeframe("4H")).value, BarsClose.of(timeframe("1W_CAL_US")).value
            ('hourly', 'weekly')
            >>> BarsClose.of(timeframe("1M")).value, BarsClose.of(timeframe("1M_CAL")).value
            ('daily', 'monthly')
        """
        if tf.is_intraday:
            return BarsClose.INTRADAY
        if tf.unit == "W":
            return BarsClose.WEEKS
        return BarsClose.MONTHS if tf.is_calendar else BarsClose.DAYS


@dataclass(frozen=True)
class DuePartitions:
    """The partitions that are due, and the assets that no refresh can bring new bars of.

    Attributes:
        reasons: why, by partition.
        looked_at: number of partitions that were looked at.
        absent: assets that the source does not have any more; their bars stay as they are, and
            what is made from them is due where it is stale.
        closed: when the last bar that results of each timeframe are marked at closed, at longer
            ones than a day that of the day, microseconds since 1970 UTC.
    """

    reasons: Mapping[Partition, DueReason]
    looked_at: int
    absent: tuple[str, ...]
    closed: Mapping[str, int]

    @property
    def text(self) -> str:
        """How many are due and why, and which assets are absent, in a sentence."""
        counts = Counter(reason.value for reason in self.reasons.values())
        parts = [f"{count:,} {reason}" for reason, count in sorted(counts.items())]
        found = f"of {self.looked_at:,} partitions {', '.join(parts) or 'none'} to compute"
        if not self.absent:
            return found
        named = ", ".join(self.absent[:_MOST_NAMED])
        more = len(self.absent) - _MOST_NAMED
        others = f" and {more:,} more" if more > 0 else ""
        return f"{found}; left the source, their bars are kept: {named}{others}"


def offered_symbols(
    workspace: Workspace, source: BarSource, partitions: Sequence[Partition]
) -> tuple[str, ...] | None:
    """The symbols that a source has; None where it is as it was when all of these were read.

    It then has these, and no others. To ask a folder of files for its symbols is to read it whole.

    Raises:
        BacktestError: where the source cannot be read.
    """
    states = states_of_bars(source, sorted({p.asset for p in partitions}))

    def read() -> dict[Partition, str]:
        with workspace.database.begin() as connection:
            return read_states(connection, partitions)

    known = workspace.database.retrying("states of the source", read)
    if partitions and all(p in known and known[p] == states.get(p.asset) for p in partitions):
        return None
    return tuple(source.symbols())


def due_partitions(
    workspace: Workspace,
    source: BarSource | None,
    config: SimulationConfig,
    partitions: Sequence[Partition],
    at_us: int,
) -> DuePartitions:
    """The partitions that a refresh would change.

    Args:
        workspace: the open store.
        source: where bars are read from; None with an external feature table, whose changes its
            own sensor requests.
        config: how the stored backtests are simulated.
        partitions: to look at.
        at_us: the time, in microseconds since 1970 UTC.

    Raises:
        BacktestError: where the source cannot be read.
    """
    look_again()
    offered = None if source is None else offered_symbols(workspace, source, partitions)
    wanted = [p for p in partitions if offered is None or p.asset in offered]
    left = sorted({*partitions} - {*wanted})

    def look() -> dict[Partition, DueReason]:
        with workspace.database.begin() as connection:
            stored = read_versions(connection, BacktestsStage.name, partitions)
            kept = list(read_versions(connection, "bars", left))
        stale = _stale(workspace, config, [*wanted, *kept])
        unread = set()
        if source is not None:
            stale |= _of_other_bars(workspace, wanted)
            unread = _unread(workspace, source, wanted, at_us)
        return {p: _reason(p, stored, unread) for p in sorted(stale | unread)}

    reasons = workspace.database.retrying("due partitions", look) if partitions else {}
    days = timeframe(DAILY)
    closed = {
        tf: (days if timeframe(tf).days > 1 else timeframe(tf)).last_closes(at_us)[0]
        for _, tf in partitions
    }
    return DuePartitions(reasons, len(partitions), tuple(sorted({p.asset for p in left})), closed)


def _reason(
    partition: Partition, stored: Mapping[Partition, DatasetVersion], unread: Collection[Partition]
) -> DueReason:
    if partition not in stored:
        return DueReason.MISSING
    return DueReason.NEW_BARS if partition in unread else DueReason.STALE


def _stale(
    workspace: Workspace, config: SimulationConfig, partitions: Sequence[Partition]
) -> set[Partition]:
    """Those of which a stage lacks its rows, or has them of other inputs or code than today's."""
    stages = [SignalsStage(workspace), BacktestsStage(workspace, config)]
    if workspace.external is None:
        stages.append(FeaturesStage(workspace))
    return {p for stage in stages for p in stage.stale(partitions)}


def _of_other_bars(workspace: Workspace, partitions: Sequence[Partition]) -> set[Partition]:
    """Those without bars, or whose bars were made by other code than today's."""
    with workspace.database.begin() as connection:
        bars = read_versions(connection, "bars", partitions)
    return {p for p in partitions if p not in bars or bars[p].code_version != BARS_CODE}


def _unread(
    workspace: Workspace, source: BarSource, partitions: Sequence[Partition], at_us: int
) -> set[Partition]:
    """Those of which the source may have bars that are not stored.

    A source that tells its state without being read has others where it tells another one. Of the
    rest, a bar must have closed since it was read.
    """
    states = states_of_bars(source, sorted({p.asset for p in partitions}))
    timeframes = sorted({p.timeframe for p in partitions})
    with workspace.database.begin() as connection:
        bars = read_versions(connection, "bars", partitions)
        known = read_states(connection, partitions)
        read_at = read_times(connection, timeframes)
    closed = {tf: timeframe(tf).last_closes(at_us) for tf in timeframes}
    found = set()
    for p in partitions:
        state = states.get(p.asset)
        if state is not None and p in known:
            is_unread = state != known[p]
        else:
            is_unread = is_due(bars.get(p), read_at.get(p), closed[p.timeframe])
        if is_unread:
            found.add(p)
    return found


def is_due(
    stored: DatasetVersion | None, read_at: datetime | None, closed: tuple[int, int]
) -> bool:
    """Whether a read of a source may bring bars of a partition that are not stored.

    - Of one that has the newest bar that has closed: no.
    - Of one that lacks that bar only: yes, until it has it, since sources may be late.
    - Of one that has been silent for longer, such as a coin that was delisted: once a bar has
      closed since the last read, and after an eighth of the time of its silence.

    Args:
        stored: the stored bars.
        read_at: when the source was last read for them.
        closed: when the last two bars closed, microseconds since 1970 UTC, the later one first.
    """
    if stored is None or read_at is None:
        return True
    last, before = closed
    read_us = int(read_at.timestamp() * 1e6)
    if stored.last_ts is None:
        return read_us < last
    newest = stored.last_ts + CLOSE_STAMP_US
    if newest >= last:
        return False
    silent = last - newest
    return newest >= before or last - read_us >= max(silent // _SILENT, 1)
