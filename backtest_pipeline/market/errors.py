"""Every error that this project raises on purpose.

    BacktestError
    ├── ConfigurationError      a setting is missing or invalid
    │   ├── AddressInUse        another process listens at the address of a server
    │   └── TableDrift          the user's own feature table does not match its configuration
    ├── UnknownName             an asset, timeframe, strategy or parameter that does not exist
    ├── AmbiguousName           a short name shared by more than one strategy or preset
    ├── InvalidInput            an argument that is invalid or out of range
    │   ├── BadRange            a date window that is empty, reversed or unreadable
    │   ├── BadSymbols          fewer than two symbols for a portfolio, or one of them twice
    │   ├── NotEnoughBars       a window with fewer bars than a backtest needs
    │   ├── NoFeatures          assets whose features are not stored yet
    │   ├── EmptyGrid           a parameter grid without a single valid combination
    │   ├── GridTooLarge        a parameter grid above the allowed number of combinations
    │   ├── PlanRefused         a plan, or a sequence of plans, that cannot be followed
    │   └── StrategyRefused     a strategy of the user's own that cannot be loaded or executed
    │       └── RuleError       a rule, or a file of rules, that cannot be read
    ├── LooksAhead              a strategy whose signals depend on later bars
    ├── BarsError               bars that cannot be read or trusted
    │   └── SourceUnavailable   an exchange cannot be reached, or rejects the request
    ├── ColumnsError            columns of the user's own that cannot be read or trusted
    │   └── UnknownColumn       a column that there is in no file and no table
    ├── PartitionError          one (asset, timeframe) failed; the others are unaffected
    ├── ProvenanceMissing       a result without a record of its inputs (a ValueError too)
    ├── CannotReplay            a run that cannot be replayed on this machine
    │   └── TranscriptMismatch  a recorded conversation with a model that does not fit any more
    ├── JobNotFound             no job with this id
    ├── JobConflict             a job whose state does not allow it to be cancelled or resumed
    ├── RunNotFound             no run with this id
    ├── NotTheirs               a run, pin or job that the user may not remove
    ├── AlreadyRunning          another process does what only one may do on a store
    ├── ProcessLost             a process that must run ends again and again
    ├── WorkerLost              one worker after the other died with a piece of work
    ├── WorkGivenUp             a run was ended before this part of it was done
    ├── PoolUnavailable         there is no worker that could do the work
    ├── ReportNotWritten        a report whose file exists already, or cannot be written
    ├── BackupRefused           a backup that cannot be written, or not be restored here
    ├── StoreError              the database failed
    │   ├── StoreUnavailable    it cannot be reached, or rejects the connection
    │   │   └── StoreOutOfReach the same after all retries, or where a retry cannot help
    │   ├── StoreLocked         others hold the rows for longer than a lock is waited for
    │   ├── StoreOvertaken      another process replaced the inputs during the computation
    │   ├── RemovalHeldUp       a backup or writers keep what is to be removed
    │   ├── SchemaNotMigrated   its schema is not the version that this code needs
    │   └── RowsRefused         it rejected rows that break a constraint
    └── ArtifactError           an artifact cannot be read or written
        ├── ArtifactCorrupt     a file does not match its manifest
        ├── OtherArtifactRoot   the folder or bucket belongs to the store of another database
        └── ResultPathMissing   the artifacts of a run are gone

Each message says what happened, where, and what to do. Each class has a code for programs, which
the service's problem responses, jobs and metrics carry.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, get_args

_E = TypeVar("_E", bound=BaseException)

Code = Literal[
    "BAD_RANGE",
    "BAD_SYMBOL",
    "BAD_SYMBOLS",
    "UNKNOWN_STRATEGY",
    "BAD_PARAMS",
    "EMPTY_GRID",
    "GRID_TOO_LARGE",
    "NOT_ENOUGH_BARS",
    "NO_FEATURES",
    "LOOKS_AHEAD",
    "JOB_NOT_FOUND",
    "RUN_NOT_FOUND",
    "CONFLICT",
    "FORBIDDEN",
    "RESULT_PATH_MISSING",
    "ARTIFACT_CORRUPT",
    "RUN_ENGINE_ERROR",
    "DATA_SOURCE_ERROR",
    "STORE_UNAVAILABLE",
]
CODES: tuple[Code, ...] = get_args(Code)
# By the kind of name that does not exist; every other kind is a parameter.
_CODES_OF_NAMES: dict[str, Code] = {
    "asset": "BAD_SYMBOL",
    "stored asset": "BAD_SYMBOL",
    "symbol": "BAD_SYMBOL",
    "signal": "UNKNOWN_STRATEGY",
    "signal type": "UNKNOWN_STRATEGY",
    "indicator": "UNKNOWN_STRATEGY",
    "strategy": "UNKNOWN_STRATEGY",
    "preset": "UNKNOWN_STRATEGY",
    "strategy or preset": "UNKNOWN_STRATEGY",
    "cross-section": "UNKNOWN_STRATEGY",
}


class BacktestError(Exception):
    """Base of all errors raised on purpose by this project.

    Attributes:
        code: kind of error, for programs; unexpected errors carry this default as well.
        is_public: whether clients of the service may see the message; False where it can name
            hosts, folders, settings or what the database said.
    """

    code: Code = "RUN_ENGINE_ERROR"
    is_public: bool = True

    def __reduce__(self) -> tuple[Any, ...]:
        """How pickle and copy make it again: without `__init__`, whose arguments are not kept.

        Attributes and notes are kept, and what it was raised from as far as that can be pickled.
        """
        kept = dict(self.__dict__)
        if self.__cause__ is not None:
            kept["__cause__"] = picklable(self.__cause__)
        return copyreg.__newobj__, (type(self), *self.args), kept  # type: ignore[attr-defined]


def picklable(error: _E) -> _E | BacktestError:
    """The error, or one that tells its class and message if no other process could read it.

    An error of another library whose `__init__` has arguments of its own is pickled, and then
    fails where it is read, which breaks a pool of processes: only the way back shows it.
    """
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  (bytes of our own)
    except Exception:  # whatever the class of somebody else raises
        told = BacktestError(f"{type(error).__name__}: {error}")
        told.__cause__ = error.__cause__
        return told
    return error


def without_causes(error: Exception) -> Exception:
    """The error for another process, with what it was raised from as notes.

    Dask sends the causes themselves along, and where one of them cannot be sent, such as that of a
    database driver, it sends a text in place of the error.
    """
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    error.__cause__ = error.__context__ = None
    if cause is not None:
        error.add_note(f"caused by {type(cause).__name__}: {cause}")
    return picklable(error)


SEE_LOG = "the computation failed unexpectedly; the log has the cause"


def public_message(error: BaseException) -> str:
    """The message of an error that clients of the service may see."""
    if isinstance(error, BacktestError) and error.is_public:
        return str(error)
    return SEE_LOG


class ConfigurationError(BacktestError):
    """A setting is missing or invalid; the message names the variable."""

    is_public = False


class AddressInUse(ConfigurationError):
    """Another process listens at the address of a server; the message says which address."""


class TableDrift(ConfigurationError):
    """The user's own feature table does not match its configuration; the message says where."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that does not exist, with the closest of those that do."""
    choices = sorted(set(known))
    by_folded = {choice.lower(): choice for choice in choices}
    near = get_close_matches(name.lower(), by_folded, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(by_folded[n] for n in near) + "?"
    elif choices:
        shown = ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
        hint = f"known: {shown}"
    else:
        hint = "there are none yet"
    return f"unknown {kind} {name!r}; {hint}"


class UnknownName(BacktestError):
    """A name that does not exist; the message suggests the closest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(unknown(kind, name, known))
        self.kind, self.name = kind, name
        self.code = _CODES_OF_NAMES.get(kind, "BAD_PARAMS")


class AmbiguousName(BacktestError):
    """A short name shared by more than one strategy or preset; the message lists them."""

    code = "UNKNOWN_STRATEGY"


class InvalidInput(BacktestError):
    """An argument that is invalid or out of range; the message names it."""

    code = "BAD_PARAMS"


class BadRange(InvalidInput):
    """A date window that ends before it begins, or a date that cannot be read."""

    code = "BAD_RANGE"


class BadSymbols(InvalidInput):
    """Fewer than two symbols for a portfolio, or one of them twice."""

    code = "BAD_SYMBOLS"


class NotEnoughBars(InvalidInput):
    """A window with fewer bars than a backtest needs; the message says which bars exist."""

    code = "NOT_ENOUGH_BARS"


class NoFeatures(InvalidInput):
    """Assets whose features are not stored at a timeframe; the message says what to refresh."""

    code = "NO_FEATURES"


class EmptyGrid(InvalidInput):
    """A parameter grid without a single valid combination."""

    code = "EMPTY_GRID"


class GridTooLarge(InvalidInput):
    """More combinations than are allowed; the message names the limit and how to raise it."""

    code = "GRID_TOO_LARGE"


class PlanRefused(InvalidInput):
    """A plan, or a sequence of plans, that cannot be followed; the message names each field."""


class StrategyRefused(InvalidInput):
    """A strategy of a user that cannot be loaded or executed; the message has file and cause."""

    code = "UNKNOWN_STRATEGY"


class RuleError(StrategyRefused):
    """A rule, an expression, or a file of rules, that cannot be read; the message shows the place.

    The strategy is known, if any: what is wrong is a text that was given.

    Attributes:
        where: file, and key of the rule in it.
        reason: what is wrong, and what to write instead.
        line, column: place in the rule's text, counted from 1; None where the text itself is fine.
    """

    code = "BAD_PARAMS"

    def __init__(self, where: str, reason: str, text: str = "", at: int | None = None) -> None:
        self.where, self.reason = where, reason
        self.line = self.column = None
        message = f"{where}: {reason}"
        if at is not None:
            before = text[:at].split("\n")
            self.line, self.column = len(before), len(before[-1]) + 1
            message = f"{where}, line {self.line}, column {self.column}: {reason}"
            message += _pointed_at(text.split("\n")[self.line - 1], self.column - 1)
        super().__init__(message)


_SHOWN = 60  # characters of a line before and after the place of an error


def _pointed_at(line: str, column: int) -> str:
    """The line around a column, made printable, and a caret below it."""
    first = max(column - _SHOWN, 0)
    shown = line[first : column + _SHOWN]
    printable = "".join(c if c.isprintable() else " " for c in shown)
    return f"\n    {printable}\n    {' ' * (column - first)}^"


class LooksAhead(BacktestError):
    """A strategy whose signals depend on later bars; the message says which and what to do."""

    code = "LOOKS_AHEAD"


class BarsError(BacktestError):
    """Bars that cannot be read or trusted; the message names the file or asset."""

    code = "DATA_SOURCE_ERROR"
    is_public = False


class SourceUnavailable(BarsError):
    """An exchange cannot be reached, or rejects the request; cached bars can still be used."""

    is_public = True


class ColumnsError(BacktestError):
    """Columns of the user's own that cannot be read or trusted; the message names the file."""

    code = "DATA_SOURCE_ERROR"
    is_public = False


class UnknownColumn(ColumnsError):
    """A column of the user's own that there is not; the message suggests the closest ones."""

    code = "BAD_PARAMS"
    is_public = True


class PartitionError(BacktestError):
    """One (asset, timeframe) failed; the rest of its batch is unaffected."""

    def __init__(self, asset: str, timeframe: str, reason: str) -> None:
        super().__init__(f"{asset}|{timeframe}: {reason}")
        self.asset, self.timeframe, self.reason = asset, timeframe, reason


class ProvenanceMissing(BacktestError, ValueError):
    """A stored result without a full record of its inputs; the message says what is missing."""


class CannotReplay(BacktestError):
    """A stored run that cannot be replayed on this machine; the message says what is needed."""


class TranscriptMismatch(CannotReplay):
    """A recorded conversation with a language model that does not fit what would be asked now."""


class JobNotFound(BacktestError):
    """No job with this id."""

    code = "JOB_NOT_FOUND"


class JobConflict(BacktestError):
    """A job whose state, named in the message, does not allow it to be cancelled or resumed."""

    code = "CONFLICT"


class RunNotFound(BacktestError):
    """No run with this id."""

    code = "RUN_NOT_FOUND"


class NotTheirs(BacktestError):
    """A run, pin or job that the user may not remove; the message says whose it is."""

    code = "FORBIDDEN"


class AlreadyRunning(BacktestError):
    """Another process does what only one may do on a store; the message says what."""

    is_public = False


class ProcessLost(BacktestError):
    """A process that must run ends again and again; the message says which, and how it ended."""

    is_public = False


class WorkerLost(BacktestError):
    """One worker process after the other died with a piece of work; the message says with which."""


class WorkGivenUp(BacktestError):
    """A run was ended before this part of it was done; what was stored before stays."""


class PoolUnavailable(BacktestError):
    """No worker could do the work; the message says which are there, and what to do."""

    is_public = False


class StoreError(BacktestError):
    """The database failed."""

    is_public = False


class StoreUnavailable(StoreError):
    """The database cannot be reached, or rejects the connection."""

    code = "STORE_UNAVAILABLE"


class StoreOutOfReach(StoreUnavailable):
    """The database still cannot be reached after all retries, or a retry cannot help."""


class StoreLocked(StoreError):
    """Others hold what is to be written for longer than a lock is waited for; try again later."""


class StoreOvertaken(StoreError):
    """Another process replaced the inputs during the computation; compute again."""


class RemovalHeldUp(StoreError):
    """A backup or other writers keep artifacts from being removed for long; try again later."""


class SchemaNotMigrated(StoreError):
    """The schema of the database is not the version that this code needs."""

    code = "STORE_UNAVAILABLE"


class RowsRefused(StoreError):
    """The database rejected rows that break a constraint; other rows may be fine."""


class ArtifactError(BacktestError):
    """The folder or bucket of the artifacts cannot be read or written."""

    is_public = False


class ReportNotWritten(BacktestError):
    """A report whose file exists already or cannot be written; nothing was changed."""


class BackupRefused(BacktestError):
    """A backup that cannot be written, or must not be restored here; nothing was changed."""


class OtherArtifactRoot(ArtifactError):
    """The folder or bucket of the artifacts belongs to another store than the database."""

    code = "STORE_UNAVAILABLE"


class ArtifactCorrupt(ArtifactError):
    """An artifact's bytes do not match its manifest; the message names it below the root."""

    code = "ARTIFACT_CORRUPT"
    is_public = True


class ResultPathMissing(ArtifactError):
    """The artifacts of a run are gone; its rows are still in the database."""

    code = "RESULT_PATH_MISSING"
    is_public = True
