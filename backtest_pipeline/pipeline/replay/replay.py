"""Replay: recompute stored runs from their recorded inputs, and compare the results bit by bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import (
    ArtifactCorrupt,
    CannotReplay,
    InvalidInput,
    UnknownName,
)
from backtest_pipeline.pipeline.planning.planned_account import block_lines
from backtest_pipeline.pipeline.pools.spread import pieces_of
from backtest_pipeline.pipeline.pools.work_pool import HERE, PoolWork, done
from backtest_pipeline.pipeline.replay.sent_values import curve_hash
from backtest_pipeline.pipeline.replay.worker_process import (
    ReplayRequest,
    WorkerResponse,
    recompute,
)
from backtest_pipeline.pipeline.runs.differences import metric_differences, trade_difference
from backtest_pipeline.pipeline.runs.identity import hash_of
from backtest_pipeline.pipeline.versions import todays_run_codes
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace, retried
from backtest_pipeline.simulation.metrics.metrics import METRIC_NAMES
from backtest_pipeline.storage.artifacts.code_archive import code_on_disk
from backtest_pipeline.storage.run_tables.block_events import stored_blocks
from backtest_pipeline.storage.run_tables.quarantine import quarantine_run, release_run
from backtest_pipeline.storage.run_tables.recorded_runs import (
    RecordedRun,
    current_run_ids,
    find_run_id,
    recorded_runs,
    runs_of_other_sources,
    stored_metrics,
    stored_trades,
)
from backtest_pipeline.storage.tables.environment import differences, recorded_environments
from backtest_pipeline.strategies.known_strategies import catalogue

FEWEST_REPLAYED = 100
"""Runs of a piece of work at least: a fresh process takes as long to start, four seconds of a core,
as to replay so many of 2,500 bars."""


class Code(StrEnum):
    """Which source code a replay runs: the recorded one, or the installed one."""

    RECORDED = "recorded"
    INSTALLED = "installed"

    @staticmethod
    def of(name: str) -> Code:
        """The choice of this name; raises UnknownName for any other."""
        if name not in list(Code):
            raise UnknownName("code", name, list(Code))
        return Code(name)


class ReplayVerdict(StrEnum):
    """The outcome of a replay."""

    SAME = "same"
    DIFFERS = "differs"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True)
class Replay:
    """The replay of one run.

    Attributes:
        run_id: the run.
        name: its signal, asset and timeframe.
        verdict: whether it reproduced the stored result bit by bit, or could not be computed.
        code: uri of the source archive that ran; empty where none did.
        is_own_code: whether this is the source code that made the run.
        is_declared_same: whether this code declares the versions that the run was made under.
        is_own_environment: whether interpreter and packages are those that made the run.
        expected: the stored fingerprint.
        found: the fingerprint of the replay, None where it could not be computed.
        differences: what differs, or why the replay is impossible, in words.
        remarks: further notes, such as a different environment.
        quarantine: `set`, `lifted`, or empty where nothing changed.
    """

    run_id: UUID
    name: str
    verdict: ReplayVerdict
    code: str
    is_own_code: bool
    is_declared_same: bool
    is_own_environment: bool
    expected: str
    found: str | None
    differences: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    quarantine: str = ""

    @property
    def is_undeclared_change(self) -> bool:
        """Whether different code under the same declared versions gave a different result."""
        is_same = self.verdict is ReplayVerdict.SAME
        return self.is_declared_same and not self.is_own_code and not is_same


def replay(run_id: UUID | str, *, code: str = "recorded") -> Replay:
    """Recompute a stored run in a fresh process, and compare it with the stored result.

    Rows come from the snapshot that the run names, never from today's tables. A different result
    puts the run in quarantine; the same result lifts the quarantine.

    Args:
        run_id: the run, or the beginning of its id.
        code: `recorded` for the code that made the run; `installed` for today's code, which
            neither sets nor lifts a quarantine.

    Raises:
        RunNotFound: for a run that is not stored.
        ProvenanceMissing: for a run without recorded inputs.
        StoreError: where the store cannot be read.
    """
    with open_workspace() as workspace:
        (replayed,) = replay_runs(workspace, [str(run_id)], code=Code.of(code))
    return replayed


@retried
def replay_runs(
    workspace: Workspace, run_ids: Sequence[UUID | str], *, code: Code = Code.RECORDED
) -> list[Replay]:
    """As `replay`, for many runs, in the order given; runs of the same code share a process.

    Where the pool has workers, many runs of the same code are shared among them.
    """
    with workspace.database.begin() as connection:
        ids = [
            given if isinstance(given, UUID) else find_run_id(connection, given)
            for given in run_ids
        ]
        runs = recorded_runs(connection, ids)
    replays: dict[UUID, Replay] = {}
    todo: dict[str, list[UUID]] = {}
    # By timeframe, so that rows read for one run serve the next.
    for run in sorted(runs, key=lambda run: (run.timeframe, run.asset)):
        try:
            todo.setdefault(sources_of(run, code), []).append(run.run_id)
        except CannotReplay as error:
            replays[run.run_id] = _impossible(run, "", str(error))
    workspace.progress("replay", len(replays), len(runs))
    pool = workspace.pool
    smallest = len(runs) if pool.is_here else FEWEST_REPLAYED
    pieces = [
        (uri, tuple(piece))
        for uri, of_code in todo.items()
        for piece in pieces_of(pool, of_code, smallest)
    ]
    work = PoolWork(
        "replay", partial(replayed_again, code, workspace), partial(replayed_again, code)
    )
    for _, replayed in done(pool if len(pieces) > 1 else HERE, work, pieces):
        replays |= {one.run_id: one for one in replayed}
        workspace.progress("replay", len(replays), len(runs))
    return [replays[run_id] for run_id in ids]


def replayed_again(
    code: Code, workspace: Workspace, piece: tuple[str, Sequence[UUID]]
) -> list[Replay]:
    """Replay runs in one fresh process, and settle what that proves.

    Args:
        code: which source code they run.
        workspace: the open store.
        piece: uri of their source archive, and their ids.
    """
    uri, ids = piece
    with workspace.database.begin() as connection:
        runs = recorded_runs(connection, ids)
        known = recorded_environments(connection, [run.environment_hash for run in runs])
    replays: list[Replay] = []
    requests: list[tuple[RecordedRun, ReplayRequest]] = []
    for run in runs:
        try:
            requests.append((run, _request(run, code)))
        except CannotReplay as error:
            replays.append(_impossible(run, "", str(error)))
    if not requests:
        return replays
    try:
        response = recompute(
            workspace.artifacts,
            uri,
            [request for _, request in requests],
            given_up=workspace.given_up,
        )
    except (CannotReplay, ArtifactCorrupt) as error:
        return [*replays, *(_impossible(run, uri, str(error)) for run, _ in requests)]
    for run, request in requests:
        environment = known.get(run.environment_hash)
        judged = _judged(workspace, run, uri, request, response, environment)
        replays.append(_settled(workspace, judged))
    return replays


def _request(run: RecordedRun, code: Code) -> ReplayRequest:
    """What to recompute; where today's code is asked for, today's files of the user's strategy."""
    request = ReplayRequest.of(run)
    if code is not Code.INSTALLED:
        return request
    known = catalogue().known
    if run.plans:
        names = run.config["strategies"]
        own = {n: s.files for n in names if n in known and (s := known[n].source) is not None}
        files = {f"{name}/{path}": data for name, of in own.items() for path, data in of.items()}
        return replace(request, strategy_files=files) if own else request
    today = known.get(run.config["strategy"])
    if today is not None and today.source is not None:
        return replace(request, strategy_files=today.source.files)
    return request


