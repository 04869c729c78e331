"""Replay: stored runs computed again from what they were made from, and compared bit by bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
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
from backtest_pipeline.pipeline.replay.worker import curve_hash
from backtest_pipeline.pipeline.replay.worker_process import Answer, Rerun, rerun
from backtest_pipeline.pipeline.runs.differences import metric_differences, trade_difference
from backtest_pipeline.pipeline.versions import todays_run_codes
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace, retried
from backtest_pipeline.simulation.metrics.metrics import METRIC_NAMES
from backtest_pipeline.storage.artifacts.code_archive import code_on_disk
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


class Code(StrEnum):
    """Whose sources a replay runs."""

    RECORDED = "recorded"
    INSTALLED = "installed"

    @staticmethod
    def of(name: str) -> Code:
        """The choice of this name; raises UnknownName where there is none."""
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
    """One run, computed again.

    Attributes:
        run_id: the run.
        name: its signal, asset and timeframe.
        verdict: whether it gave the stored result, bit by bit, or could not be computed.
        code: uri of the archive of the sources that ran; empty where none did.
        is_own_code: whether these are the sources that made the run.
        is_declared_same: whether these declare the versions that the run was made under.
        is_own_environment: whether the interpreter and the packages are those that made it.
        expected: the fingerprint that is stored.
        found: the fingerprint of the replay, None where there is none.
        differences: what differs, or why it is impossible, in words.
        remarks: what else is to be known, such as another environment.
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
        """Whether other sources under the same declared versions give another result."""
        is_same = self.verdict is ReplayVerdict.SAME
        return self.is_declared_same and not self.is_own_code and not is_same


def replay(run_id: UUID | str, *, code: str = "recorded") -> Replay:
    """Compute a stored run again in a fresh process, and compare it with what is stored.

    Rows come from the snapshot that the run names, never from today's tables. A result that is not
    the same puts the run in quarantine, and one that is ends that.

    Args:
        run_id: the run, or the beginning of its id.
        code: `recorded` for the sources that made the run, `installed` for today's, which neither
            set nor end a quarantine.

    Raises:
        UnknownName: for a run that is not stored.
        ProvenanceMissing: for one that does not say what it was made from.
        StoreError: where the store cannot be read.
    """
    with open_workspace() as workspace:
        (found,) = replay_runs(workspace, [str(run_id)], code=Code.of(code))
    return found


@retried
def replay_runs(
    workspace: Workspace, run_ids: Sequence[UUID | str], *, code: Code = Code.RECORDED
) -> list[Replay]:
    """As `replay`, for many runs: those of the same code in one process; in the order asked."""
    with workspace.database.begin() as connection:
        ids = [
            given if isinstance(given, UUID) else find_run_id(connection, given)
            for given in run_ids
        ]
        runs = recorded_runs(connection, ids)
        known = recorded_environments(connection, [run.environment_hash for run in runs])
    found: dict[UUID, Replay] = {}
    todo: dict[str, list[tuple[RecordedRun, Rerun]]] = {}
    for run in runs:
        try:
            # By timeframe, so that what is read for one run serves the next.
            todo.setdefault(sources_of(run, code), []).append((run, Rerun.of(run)))
        except CannotReplay as error:
            found[run.run_id] = _impossible(run, "", str(error))
    workspace.progress("replay", len(found), len(runs))
    for uri, together in todo.items():
        together.sort(key=lambda pair: (pair[1].timeframe, pair[1].asset))
        try:
            answer = rerun(workspace.artifacts, uri, [spec for _, spec in together])
        except (CannotReplay, ArtifactCorrupt) as error:
            found |= {run.run_id: _impossible(run, uri, str(error)) for run, _ in together}
        else:
            for run, _ in together:
                judged = _judged(workspace, run, uri, answer, known.get(run.environment_hash))
                found[run.run_id] = _settled(workspace, judged)
        workspace.progress("replay", len(found), len(runs))
    return [found[run_id] for run_id in ids]


def sources_of(run: RecordedRun, code: Code = Code.RECORDED) -> str:
    """The archive of the sources to run.

    Raises:
        CannotReplay: for a run from before sources were kept.
    """
    if code is Code.INSTALLED:
        return code_on_disk().uri
    if run.code_archive is None:
        raise CannotReplay(
            f"it was made before sources were kept ({run.code_version}); see with --code installed "
            "what today's code makes of the same rows"
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
    answer: Answer,
    environment: Mapping[str, Any] | None,
) -> Replay:
    """The verdict on one run, and what differs."""
    found = answer.runs[str(run.run_id)]
    if "error" in found:
        return _impossible(run, uri, found["error"])
    own, declared = uri == run.code_archive, _is_declared_same(run, uri)
    elsewhere = _elsewhere(run, answer, environment)
    differing = _compared(workspace, run, found)
    if declared and not elsewhere and found["run_id"] != str(run.run_id):
        differing.append(
            f"its configuration, data and code have the id {found['run_id']}: what is stored of "
            "them is not what the run was made from"
        )
    if declared and found["fingerprint"] != run.fingerprint:
        differing.insert(0, "the fingerprint is another")
    remarks = list(elsewhere)
    if not own:
        remarks.append(f"made by other sources, {run.code_archive}")
    if declared and not own and differing:
        remarks.append(_undeclared(run, differing))
    if not run.is_current:
        remarks.append("no longer current: a newer run of its configuration is stored")
    return Replay(
        run_id=run.run_id,
        name=run.name,
        verdict=ReplayVerdict.DIFFERS if differing else ReplayVerdict.SAME,
        code=uri,
        is_own_code=own,
        is_declared_same=declared,
        is_own_environment=not elsewhere,
        expected=run.fingerprint,
        found=found["fingerprint"],
        differences=tuple(differing),
        remarks=tuple(remarks),
    )


