"""Every error that this project raises on purpose.

    BacktestError
    ├── ConfigurationError      a setting is missing or makes no sense
    │   └── TableDrift          the user's own table is not as it is configured
    ├── UnknownName             an asset, timeframe, signal or parameter that does not exist
    ├── InvalidInput            an argument or a range that cannot be computed
    ├── LooksAhead              a strategy whose signals depend on bars that come later
    ├── BarsError               bars that cannot be read or trusted
    │   └── SourceUnavailable   an exchange does not answer, or refuses
    ├── PartitionError          one (asset, timeframe) cannot be computed; its neighbours can
    ├── ProvenanceMissing       a result that does not say what it was made from (a ValueError too)
    ├── CannotReplay            a run that cannot be computed again here
    ├── StoreError              the database
    │   ├── StoreUnavailable    does not answer, or refuses
    │   │   └── StoreOutOfReach waiting does not mend it, or has not
    │   ├── StoreOvertaken      what was read has been replaced meanwhile
    │   ├── SchemaNotMigrated   answers, with another schema than this code needs
    │   └── RowsRefused         answers, and does not take these rows
    └── ArtifactError           the artifact folder
        └── ArtifactCorrupt     a file differs from its manifest

Each message says what is wrong, where, and how to mend it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class BacktestError(Exception):
    """Base of all errors raised on purpose by this project."""


class ConfigurationError(BacktestError):
    """A setting is missing or makes no sense; the message names the variable."""


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


class InvalidInput(BacktestError):
    """An argument or a range that cannot be computed."""


class LooksAhead(BacktestError):
    """A strategy whose signals change when the bars after them are taken away."""


class BarsError(BacktestError):
    """Bars that cannot be read or trusted; the message names the file or asset."""


class SourceUnavailable(BarsError):
    """An exchange does not answer, or refuses; what is cached can still be used."""


class PartitionError(BacktestError):
    """One (asset, timeframe) cannot be computed; the others of its batch can."""

    def __init__(self, asset: str, timeframe: str, reason: str) -> None:
        super().__init__(f"{asset}|{timeframe}: {reason}")
        self.asset, self.timeframe, self.reason = asset, timeframe, reason


class ProvenanceMissing(BacktestError, ValueError):
    """A stored result that does not say what it was made from; the message names what lacks."""


class CannotReplay(BacktestError):
    """A stored run that cannot be computed again here; the message says what it would take."""


class StoreError(BacktestError):
    """The database cannot do what was asked."""


class StoreUnavailable(StoreError):
    """The database does not answer, or refuses the connection."""


class StoreOutOfReach(StoreUnavailable):
    """The database does not answer, and waiting does not mend it, or has not."""


class StoreOvertaken(StoreError):
    """Another process has replaced what this was computed from; computing it again mends it."""


class SchemaNotMigrated(StoreError):
    """The database answers, with another schema than this code needs."""


class RowsRefused(StoreError):
    """Rows break a rule of the database, or miss rows that they belong to; others may be sound."""


class ArtifactError(BacktestError):
    """The artifact folder cannot be written or read."""


class ArtifactCorrupt(ArtifactError):
    """An artifact's bytes differ from what its manifest says."""