def sources_of(run: RecordedRun, code: Code = Code.RECORDED) -> str:
    """The uri of the source archive to run.

    Raises:
        CannotReplay: for a run made before source code was archived.
    """
    if code is Code.INSTALLED:
        return code_on_disk().uri
    if run.code_archive is None:
        raise CannotReplay(
            f"it was made before source code was archived ({run.code_version}); use "
            "--code installed to see what today's code computes from the same rows"
        )
    return run.code_archive


def _impossible(run: RecordedRun, uri: str, why: str) -> Replay:
    return Replay(
        run_id=run.run_id,
        name=run.name,
        verdict=ReplayVerdict.IMPOSSIBLE,
        code=uri,
        is_own_code=uri == run.code_archive,
        is_declared_same=_is_declared_same(run, uri),
        is_own_environment=True,
        expected=run.fingerprint,
        found=None,
        differences=(why,),
    )


def _judged(
    workspace: Workspace,
    run: RecordedRun,
    uri: str,
    request: ReplayRequest,
    response: WorkerResponse,
    environment: Mapping[str, Any] | None,
) -> Replay:
    """The verdict on one run, and what differs."""
    result = response.runs[str(run.run_id)]
    if "error" in result:
        return _impossible(run, uri, result["error"])
    own = uri == run.code_archive and dict(request.strategy_files) == dict(run.strategy_files)
    declared = own or _is_declared_same(run, uri)
    engine = tuple(result.get("engine", response.engine))
    elsewhere = _elsewhere(run, engine, response, environment)
    differing = _compared(workspace, run, result)
    if declared and not elsewhere and result["run_id"] != str(run.run_id):
        differing.append(
            f"its recorded configuration, data and code give run id {result['run_id']}: they are "
            "not what the run was made from"
        )
    if declared and result["fingerprint"] != run.fingerprint:
        differing.insert(0, "the fingerprint differs")
    remarks = list(elsewhere)
    if not own:
        remarks.append(
            f"made by different source code, {run.code_archive}"
            if uri != run.code_archive
            else f"made by another version of strategy {run.config['strategy']}"
        )
    if declared and not own and differing:
        remarks.append(_undeclared(run, differing))
    if not run.is_current:
        remarks.append("no longer current: a newer run of this configuration is stored")
    return Replay(
        run_id=run.run_id,
        name=run.name,
        verdict=ReplayVerdict.DIFFERS if differing else ReplayVerdict.SAME,
        code=uri,
        is_own_code=own,
        is_declared_same=declared,
        is_own_environment=not elsewhere,
        expected=run.fingerprint,
        found=result["fingerprint"],
        differences=tuple(differing),
        remarks=tuple(remarks),
    )


