"""Asset checks: keys and bounds of the stored rows, replay, look-ahead and false positives."""

from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from backtest_pipeline.defs.resources import (
    SourceResource,
    WorkspaceResource,
)
from backtest_pipeline.pipeline.audits.engine_cross_check import TOLERANCE
from backtest_pipeline.pipeline.audits.engine_cross_check import (
    second_opinion as filled_by_vectorbt,
)
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
from backtest_pipeline.pipeline.presets import (
    failed_on_partitions,
    left_out_presets,
    presets_computed_everywhere,
)
from backtest_pipeline.pipeline.ranking.leaderboard import leaderboard_faults
from backtest_pipeline.pipeline.replay.replay import (
    Replay,
    ReplayVerdict,
    replay_sample,
    todays_sample,
)
from backtest_pipeline.pipeline.workspace import Workspace

_GRAIN = (
    "No duplicate keys, no dangling references and no values out of bounds; assets downstream do "
    "not run where a rule is broken."
)
_ABOUT = {
    "cross_sections": "Every trade is in an asset of the universe, and information coefficients "
    "are within their bounds.",
    "walk_forward": "Every out-of-sample bar is used exactly once, with no gap between two test "
    "windows and no overlap with its fold's training window, and the stitched run consists of "
    "exactly these bars.",
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
        violations = check_dataset(store.workspace, asset)
        broken = sum(violations.values())
        return dg.AssetCheckResult(
            passed=broken == 0,
            metadata=dict(violations),
            description=f"{broken} rows break a rule" if broken else "all rows are valid",
        )

    return grain_and_bounds


def _recomputed_check(
    asset: str, recompute: Callable[[Workspace], Recomputed]
) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="incremental_equals_full",
        description="A sample of the partitions, recomputed in full from the stored bars, equals "
        "what incremental refreshes have stored, bit for bit.",
    )
    def incremental_equals_full(store: WorkspaceResource) -> dg.AssetCheckResult:
        result = recompute(store.workspace)
        return dg.AssetCheckResult(
            passed=not result.differing,
            metadata={
                "partitions": [str(partition) for partition in result.partitions],
                "rows": result.rows,
                "differing": list(result.differing),
            },
            description=f"{len(result.differing)} of {len(result.partitions)} partitions differ",
        )

    return incremental_equals_full


class LookAhead(dg.Config):
    """Options of the look-ahead test."""

    afresh: bool = Field(
        default=False, description="Test again even if this code has passed before."
    )
    seed: int = 0
    cuts: int = CUTS


@dg.asset_check(
    asset="signals",
    name="look_ahead",
    blocking=True,
    description="For a sample of assets, the source bars after a cut-off are replaced by other "
    "futures: no feature and no signal before the cut-off may change by a bit. Runs once per "
    "declared version and strategy.",
)
def look_ahead(
    config: LookAhead, store: WorkspaceResource, source: SourceResource
) -> dg.AssetCheckResult:
    bars = source.source() if store.workspace.external is None else None
    before = None if config.afresh else probed_before(store.workspace, bars)
    if before is not None:
        return dg.AssetCheckResult(
            passed=True, description=f"no look-ahead; this code was tested at {before}"
        )
    probe = probe_look_ahead(
        store.workspace,
        bars,
        presets=presets_computed_everywhere(store.workspace),
        seed=config.seed,
        cuts=config.cuts,
    )
    record(store.workspace, bars, probe)
    return dg.AssetCheckResult(
        passed=not (probe.leaks or probe.failing),
        # What fails is named, and holds up nothing: it has no signals where it fails.
        severity=dg.AssetCheckSeverity.ERROR if probe.leaks else dg.AssetCheckSeverity.WARN,
        metadata={
            "scope": probe.scope,
            "partitions": probe.partitions,
            "futures": probe.futures,
            "signals": probe.signals,
            "seed": probe.seed,
            "leaks": leak_rows(probe.leaks)[:20],
            "failing": dict(probe.failing),
        },
        description=probe.verdict,
    )


@dg.asset_check(
    asset="signals",
    name="no_preset_left_out",
    description="Every active preset is computed on every partition: its strategy is there, "
    "accepts its parameters, does not look ahead, and fails on no asset. One that is not is left "
    "out, and the others are refreshed.",
)
def no_preset_left_out(store: WorkspaceResource) -> dg.AssetCheckResult:
    left_out = left_out_presets(store.workspace) | failed_on_partitions(store.workspace)
    return dg.AssetCheckResult(
        passed=not left_out,
        metadata=dict(left_out),
        description=f"{len(left_out)} presets are left out: {', '.join(left_out)}"
        if left_out
        else "every active preset is computed",
    )


