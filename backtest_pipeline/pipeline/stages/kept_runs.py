"""Which runs of a refresh are stored already, and which have to be computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from backtest_pipeline.pipeline.runs.publish import RunIdentity
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.run_tables.runs import current_artifacts


class Missing(NamedTuple):
    """Runs to compute together: each of these signals on each of these assets.

    Attributes:
        signals: positions of the signals.
        assets: symbols.
    """

    signals: tuple[int, ...]
    assets: tuple[str, ...]

    @property
    def halves(self) -> tuple[Missing, ...]:
        """Two parts, of half the signals each, or of half the assets of one; none of one run."""
        signals, assets = self
        half = (len(signals) // 2, len(assets) // 2)
        if half[0]:
            return Missing(signals[: half[0]], assets), Missing(signals[half[0] :], assets)
        if half[1]:
            return Missing(signals, assets[: half[1]]), Missing(signals, assets[half[1] :])
        return ()

    def of(self, identities: Sequence[RunIdentity], assets: Sequence[str]) -> list[RunIdentity]:
        """The identities of the missing runs, signal by signal.

        Args:
            identities: of every signal on every asset, signal by signal.
            assets: in their order.
        """
        at = [assets.index(asset) for asset in self.assets]
        return [identities[s * len(assets) + a] for s in self.signals for a in at]


def kept_runs(
    workspace: Workspace, identities: Sequence[RunIdentity], but: Collection[UUID] = ()
) -> dict[UUID, str]:
    """The artifact directory of each run that is stored, current and complete, by run id.

    The runs in `but` are left out.
    """
    wanted = [identity.run_id for identity in identities if identity.run_id not in but]
    with workspace.database.begin() as connection:
        uris = current_artifacts(connection, wanted)
    gone = workspace.artifacts.gone(set(uris.values()))
    return {run_id: uri for run_id, uri in uris.items() if uri not in gone}


def missing_runs(
    identities: Sequence[RunIdentity], assets: Sequence[str], but: Container[UUID]
) -> list[Missing]:
    """The runs that have to be computed, with assets that lack the same signals grouped.

    Args:
        identities: of every signal on every asset, signal by signal.
        assets: in their order.
        but: ids of the runs that have not to be computed.
    """
    together: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for a, asset in enumerate(assets):
        of_asset = enumerate(identities[a :: len(assets)])
        lacking = tuple(s for s, identity in of_asset if identity.run_id not in but)
        if lacking:
            together[lacking].append(asset)
    return [Missing(signals, tuple(own)) for signals, own in together.items()]


def directories(
    identities: Sequence[RunIdentity], assets: Sequence[str], places: Mapping[UUID, str]
) -> dict[str, tuple[str, ...]]:
    """The sorted artifact directories of each asset's runs.

    Args:
        identities: of every signal on every asset, signal by signal.
        assets: in their order.
        places: artifact directory of each run that there is, by run id.
    """
    found: dict[str, tuple[str, ...]] = {}
    for a, asset in enumerate(assets):
        own = [one.run_id for one in identities[a :: len(assets)]]
        found[asset] = tuple(sorted({places[run_id] for run_id in own if run_id in places}))
    return found