def _is_declared_same(run: RecordedRun, uri: str) -> bool:
    """Whether this code declares the versions that the run was made under."""
    if uri == code_on_disk().uri:
        return run.code_version in todays_run_codes()
    return uri == run.code_archive


def _undeclared(run: RecordedRun, differing: Sequence[str]) -> str:
    """The message about a different result under the same declared versions, and what to do."""
    of_metrics = all(line.split(" ")[0] in METRIC_NAMES for line in differing)
    which = (
        "METRICS_VERSION"
        if of_metrics
        else "ENGINE_VERSION, or SIGNALS_VERSION, FEATURES_VERSION or WALK_FORWARD_VERSION where "
        "the change concerns signals, indicators or the choice of parameters"
    )
    return (
        "undeclared change: today's code gives a different result but still declares "
        f"{run.code_version}. Raise {which}, or undo the change"
    )


def _elsewhere(
    run: RecordedRun,
    engine: tuple[str, ...],
    response: WorkerResponse,
    environment: Mapping[str, Any] | None,
) -> tuple[str, ...]:
    """How this environment differs from the one that made the run; empty where it does not."""
    changed = [] if run.engine == engine else [f"{run.engine[1]} -> {engine[1]}"]
    if environment is not None:
        changed += differences(environment, response.environment)
    return (f"made in a different environment: {', '.join(changed)}",) if changed else ()