@dg.asset_check(
    asset="backtests",
    name="second_opinion",
    description="vectorbt, given the orders of each new run, gets the same sizes and returns "
    f"within {TOLERANCE:g}. A run that it has seen is not given to it again.",
)
def second_opinion(store: WorkspaceResource) -> dg.AssetCheckResult:
    opinion = filled_by_vectorbt(store.workspace)
    standing = opinion.standing
    return dg.AssetCheckResult(
        passed=not standing.differs,
        metadata={
            "new_runs": opinion.runs,
            "worst_of_new_runs": opinion.worst,
            "runs": standing.runs,
            "not_followed": dict(standing.not_followed),
            "waiting": standing.waiting,
            "followed": standing.followed,
            "worst": standing.worst or 0.0,
            "disagreeing": list(standing.disagreeing),
        },
        description=f"{standing.differs} of {standing.agrees + standing.differs} runs that "
        f"vectorbt has followed differ; {opinion.runs} were new",
    )


class ReplayConfig(dg.Config):
    """Which runs the check `replay` recomputes."""

    runs: int = Field(default=20, description="number of current runs in the sample")
    seed: int | None = Field(default=None, description="seed of the sample; by default one per day")


@dg.asset_check(
    asset="backtests",
    name="replay",
    description="Replays a sample of the current runs, and all runs in quarantine, in a fresh "
    "process from their snapshots on the code that made them: a result that is not bit for bit "
    "the stored one puts its run in quarantine. Replays a second sample on today's code where it "
    "declares the same versions: a different result there is an undeclared change of the code.",
)
def replay(
    context: dg.AssetCheckExecutionContext, store: WorkspaceResource, config: ReplayConfig
) -> dg.AssetCheckResult:
    seed = datetime.now(UTC).toordinal() if config.seed is None else config.seed
    replays = replay_sample(store.workspace, config.runs, seed)
    bad = [one for one in replays if one.verdict is not ReplayVerdict.SAME]
    todays = todays_sample(store.workspace, config.runs, seed)
    moved = [one for one in todays if one.is_undeclared_change]
    for one in (*bad, *moved):
        context.log.error(_in_words(one))
    messages = [f"{len(replays) - len(bad)} of {len(replays)} runs gave the same result"]
    if moved:
        messages.append(
            f"today's code changes the result of {len(moved)} of {len(todays)} runs and declares "
            "no change: see undeclared_changes for the version to raise"
        )
    return dg.AssetCheckResult(
        passed=not bad and not moved,
        metadata={
            "seed": seed,
            "runs": len(replays),
            **{
                verdict.value: sum(one.verdict is verdict for one in replays)
                for verdict in ReplayVerdict
            },
            "unproven": [_in_words(one) for one in bad],
            "runs_on_todays_code": len(todays),
            "undeclared_changes": [_in_words(one) for one in moved],
            "quarantine_lifted": [str(one.run_id) for one in replays if one.quarantine == "lifted"],
        },
        description="; ".join(messages),
    )


def _in_words(one: Replay) -> str:
    about = "; ".join((*one.differences, *one.remarks))
    return f"{one.name}, run {one.run_id}: {about}"


@dg.asset_check(
    asset="leaderboard",
    name="ranks_and_coverage",
    description="Ranks run from 1 without gaps, and every current run is on the newest leaderboard "
    "exactly once, with a rank or the reason why it has none.",
)
def ranks_and_coverage(store: WorkspaceResource) -> dg.AssetCheckResult:
    faults = leaderboard_faults(store.workspace)
    broken = sum(faults.values())
    return dg.AssetCheckResult(
        passed=broken == 0,
        metadata=dict(faults),
        description=f"{broken} faults" if broken else "no faults",
    )


@dg.asset_check(
    asset="negative_controls",
    name="false_positive_rate",
    description=f"On every kind of random market without an edge, at most {MOST_FALSE:.0%} of the "
    "searches found a significant strategy.",
)
def false_positive_rate(store: WorkspaceResource) -> dg.AssetCheckResult:
    rows = [row for row in newest_controls(store.workspace) if not row["planted"]]
    rates = {
        f"{row['world']}_{name}": float(row[name])
        for row in rows
        for name in ("rate", "upper_bound")
    }
    return dg.AssetCheckResult(
        passed=bool(rows) and not believes_too_much(rows),
        metadata=dict(rates),
        description=", ".join(f"{row['world']}: {row['rate']:.1%}" for row in rows)
        or "no negative control has been run yet: materialize negative_controls",
    )


@dg.asset_check(
    asset="restatements",
    name="history_is_stable",
    description="The source has not changed any bar that runs had used, in the last seven days.",
)
def history_is_stable(store: WorkspaceResource) -> dg.AssetCheckResult:
    restated = restated_lately(store.workspace)
    return dg.AssetCheckResult(
        passed=not restated,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "restatements": len(restated),
            "assets": sorted({row["asset"] for row in restated}),
        },
        description=f"{len(restated)} restatements" if restated else "no restatements",
    )


GRAIN_CHECKS = [grain_check(asset) for asset in CHECKED]
RECOMPUTED_CHECKS = [
    _recomputed_check("cmc_features", recomputed_features),
    _recomputed_check("signals", recomputed_signals),
]
