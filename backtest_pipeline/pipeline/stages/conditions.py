"""Conditions of presets on a batch of features: computed, or read where they are stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import ArtifactCorrupt
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.pipeline.runs.own_columns import OwnColumns
from backtest_pipeline.pipeline.stages.panels import (
    PanelBatch,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.orders import (
    first_bars,
)
from backtest_pipeline.simulation.strategy_conditions import (
    Failures,
    Rule,
    conditions_of_rules,
    conditions_where_possible,
)
from backtest_pipeline.storage.artifacts.panel_files import read_panel
from backtest_pipeline.storage.tables.datasets import DatasetVersion
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.strategies.registry import strategy_of


@dataclass(frozen=True)
class SignalBatch:
    """Conditions of many presets on a batch.

    Attributes:
        panel: the features that they were computed from, or the bars that they are traded on.
        signals: the presets.
        conditions: uint8 `(n_signals, n_rows)`, bits as in `simulation.orders`.
        inputs: versions of the features, by asset.
        failures: why presets could not be computed, by symbol and position of the preset, whose
            conditions there are all false.
        own: the columns of the user's own that the presets read.
    """

    panel: Panel
    signals: tuple[SignalRow, ...]
    conditions: np.ndarray
    inputs: Mapping[str, DatasetVersion]
    failures: Failures
    own: OwnColumns

    def failed_on(self, asset: str) -> dict[str, str]:
        """Why presets could not be computed on an asset, by name."""
        own = self.failures.get(asset, {})
        return {self.signals[s].name: str(error) for s, error in own.items()}

    @property
    def first_bars(self) -> np.ndarray:
        """The signals: the first bars of conditions, uint8 `(n_signals, n_rows)`."""
        return first_bars(self.conditions, self.panel.offsets)


def conditions_batch(features: PanelBatch, signals: Sequence[SignalRow]) -> SignalBatch:
    """Conditions of these presets on a batch of features, where they can be computed."""
    conditions, failures = possible_conditions(features.own.on(features.panel), signals)
    return SignalBatch(
        features.panel, tuple(signals), conditions, features.inputs, failures, features.own
    )


def renewed_conditions(
    workspace: Workspace,
    features: PanelBatch,
    signals: Sequence[SignalRow],
    stored: Mapping[str, DatasetVersion],
    current: np.ndarray,
) -> SignalBatch:
    """As `conditions_batch`; what is stored already and current is read.

    Args:
        workspace: the open store.
        features: with the columns of the user's own that the presets read.
        signals: the presets.
        stored: versions of the stored conditions, by asset.
        current: bool `(n_signals, n_assets)`, where the stored conditions are those of today's
            features and code.
    """
    panel = features.own.on(features.panel)
    conditions = np.zeros((len(signals), len(panel)), np.uint8)
    failures: Failures = {}
    lacking: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for asset, known in zip(panel.assets, current.T, strict=True):
        lacking[tuple(np.flatnonzero(~known).tolist())].append(asset)
    for computed, assets in lacking.items():
        part = panel.select(assets)
        rows = np.isin(panel.segment_of_row, [panel.assets.index(asset) for asset in assets])
        found, failed = possible_conditions(part, [signals[s] for s in computed])
        for asset, own in failed.items():
            failures[asset] = {computed[s]: error for s, error in own.items()}
        known = [s for s in range(len(signals)) if s not in computed]
        if known:
            read = stored_conditions(workspace, part, stored, [signals[s] for s in known])
            found = np.concatenate([found, read])
        for s, one in zip((*computed, *known), found, strict=True):
            conditions[s, rows] = one
    return SignalBatch(
        features.panel, tuple(signals), conditions, features.inputs, failures, features.own
    )


def stored_conditions(
    workspace: Workspace,
    panel: Panel,
    stored: Mapping[str, DatasetVersion],
    signals: Sequence[SignalRow],
) -> np.ndarray:
    """Stored conditions at the rows of a panel, uint8 `(n_signals, n_rows)`.

    An asset that is not among the stored ones has none.

    Raises:
        ArtifactCorrupt: where they are of other bars.
    """
    tf, names = panel.timeframe.name, mask_columns(signals)
    known = [asset for asset in panel.assets if asset in stored]
    masks = read_panel(
        workspace.artifacts, tf, {asset: stored[asset].uris for asset in known}, names
    )
    rows = np.isin(panel.segment_of_row, [panel.assets.index(asset) for asset in known])
    if not np.array_equal(panel.ts[rows], masks.ts):
        raise ArtifactCorrupt(
            f"the stored conditions at {tf} are not of the bars that they were made from; "
            "refresh the signals with --full-rebuild"
        )
    conditions = np.zeros((len(signals), len(panel)), np.uint8)
    for row, name in zip(conditions, names, strict=True):
        row[rows] = masks[name]
    return conditions


def signal_matrix(panel: Panel, signals: Sequence[SignalRow]) -> np.ndarray:
    """Conditions of each preset at each row, uint8 `(n_signals, n_rows)`.

    Raises:
        StrategyRefused: where the strategy of a preset fails on an asset.
    """
    return conditions_of_rules(panel, _rules_of(signals))


def possible_conditions(panel: Panel, signals: Sequence[SignalRow]) -> tuple[np.ndarray, Failures]:
    """As `signal_matrix`, all false where a preset fails on an asset, and why it does."""
    return conditions_where_possible(panel, _rules_of(signals))


def _rules_of(signals: Sequence[SignalRow]) -> list[Rule]:
    return [(s := strategy_of(signal.strategy), s.parse(signal.params)) for signal in signals]


def mask_columns(signals: Sequence[SignalRow]) -> list[str]:
    """The columns of a file of conditions, one for each preset."""
    return [f"signal_{signal.signal_id}" for signal in signals]