def _compared(workspace: Workspace, run: RecordedRun, result: Mapping[str, Any]) -> list[str]:
    """How the stored result differs from the replayed one, in words."""
    with workspace.database.begin() as connection:
        trades = stored_trades(connection, run.run_id)
        metrics = stored_metrics(connection, run.run_id)
        blocks = stored_blocks(connection, run.run_id) if "blocks" in result else []
    names = [name for name in result["trades"] if not trades or name in trades[0]]
    stored = {name: [trade[name] for trade in trades] for name in names}
    of_trades = trade_difference(stored, result["trades"], names=("stored", "replayed"))
    differing = [of_trades] if of_trades else []
    try:
        for name, key, value in (
            ("equity", "run_id", str(run.run_id)),
            ("benchmark", "asset", run.asset),
        ):
            values = _stored_curve(workspace, run, name, key, value)
            if curve_hash(values) != result[name]["sha256"]:
                differing.append(f"{name}.parquet holds a different curve")
    except ArtifactCorrupt as error:
        differing.append(str(error))
    differing += metric_differences(metrics, result["metrics"])
    if "blocks" in result and hash_of(block_lines(blocks)) != result["blocks"]:
        differing.append("the stored blocked entries and exits (block_events) differ")
    if result["results"] != run.results:
        differing.append("the stored summary (backtest_runs.results) differs")
    return differing


def _stored_curve(
    workspace: Workspace, run: RecordedRun, name: str, key: str, value: str
) -> np.ndarray:
    table: pa.Table = workspace.artifacts.read_table(
        run.artifact_uri, f"{name}.parquet", [name], [(key, "==", value)]
    )
    return table[name].to_numpy()


def _settled(workspace: Workspace, judged: Replay) -> Replay:
    """Set or lift the run's quarantine, where the replay is conclusive."""
    if not judged.is_own_code or judged.verdict is ReplayVerdict.IMPOSSIBLE:
        return judged
    with workspace.database.begin() as connection:
        if judged.verdict is ReplayVerdict.SAME:
            lifted = release_run(connection, judged.run_id)
            return replace(judged, quarantine="lifted" if lifted else "")
        if not judged.is_own_environment:
            return judged
        quarantine_run(
            connection,
            judged.run_id,
            expected=judged.expected,
            found=judged.found or "",
            reason="; ".join(judged.differences[:3]),
        )
    return replace(judged, quarantine="set")


@retried
def replay_sample(workspace: Workspace, n_runs: int, seed: int) -> list[Replay]:
    """Replay a sample of the current runs, and all runs in quarantine.

    Args:
        workspace: an open store.
        n_runs: maximum number of runs not in quarantine, drawn without replacement.
        seed: seed of the sample.

    Raises:
        InvalidInput: for fewer than one run.
    """
    _require_sample(n_runs)
    with workspace.database.begin() as connection:
        current = current_run_ids(connection)
    quarantined = [run_id for run_id, is_apart in current if is_apart]
    others = [run_id for run_id, is_apart in current if not is_apart]
    drawn = np.random.default_rng(seed).permutation(len(others))[:n_runs]
    return replay_runs(workspace, [*quarantined, *(others[i] for i in sorted(drawn))])


@retried
def todays_sample(workspace: Workspace, n_runs: int, seed: int) -> list[Replay]:
    """Replay a sample of the current runs with today's code, to find undeclared changes.

    The sample is of runs made by different source code under the versions that today's code
    declares. A different result means an undeclared change of the code; the stored run is still
    valid.

    Args:
        workspace: an open store.
        n_runs: maximum number of runs, drawn without replacement.
        seed: seed of the sample.

    Raises:
        InvalidInput: for fewer than one run.
    """
    _require_sample(n_runs)
    with workspace.database.begin() as connection:
        known = runs_of_other_sources(connection, code_on_disk().uri, sorted(todays_run_codes()))
    drawn = np.random.default_rng(seed).permutation(len(known))[:n_runs]
    return replay_runs(workspace, [known[i] for i in sorted(drawn)], code=Code.INSTALLED)


def _require_sample(n_runs: int) -> None:
    if n_runs < 1:
        raise InvalidInput(f"the sample size must be at least 1, not {n_runs}")
