"""Asset checks: grain and bounds of what each asset owns."""

from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from backtest_pipeline.defs.resources import (
    SimulationResource,
    SourceResource,
    WorkspaceResource,
)
from backtest_pipeline.pipeline.audits.engine_cross_check import TOLERANCE
from backtest_pipeline.pipeline.audits.engine_cross_check import second_opinion as replayed
from backtest_pipeline.pipeline.audits.incremental import (
    Recomputed,
    recomputed_features,
    recomputed_signals,
)
from backtest_pipeline.pipeline.audits.look_ahead import (
    leak_rows,
    probe_look_ahead,
    probed_before,
    record,
)
from backtest_pipeline.pipeline.audits.negative_controls import (
    MOST_FALSE,
    believes_too_much,
    newest_controls,
)
from backtest_pipeline.pipeline.audits.other_histories import CUTS
from backtest_pipeline.pipeline.audits.restatements import restated_lately
from backtest_pipeline.pipeline.audits.stored_tables import CHECKED, check_dataset
from backtest_pipeline.pipeline.ranking.leaderboard import leaderboard_faults
from backtest_pipeline.pipeline.replay.replay import (
    Replay,
    ReplayVerdict,
    replay_sample,
    todays_sample,
)
from backtest_pipeline.pipeline.workspace import Workspace

_GRAIN = (
    "No duplicate key, no row without what it refers to, no value out of bounds; what depends on "
    "the asset does not run where one is found."
)
_ABOUT = {
    "walk_forward": "Every out-of-sample bar is used once, none is left out between two tests, "
    "none was trained on in its fold, and the stitched run consists of just these bars."
}


def grain_check(asset: str) -> dg.AssetChecksDefinition:
    """Whether the rules of `storage.tables.table_checks` hold for what the asset owns."""

    @dg.asset_check(
        asset=asset,
        name="grain_and_bounds",
        blocking=True,
        description=_ABOUT.get(asset, _GRAIN),
    )
    def grain_and_bounds(store: WorkspaceResource) -> dg.AssetCheckResult:
        found = check_dataset(store.workspace, asset)
        broken = sum(found.values())
        return dg.AssetCheckResult(
            passed=broken == 0,
            metadata=dict(found),
            description=f"{broken} rows break a rule" if broken else "all rules hold",
        )

    return grain_and_bounds


def _recomputed_check(
    asset: str, recompute: Callable[[Workspace], Recomputed]
) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="incremental_equals_full",
        description="A sample of the partitions, computed whole from the stored bars, is what "
        "refreshes have stored step by step, to the last bit.",
    )
    def incremental_equals_full(store: WorkspaceResource) -> dg.AssetCheckResult:
        found = recompute(store.workspace)
        return dg.AssetCheckResult(
            passed=not found.differing,
            metadata={
                "partitions": [str(partition) for partition in found.partitions],
                "rows": found.rows,
                "differing": list(found.differing),
            },
            description=f"{len(found.differing)} of {len(found.partitions)} partitions differ",
        )

    return incremental_equals_full


class LookAhead(dg.Config):
    """How to probe for look-ahead."""

    afresh: bool = Field(default=False, description="Probe also code that was probed before.")
    seed: int = 0
    cuts: int = CUTS


@dg.asset_check(
    asset="signals",
    name="look_ahead",
    blocking=True,
    description="Root bars of a sample of assets with other futures: no feature and no signal "
    "before the cut changes by a bit. Asked once of each declared version and strategy.",
)
def look_ahead(
    config: LookAhead, store: WorkspaceResource, source: SourceResource
) -> dg.AssetCheckResult:
    bars = source.source() if store.workspace.external is None else None
    before = None if config.afresh else probed_before(store.workspace, bars)
    if before is not None:
        return dg.AssetCheckResult(
            passed=True, description=f"this code was probed at {before}, nothing looks ahead"
        )
    found = probe_look_ahead(store.workspace, bars, seed=config.seed, cuts=config.cuts)
    record(store.workspace, bars, found)
    return dg.AssetCheckResult(
        passed=not found.leaks,
        metadata={
            "scope": found.scope,
            "partitions": found.partitions,
            "futures": found.futures,
            "signals": found.signals,
            "seed": found.seed,
            "leaks": leak_rows(found.leaks)[:20],
        },
        description=found.verdict,
    )