def _is_declared_same(run: RecordedRun, uri: str) -> bool:
    """Whether these sources declare the versions that the run was made under."""
    is_todays = uri == code_on_disk().uri
    return uri == run.code_archive or (is_todays and run.code_version in todays_run_codes())


def _undeclared(run: RecordedRun, differing: Sequence[str]) -> str:
    """What to do about another result under the same declared versions."""
    of_metrics = all(line.split(" ")[0] in METRIC_NAMES for line in differing)
    which = (
        "METRICS_VERSION"
        if of_metrics
        else "ENGINE_VERSION, or SIGNALS_VERSION, FEATURES_VERSION or WALK_FORWARD_VERSION where "
        "the change is about signals, indicators or the choice of parameters"
    )
    return (
        "an undeclared change: today's code gives another result and still declares "
        f"{run.code_version}. Raise {which}, or undo the change"
    )


def _elsewhere(
    run: RecordedRun, answer: Answer, environment: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """What computes otherwise here than where the run was made; nothing where all is the same."""
    found = [] if run.engine == answer.engine else [f"{run.engine[1]} -> {answer.engine[1]}"]
    if environment is not None:
        found += differences(environment, answer.environment)
    return (f"made in another environment: {', '.join(found)}",) if found else ()


def _compared(workspace: Workspace, run: RecordedRun, found: Mapping[str, Any]) -> list[str]:
    """What is stored of a run's result and is not what was found."""
    with workspace.database.begin() as connection:
        trades = stored_trades(connection, run.run_id)
        metrics = stored_metrics(connection, run.run_id)
    names = [name for name in found["trades"] if not trades or name in trades[0]]
    stored = {name: [trade[name] for trade in trades] for name in names}
    of_trades = trade_difference(stored, found["trades"], names=("stored", "found"))
    differing = [of_trades] if of_trades else []
    try:
        for name, key, value in (
            ("equity", "run_id", str(run.run_id)),
            ("benchmark", "asset", run.asset),
        ):
            values = _stored_curve(workspace, run, name, key, value)
            if curve_hash(values) != found[name]["sha256"]:
                differing.append(f"{name}.parquet holds another curve")
    except ArtifactCorrupt as error:
        differing.append(str(error))
    differing += metric_differences(metrics, found["metrics"])
    if found["results"] != run.results:
        differing.append("the stored summary (backtest_runs.results) is another")
    return differing


def _stored_curve(
    workspace: Workspace, run: RecordedRun, name: str, key: str, value: str
) -> np.ndarray:
    table: pa.Table = workspace.artifacts.read_table(
        run.artifact_uri, f"{name}.parquet", [name], [(key, "==", value)]
    )
    return table[name].to_numpy()


def _settled(workspace: Workspace, judged: Replay) -> Replay:
    """Set or end the run's quarantine, where the replay can tell."""
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
    """Replay some of the current runs, and all that are in quarantine.

    Args:
        workspace: an open store.
        n_runs: how many at most of those that are in none, drawn without replacement.
        seed: of the draw.

    Raises:
        InvalidInput: for fewer than one run.
    """
    _require_sample(n_runs)
    with workspace.database.begin() as connection:
        known = current_run_ids(connection)
    apart = [run_id for run_id, is_apart in known if is_apart]
    others = [run_id for run_id, is_apart in known if not is_apart]
    drawn = np.random.default_rng(seed).permutation(len(others))[:n_runs]
    return replay_runs(workspace, [*apart, *(others[i] for i in sorted(drawn))])


@retried
def todays_sample(workspace: Workspace, n_runs: int, seed: int) -> list[Replay]:
    """Compute some of the current runs with today's code, where nobody said that it is another.

    These are runs that other sources made under the versions that today's declare. One that does
    not give the same was moved by an undeclared change; the run itself is as sound as before.

    Args:
        workspace: an open store.
        n_runs: how many at most, drawn without replacement.
        seed: of the draw.

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
        raise InvalidInput(f"a sample has one run at least, not {n_runs}")
