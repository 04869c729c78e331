"""Every error that this project raises on purpose.

    BacktestError
    ├── ConfigurationError      a setting is missing or makes no sense
    │   └── TableDrift          the user's own table is not as it is configured
    ├── UnknownName             an asset, timeframe, strategy or parameter that does not exist
    ├── AmbiguousName           a short name that more than one strategy or preset goes by
    ├── InvalidInput            an argument that cannot be computed
    │   ├── BadRange            a window of time that cannot be
    │   ├── BadSymbols          assets that make no portfolio
    │   ├── NotEnoughBars       a window with fewer bars than a backtest needs
    │   ├── EmptyGrid           values to try of which no combination makes sense
    │   └── GridTooLarge        more combinations than are allowed
    ├── LooksAhead              a strategy whose signals depend on bars that come later
    ├── BarsError               bars that cannot be read or trusted
    │   └── SourceUnavailable   an exchange does not answer, or refuses
    ├── PartitionError          one (asset, timeframe) cannot be computed; its neighbours can
    ├── ProvenanceMissing       a result that does not say what it was made from (a ValueError too)
    ├── CannotReplay            a run that cannot be computed again here
    ├── JobNotFound             no job of this id
    ├── JobConflict             a job that is not in a state to be cancelled or resumed
    ├── RunNotFound             no run of this id
    ├── StoreError              the database
    │   ├── StoreUnavailable    does not answer, or refuses
    │   │   └── StoreOutOfReach waiting does not mend it, or has not
    │   ├── StoreOvertaken      what was read has been replaced meanwhile
    │   ├── SchemaNotMigrated   answers, with another schema than this code needs
    │   └── RowsRefused         answers, and does not take these rows
    └── ArtifactError           the artifacts, in their folder or bucket
        ├── ArtifactCorrupt     a file differs from its manifest
        └── ResultPathMissing   a run whose artifacts are gone

Each message says what is wrong, where, and how to mend it. Each class has a code, for programs:
problems of the service, jobs and metrics name errors by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal, get_args

Code = Literal[
    "BAD_RANGE",
    "BAD_SYMBOL",
    "BAD_SYMBOLS",
    "UNKNOWN_STRATEGY",
    "BAD_PARAMS",
    "EMPTY_GRID",
    "GRID_TOO_LARGE",
    "NOT_ENOUGH_BARS",
    "JOB_NOT_FOUND",
    "RUN_NOT_FOUND",
    "CONFLICT",
    "RESULT_PATH_MISSING",
    "RUN_ENGINE_ERROR",
    "DATA_SOURCE_ERROR",
    "STORE_UNAVAILABLE",
]
CODES: tuple[Code, ...] = get_args(Code)
# What a name that does not exist was meant to be; any other is a parameter.
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
    "run": "RUN_NOT_FOUND",
}


class BacktestError(Exception):
    """Base of all errors raised on purpose by this project.

    Attributes:
        code: names the kind of error for programs; that of an error which nobody foresaw too.
        is_public: whether whoever asks over a network may read the message; not where it names
            hosts, folders, settings or words of the database.
    """

    code: Code = "RUN_ENGINE_ERROR"
    is_public: bool = True


SEE_LOG = "the computation failed unexpectedly; the log has the cause"


def public_message(error: BaseException) -> str:
    """What whoever asks over a network may read of an error."""
    if isinstance(error, BacktestError) and error.is_public:
        return str(error)
    return SEE_LOG


class ConfigurationError(BacktestError):
    """A setting is missing or makes no sense; the message names the variable."""

    is_public = False


class TableDrift(ConfigurationError):
    """The user's own table of features is not as it is configured; the message names what is."""


class UnknownName(BacktestError):
    """A name that does not exist; the message offers the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        choices = sorted(set(known))
        by_folded = {choice.lower(): choice for choice in choices}
        near = get_close_matches(name.lower(), by_folded, n=3, cutoff=0.5)
        if near:
            hint = "did you mean " + " or ".join(by_folded[n] for n in near) + "?"
        elif choices:
            shown = ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
            hint = f"known: {shown}"
        else:
            hint = "none is known yet"
        super().__init__(f"unknown {kind} {name!r}; {hint}")
        self.kind, self.name = kind, name
        self.code = _CODES_OF_NAMES.get(kind, "BAD_PARAMS")


class AmbiguousName(BacktestError):
    """A short name that more than one strategy or preset goes by; the message lists them."""

    code = "UNKNOWN_STRATEGY"


class InvalidInput(BacktestError):
    """An argument that cannot be computed."""

    code = "BAD_PARAMS"


class BadRange(InvalidInput):
    """A window of time that cannot be: it ends before it begins, or a date cannot be read."""

    code = "BAD_RANGE"


class BadSymbols(InvalidInput):
    """Assets that make no portfolio: fewer than two, or one of them twice."""

    code = "BAD_SYMBOLS"


class NotEnoughBars(InvalidInput):
    """A window with fewer bars than a backtest needs; the message says which bars there are."""

    code = "NOT_ENOUGH_BARS"


class EmptyGrid(InvalidInput):
    """Values to try of which no combination makes sense."""

    code = "EMPTY_GRID"


class GridTooLarge(InvalidInput):
    """More combinations than are allowed; the message names the limit and what raises it."""

    code = "GRID_TOO_LARGE"


class LooksAhead(BacktestError):
    """A strategy whose signals change when the bars after them are taken away."""


class BarsError(BacktestError):
    """Bars that cannot be read or trusted; the message names the file or asset."""

    code = "DATA_SOURCE_ERROR"
    is_public = False


class SourceUnavailable(BarsError):
    """An exchange does not answer, or refuses; what is cached can still be used."""

    is_public = True


class PartitionError(BacktestError):
    """One (asset, timeframe) cannot be computed; the others of its batch can."""

    def __init__(self, asset: str, timeframe: str, reason: str) -> None:
        super().__init__(f"{asset}|{timeframe}: {reason}")
        self.asset, self.timeframe, self.reason = asset, timeframe, reason


class ProvenanceMissing(BacktestError, ValueError):
    """A stored result that does not say what it was made from; the message names what lacks."""


class CannotReplay(BacktestError):
    """A stored run that cannot be computed again here; the message says what it would take."""


class JobNotFound(BacktestError):
    """No job of this id."""

    code = "JOB_NOT_FOUND"


class JobConflict(BacktestError):
    """A job that is not in a state to be cancelled or resumed; the message names its state."""

    code = "CONFLICT"


class RunNotFound(BacktestError):
    """No run of this id."""

    code = "RUN_NOT_FOUND"


class StoreError(BacktestError):
    """The database cannot do what was asked."""

    is_public = False


class StoreUnavailable(StoreError):
    """The database does not answer, or refuses the connection."""

    code = "STORE_UNAVAILABLE"


class StoreOutOfReach(StoreUnavailable):
    """The database does not answer, and waiting does not mend it, or has not."""


class StoreOvertaken(StoreError):
    """Another process has replaced what this was computed from; computing it again mends it."""


class SchemaNotMigrated(StoreError):
    """The database answers, with another schema than this code needs."""

    code = "STORE_UNAVAILABLE"


class RowsRefused(StoreError):
    """Rows break a rule of the database, or miss rows that they belong to; others may be sound."""


class ArtifactError(BacktestError):
    """The folder or bucket of the artifacts cannot be written or read."""

    is_public = False


class ArtifactCorrupt(ArtifactError):
    """An artifact's bytes differ from what its manifest says."""


class ResultPathMissing(ArtifactError):
    """A run whose artifacts are gone; its rows are still there."""

    code = "RESULT_PATH_MISSING"
    is_public = True