@dg.asset_check(
    asset="backtests",
    name="second_opinion",
    description="vectorbt replays the orders of a sample of stored runs and gets the same "
    f"return within {TOLERANCE:g}.",
)
def second_opinion(store: WorkspaceResource, simulation: SimulationResource) -> dg.AssetCheckResult:
    found = replayed(store.workspace, simulation.config())
    return dg.AssetCheckResult(
        passed=not found.disagreeing and found.worst_size <= TOLERANCE,
        metadata={
            "partitions": found.partitions,
            "runs": found.runs,
            "worst_size": found.worst_size,
            "worst_return": found.worst_return,
            "disagreeing": list(found.disagreeing),
        },
        description=f"{len(found.disagreeing)} of {found.runs} runs disagree",
    )


class ReplayConfig(dg.Config):
    """Which runs the check `replay` computes again."""

    runs: int = Field(default=20, description="how many current runs, drawn anew for each seed")
    seed: int | None = Field(
        default=None, description="of the draw; that of the day where none is given"
    )


@dg.asset_check(
    asset="backtests",
    name="replay",
    description="A sample of the current runs, and all that are in quarantine, computed again in a "
    "fresh process from their snapshots on the code that made them, give the stored result bit "
    "by bit; those that do not are put in quarantine. So does a sample on today's code, where it "
    "declares the versions that made them; what does not is an undeclared change.",
)
def replay(
    context: dg.AssetCheckExecutionContext, store: WorkspaceResource, config: ReplayConfig
) -> dg.AssetCheckResult:
    seed = datetime.now(UTC).toordinal() if config.seed is None else config.seed
    found = replay_sample(store.workspace, config.runs, seed)
    bad = [one for one in found if one.verdict is not ReplayVerdict.SAME]
    todays = todays_sample(store.workspace, config.runs, seed)
    moved = [one for one in todays if one.is_undeclared_change]
    for one in (*bad, *moved):
        context.log.error(_told(one))
    said = [f"{len(found) - len(bad)} of {len(found)} runs gave the same result"]
    if moved:
        said.append(
            f"today's code moves {len(moved)} of {len(todays)} and declares no change: see "
            "undeclared_changes for the version to raise"
        )
    return dg.AssetCheckResult(
        passed=not bad and not moved,
        metadata={
            "seed": seed,
            "runs": len(found),
            **{
                verdict.value: sum(one.verdict is verdict for one in found)
                for verdict in ReplayVerdict
            },
            "unproven": [_told(one) for one in bad],
            "runs_on_todays_code": len(todays),
            "undeclared_changes": [_told(one) for one in moved],
            "quarantine_lifted": [str(one.run_id) for one in found if one.quarantine == "lifted"],
        },
        description="; ".join(said),
    )


def _told(one: Replay) -> str:
    about = "; ".join((*one.differences, *one.remarks))
    return f"{one.name}, run {one.run_id}: {about}"


@dg.asset_check(
    asset="leaderboard",
    name="ranks_and_coverage",
    description="Ranks run from 1 on without a gap, and every current run is on the newest board "
    "once, with a rank or with the reason why it has none.",
)
def ranks_and_coverage(store: WorkspaceResource) -> dg.AssetCheckResult:
    found = leaderboard_faults(store.workspace)
    broken = sum(found.values())
    return dg.AssetCheckResult(
        passed=broken == 0,
        metadata=dict(found),
        description=f"{broken} faults" if broken else "sound",
    )


@dg.asset_check(
    asset="negative_controls",
    name="false_positive_rate",
    description=f"At most {MOST_FALSE:.0%} of the searches in worlds without an edge were called "
    "significant, in every kind of world.",
)
def false_positive_rate(store: WorkspaceResource) -> dg.AssetCheckResult:
    rows = newest_controls(store.workspace)
    rates = {
        f"{row['world']}_{name}": float(row[name])
        for row in rows
        for name in ("rate", "upper_bound")
    }
    return dg.AssetCheckResult(
        passed=bool(rows) and not believes_too_much(rows),
        metadata=dict(rates),
        description=", ".join(f"{row['world']}: {row['rate']:.1%}" for row in rows)
        or "no control was run yet",
    )


@dg.asset_check(
    asset="restatements",
    name="history_is_stable",
    description="No bar that runs had used was changed by its source in the last seven days.",
)
def history_is_stable(store: WorkspaceResource) -> dg.AssetCheckResult:
    found = restated_lately(store.workspace)
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"restatements": len(found), "assets": sorted({row["asset"] for row in found})},
        description=f"{len(found)} restatements" if found else "nothing was restated",
    )


GRAIN_CHECKS = [grain_check(asset) for asset in CHECKED]
RECOMPUTED_CHECKS = [
    _recomputed_check("cmc_features", recomputed_features),
    _recomputed_check("signals", recomputed_signals),
]
