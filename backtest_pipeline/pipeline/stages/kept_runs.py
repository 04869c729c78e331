"""Which of the runs that a refresh wants are stored already, and which are to be computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from backtest_pipeline.pipeline.runs.publish import RunIdentity
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.run_tables.runs import current_artifacts


class Missing(NamedTuple):
    """Runs to compute together: each of these signals on each of these assets."""

    signals: tuple[int, ...]
    assets: tuple[str, ...]

    def of(self, wanted: Sequence[RunIdentity], assets: Sequence[str]) -> list[RunIdentity]:
        """These of the wanted runs, which are of all signals on these assets; signal by signal."""
        at = [assets.index(asset) for asset in self.assets]
        return [wanted[s * len(assets) + a] for s in self.signals for a in at]


def kept_runs(workspace: Workspace, wanted: Sequence[RunIdentity]) -> dict[UUID, str]:
    """The artifact directory of each wanted run that is stored, current and whole."""
    with workspace.database.begin() as connection:
        found = current_artifacts(connection, [identity.run_id for identity in wanted])
    gone = workspace.artifacts.gone(set(found.values()))
    return {run_id: uri for run_id, uri in found.items() if uri not in gone}


def missing_runs(
    wanted: Sequence[RunIdentity], assets: Sequence[str], kept: Mapping[UUID, str]
) -> list[Missing]:
    """The wanted runs that are not kept, assets that lack the same signals together.

    Args:
        wanted: of every signal on every asset, signal by signal.
        assets: in their order.
        kept: by run id.
    """
    together: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for a, asset in enumerate(assets):
        of_asset = enumerate(wanted[a :: len(assets)])
        lacking = tuple(s for s, identity in of_asset if identity.run_id not in kept)
        if lacking:
            together[lacking].append(asset)
    return [Missing(signals, tuple(own)) for signals, own in together.items()]


def directories(
    wanted: Sequence[RunIdentity], assets: Sequence[str], places: Mapping[UUID, str]
) -> dict[str, tuple[str, ...]]:
    """The artifact directories of each asset's wanted runs, which lie in `places`, sorted."""
    return {
        asset: tuple(sorted({places[one.run_id] for one in wanted[a :: len(assets)]}))
        for a, asset in enumerate(assets)
    }
