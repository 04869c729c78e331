"""The look-ahead test: source bars with their future replaced, run through the stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.other_histories import (
    CUTS,
    SIGNAL,
    TAKEN_AWAY,
    Failing,
    Features,
    probe_root,
    probe_strategies,
)
from backtest_pipeline.pipeline.columns.column_sets import columns_read
from backtest_pipeline.pipeline.columns.rank_sets import follow_from_bars
from backtest_pipeline.pipeline.look_ahead_guard import refuse_presets
from backtest_pipeline.pipeline.presets import computable_presets, presets_computed_everywhere
from backtest_pipeline.pipeline.runs.identity import hash_of
from backtest_pipeline.pipeline.stages.columns.stored_columns import (
    where_columns_are_stored,
    with_own_columns,
)
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS, FeaturesStage, load_batch
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.stages.signals import signals_code
from backtest_pipeline.pipeline.stages.source_reader import SourceReader
from backtest_pipeline.pipeline.versions import LOOK_AHEAD_CODE
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.research.look_ahead.look_ahead import (
    Leak,
    differences,
)
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.storage.tables.datasets import stored_partitions
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.storage.tables.look_ahead import last_probe, record_probe
from backtest_pipeline.strategies.rules.ranks import with_ranks

ASSETS = 3
"""Assets in a sample, each at all stored timeframes; all assets run through the same code."""

_STORED = "stored"


@dataclass(frozen=True)
class Probe:
    """The result of a look-ahead test.

    Attributes:
        scope: `root_bars`, or `strategies` where features come from an external table.
        partitions: number of partitions tested.
        futures: number of replaced futures.
        signals: number of signals recomputed without the bars after them.
        leaks: the outputs that changed; empty where nothing looks ahead.
        seed: seed of the sample.
        presets: the presets that were to be tested.
        failing: presets that fail on some of it, and where and why; they were not tested there.
    """

    scope: str
    partitions: int
    futures: int
    signals: int
    leaks: tuple[Leak, ...]
    seed: int
    presets: tuple[SignalRow, ...]
    failing: Mapping[str, str]

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if not self.partitions:
            return "nothing tested: no features are stored; refresh them first"
        what = (
            "features and signals from source bars"
            if self.scope == "root_bars"
            else "strategies only, because the features come from an external table"
        )
        seen = (
            f"{what}: {self.partitions} partitions, {self.futures} replaced futures, "
            f"{self.signals} signals recomputed without later bars"
        )
        if self.failing:
            named = "; ".join(f"{name} {why}" for name, why in self.failing.items())
            seen += f"; not tested where they fail: {named}"
        if not self.leaks:
            return f"no look-ahead; {seen}"
        outputs = list(dict.fromkeys(leak.output for leak in self.leaks))
        shown = ", ".join(outputs[:5]) + (", ..." if len(outputs) > 5 else "")
        return f"{len(outputs)} outputs look ahead ({shown}); {seen}"

    @property
    def leaky_presets(self) -> dict[str, str]:
        """The presets whose own code looks ahead, and how; not those that read a leaky feature."""
        own = [leak for leak in self.leaks if leak.output.startswith(SIGNAL)]
        if len(own) < len(self.leaks):
            own = [leak for leak in own if leak.future == TAKEN_AWAY]
        return {
            leak.output.removeprefix(SIGNAL): f"on {leak.asset}|{leak.timeframe} looks ahead: "
            f"{leak.rows} of its signals change when the bars after them change"
            for leak in reversed(own)
        }


def probe_look_ahead(
    workspace: Workspace,
    source: BarSource | None,
    *,
    presets: Sequence[SignalRow] | None = None,
    assets: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    seed: int = 0,
    cuts: int = CUTS,
    features: Features = build_features,
) -> Probe:
    """Test a sample of the stored partitions for look-ahead.

    A preset that fails on a partition is not tested there; the others are.

    Args:
        workspace: an open store; its assets and timeframes are tested.
        source: source of the root bars; None where features come from an external table, so that
            only strategies can be tested.
        presets: presets to test; all active ones that can be computed where None.
        assets: symbols; a sample of ASSETS of them where None.
        timeframes: names; all stored ones where None.
        seed: seed of the sample.
        cuts: cut-off dates per timeframe.
        features: function from bars to features, to test others than the project's own.

    Raises:
        UnknownName: for a named asset or timeframe without stored features.
    """
    signals = computable_presets(workspace) if presets is None else tuple(presets)
    from_bars = [signal for signal in signals if follow_from_bars(columns_read([signal]))]
    with workspace.database.begin() as connection:
        stored = stored_partitions(connection, "features")
    if source is not None:
        at_hand = set(source.symbols())
        stored = [p for p in stored if p.asset in at_hand]
    partitions = _sample(stored, assets, timeframes, seed)
    leaks: list[Leak] = []
    failing: dict[str, str] = {}
    n_futures = n_signals = 0

    def note(tf: str, found: Failing) -> None:
        for (asset, name), why in found.items():
            failing.setdefault(name, f"on {asset}|{tf} fails: {why}")

    if source is not None:
        reader = SourceReader(source, sorted({p.asset for p in partitions}))
        panels = []
        for whole, leaking, futures, fails in probe_root(
            reader, partitions, from_bars, seed=seed, cuts=cuts, features=features
        ):
            panels.append(whole)
            leaks += [*leaking, *_unlike_stored(workspace, whole)]
            n_futures += futures
            note(whole.timeframe.name, fails)
    else:
        ranks = columns_read(from_bars)
        panels = [with_ranks(b.panel, ranks) for b in _stored_batches(workspace, partitions)]
    tested = [(panel, from_bars) for panel in panels]
    # Other columns do not follow from source bars: those stored are cut with them.
    with_own = [signal for signal in signals if signal not in from_bars]
    if with_own:
        names = columns_read(with_own)
        for stored_batch in _stored_batches(workspace, partitions):
            batch = where_columns_are_stored(workspace, stored_batch, names)
            own = with_own_columns(workspace, batch, names).own
            tested.append((own.on(batch.panel), with_own))
    for panel, of_panel in tested:
        for leaking, probed, fails in probe_strategies(panel, of_panel):
            leaks += leaking
            n_signals += probed
            note(panel.timeframe.name, fails)
    scope = "strategies" if source is None else "root_bars"
    return Probe(
        scope,
        len(partitions),
        n_futures,
        n_signals,
        tuple(leaks),
        seed,
        signals,
        failing,
    )


def _stored_batches(workspace: Workspace, partitions: Sequence[Partition]) -> Iterator[PanelBatch]:
    """The stored features of these partitions, a batch for each timeframe."""
    for tf in dict.fromkeys(p.timeframe for p in partitions):
        assets = [p.asset for p in partitions if p.timeframe == tf]
        yield load_batch(workspace, "features", tf, assets, SNAPSHOT_COLUMNS)


@retried
def record(workspace: Workspace, source: BarSource | None, probe: Probe) -> None:
    """Store the result of a test of this code and source, unless it had nothing to test.

    A preset that looks ahead by its own code is refused from then on. One that fails somewhere is
    no part of the code that was tested.
    """
    if not probe.partitions:
        return
    with workspace.database.begin() as connection:
        record_probe(
            connection,
            {
                "code_version": probed_code(
                    [preset for preset in probe.presets if preset.name not in probe.failing]
                ),
                "source": _name(source),
                "seed": probe.seed,
                "scope": probe.scope,
                "n_partitions": probe.partitions,
                "n_futures": probe.futures,
                "n_signals": probe.signals,
                "leaks": leak_rows(probe.leaks),
            },
        )
    refuse_presets(workspace, probe.presets, probe.leaky_presets)


@retried
def probed_before(workspace: Workspace, source: BarSource | None) -> str | None:
    """When this code last passed the test on this source; None where it has not.

    Look-ahead is a property of the code, so each version is tested once.
    """
    code = probed_code(presets_computed_everywhere(workspace))
    with workspace.database.begin() as connection:
        row = last_probe(connection, code, _name(source))
    return f"{row['probed_at']:%F %T} UTC" if row and not row["leaks"] else None


def probed_code(signals: Sequence[SignalRow]) -> str:
    """Hash of the code under test and of the test itself."""
    return hash_of([signals_code(signals), LOOK_AHEAD_CODE])


def leak_rows(leaks: Sequence[Leak]) -> list[dict[str, object]]:
    """Leaks as rows for display, timestamps in ISO 8601."""
    return [
        {
            **{k: v for k, v in asdict(leak).items() if not k.endswith(("_us", "_ts"))},
            "cut": _iso(leak.cut_us),
            "first": _iso(leak.first_ts),
        }
        for leak in leaks
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
    """The stored partitions of the named assets, or of a random sample of assets."""
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
    """Stored features that differ from those just computed from the same bars by the same code.

    Partitions whose bars or code have changed since are skipped.
    """
    tf = whole.timeframe.name
    partitions = [Partition(asset, tf) for asset in whole.assets]
    outdated = set(FeaturesStage(workspace).stale(partitions))
    assets = [p.asset for p in partitions if p not in outdated]
    stored = load_batch(workspace, "features", tf, assets, SNAPSHOT_COLUMNS).panel
    leaks = []
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
            leaks += [Leak(a, tf, name, _STORED, last, rows, ts) for a, name, rows, ts in odd]
    return leaks


def _first(panel: Panel, n: int) -> dict[str, np.ndarray]:
    return {name: panel[name][:n] for name in SNAPSHOT_COLUMNS}
