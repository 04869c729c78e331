"""The look-ahead probe: root bars with other futures, through what the stages compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.other_histories import (
    CUTS,
    Features,
    probe_root,
    probe_strategies,
)
from backtest_pipeline.pipeline.runs.identity import hash_of
from backtest_pipeline.pipeline.stages.bars import SourceReader
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS, FeaturesStage, load_batch
from backtest_pipeline.pipeline.stages.signals import signals_code
from backtest_pipeline.pipeline.versions import LOOK_AHEAD_CODE
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.research.look_ahead.look_ahead import (
    Leak,
    differences,
)
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.storage.tables.datasets import stored_partitions
from backtest_pipeline.storage.tables.dimensions import SignalRow, active_signals
from backtest_pipeline.storage.tables.look_ahead import last_probe, record_probe

ASSETS = 3
"""Assets of a sample, each at all stored timeframes: what is computed of one is computed of all."""

_STORED = "stored"


@dataclass(frozen=True)
class Probe:
    """What a probe looked at and found.

    Attributes:
        scope: `root_bars`, or `strategies` where the features are not computed here.
        partitions: how many were probed.
        futures: other futures that everything was computed with.
        signals: signals whose later bars were taken away.
        leaks: what changed; empty where nothing looks ahead.
        seed: what was drawn follows from it.
    """

    scope: str
    partitions: int
    futures: int
    signals: int
    leaks: tuple[Leak, ...]
    seed: int

    @property
    def verdict(self) -> str:
        """One line for people."""
        if not self.partitions:
            return "nothing is stored that could be probed"
        what = (
            "features and signals of root bars"
            if self.scope == "root_bars"
            else "strategies alone, for the features are not computed here and cannot be probed"
        )
        seen = (
            f"{what}: {self.partitions} partitions, {self.futures} other futures, "
            f"{self.signals} signals cut off"
        )
        if not self.leaks:
            return f"nothing looks ahead; {seen}"
        outputs = list(dict.fromkeys(leak.output for leak in self.leaks))
        shown = ", ".join(outputs[:5]) + (", ..." if len(outputs) > 5 else "")
        return f"{len(outputs)} outputs look ahead ({shown}); {seen}"


def probe_look_ahead(
    workspace: Workspace,
    source: BarSource | None,
    *,
    assets: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    seed: int = 0,
    cuts: int = CUTS,
    features: Features = build_features,
) -> Probe:
    """Probe a sample of what is stored.

    Args:
        workspace: an open store; what it holds says which assets, timeframes and signals.
        source: where the root bars are; None where the features are not computed here, and
            only the strategies can be probed.
        assets: symbols; a sample of ASSETS of them where None.
        timeframes: names; all that are stored where None.
        seed: what is drawn follows from it.
        cuts: cuts of each timeframe.
        features: bars to features, where others than those of the project are to be probed.

    Raises:
        UnknownName: for a named asset or timeframe of which nothing is stored.
    """
    with workspace.database.begin() as connection:
        signals = active_signals(connection)
        stored = stored_partitions(connection, "features")
    if source is not None:
        at_hand = set(source.symbols())
        stored = [p for p in stored if p.asset in at_hand]
    partitions = _sample(stored, assets, timeframes, seed)
    found: list[Leak] = []
    n_futures = n_signals = 0
    if source is not None:
        reader = SourceReader(source, sorted({p.asset for p in partitions}))
        panels = []
        for whole, leaking, futures in probe_root(
            reader, partitions, signals, seed=seed, cuts=cuts, features=features
        ):
            panels.append(whole)
            found += [*leaking, *_unlike_stored(workspace, whole)]
            n_futures += futures
    else:
        panels = [
            load_batch(workspace, "features", tf, [p.asset for p in group], SNAPSHOT_COLUMNS).panel
            for tf in dict.fromkeys(p.timeframe for p in partitions)
            for group in [[p for p in partitions if p.timeframe == tf]]
        ]
    for panel in panels:
        for leaking, probed in probe_strategies(panel, signals):
            found += leaking
            n_signals += probed
    scope = "strategies" if source is None else "root_bars"
    return Probe(scope, len(partitions), n_futures, n_signals, tuple(found), seed)


@retried
def record(workspace: Workspace, source: BarSource | None, probe: Probe) -> None:
    """Store what a probe of this code and source found, if it looked at anything."""
    if not probe.partitions:
        return
    with workspace.database.begin() as connection:
        record_probe(
            connection,
            {
                "code_version": probed_code(active_signals(connection)),
                "source": _name(source),
                "seed": probe.seed,
                "scope": probe.scope,
                "n_partitions": probe.partitions,
                "n_futures": probe.futures,
                "n_signals": probe.signals,
                "leaks": leak_rows(probe.leaks),
            },
        )


@retried
def probed_before(workspace: Workspace, source: BarSource | None) -> str | None:
    """When this code was last probed on this source without finding anything; else None.

    Whether something looks ahead is a property of the code, so that it is asked once of each.
    """
    with workspace.database.begin() as connection:
        code = probed_code(active_signals(connection))
        row = last_probe(connection, code, _name(source))
    return f"{row['probed_at']:%F %T} UTC" if row and not row["leaks"] else None


def probed_code(signals: Sequence[SignalRow]) -> str:
    """Version of all that is probed and of the probe."""
    return hash_of([signals_code(signals), LOOK_AHEAD_CODE])


def leak_rows(found: Sequence[Leak]) -> list[dict[str, object]]:
    """Leaks as rows for people, stamps as ISO 8601."""
    return [
        {
            **{k: v for k, v in asdict(leak).items() if not k.endswith(("_us", "_ts"))},
            "cut": _iso(leak.cut_us),
            "first": _iso(leak.first_ts),
        }
        for leak in found
    ]


def _iso(ts_us: int) -> str:
    return f"{np.datetime64(ts_us, 'us').astype('M8[ms]')}Z"


def _name(source: BarSource | None) -> str:
    return source.name if source is not None else "external features"


def _sample(
    stored: Sequence[Partition],
    assets: Sequence[str] | None,
    timeframes: Sequence[str] | None,
    seed: int,
) -> list[Partition]:
    """The stored partitions of the named assets, or of some that are drawn."""
    known = sorted({p.asset for p in stored})
    known_timeframes = {p.timeframe for p in stored}
    for asset in assets or ():
        if asset not in known:
            raise UnknownName("stored asset", asset, known)
    for tf in timeframes or ():
        if tf not in known_timeframes:
            raise UnknownName("stored timeframe", tf, known_timeframes)
    chosen = assets or np.random.default_rng(seed).permutation(known)[:ASSETS].tolist()
    return sorted(
        p for p in stored if p.asset in chosen and (not timeframes or p.timeframe in timeframes)
    )


def _unlike_stored(workspace: Workspace, whole: Panel) -> list[Leak]:
    """Stored features that differ from what was computed of the same bars by the same code.

    Where the source has changed since, or the code, the stored features are of other bars.
    """
    tf = whole.timeframe.name
    partitions = [Partition(asset, tf) for asset in whole.assets]
    outdated = set(FeaturesStage(workspace).stale(partitions))
    assets = [p.asset for p in partitions if p not in outdated]
    stored = load_batch(workspace, "features", tf, assets, SNAPSHOT_COLUMNS).panel
    found = []
    for asset in assets:
        there, here = stored.select([asset]), whole.select([asset])
        n = min(len(there), len(here))
        there, here = (
            Panel(p.timeframe, p.assets, np.array([0, n]), p.ts[:n], _first(p, n))
            for p in (there, here)
        )
        odd = list(differences(here, there))
        if not {"ts", "open", "high", "low", "close", "volume", "gap_bars"} & {o[1] for o in odd}:
            last = int(here.ts[-1]) if n else 0
            found += [Leak(a, tf, name, _STORED, last, rows, ts) for a, name, rows, ts in odd]
    return found


def _first(panel: Panel, n: int) -> dict[str, np.ndarray]:
    return {name: panel[name][:n] for name in SNAPSHOT_COLUMNS}
