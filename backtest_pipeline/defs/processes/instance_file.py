"""The `dagster.yaml` of the project's own Dagster home: written once, renewed until it is edited.

Its first line has the hash of the rest. As long as they fit together nobody has edited the file,
and a new version of this package replaces it by its own. An edited file is never written again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg

from backtest_pipeline.market.errors import ConfigurationError

MODULE = "backtest_pipeline.defs.dagster_storage"
STORAGES = {
    "run_storage": "KeptRunStorage",
    "event_log_storage": "BatchingEventLogStorage",
    "schedule_storage": "KeptScheduleStorage",
}
# What the package relies on, by section of the file.
_REQUIRED: Mapping[str, Mapping[str, str]] = {
    **{name: {"module": MODULE, "class": kind} for name, kind in STORAGES.items()},
    "instance_class": {"module": MODULE, "class": "BatchingInstance"},
    "run_launcher": {
        "module": "backtest_pipeline.defs.launcher",
        "class": "SupervisedRunLauncher",
    },
}
_DEFAULT_LAUNCHER = "DefaultRunLauncher"
_SECTIONS = "\n".join(
    f"{name}: {{ module: {of['module']}, class: {of['class']} }}" for name, of in _REQUIRED.items()
)
# Without a URL: each process takes that of the store from its settings, so that no file and no list
# of processes has the password.
DAGSTER_YAML = f"""\
{_SECTIONS}
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    # Launched runs carry this tag; those that a command executes in its own process do not, and
    # wait in no queue.
    max_concurrent_runs: -1
    tag_concurrency_limits:
      - key: dagster/code_location
        limit: 2
run_queue:
  # A run whose code server is being started again goes back to the queue, for some minutes.
  max_user_code_failure_retries: 30
  user_code_failure_retry_delay: 6
run_monitoring:
  enabled: true
  start_timeout_seconds: 180
  cancel_timeout_seconds: 60
  max_runtime_seconds: 14400
  poll_interval_seconds: 10
  free_slots_after_run_end_seconds: 10
run_retries:
  enabled: true
  max_retries: 0
  retry_on_asset_or_op_failure: false
retention:
  schedule:
    purge_after_days: {{ skipped: 1, success: 7, failure: 30 }}
  sensor:
    purge_after_days: {{ skipped: 1, success: 7, failure: 30 }}
  auto_materialize:
    purge_after_days: {{ skipped: 1, success: 7, failure: 30 }}
python_logs:
  managed_python_loggers:
    - backtest_pipeline
"""
_MARK = "# Edit this file and it stays as you leave it; until then it is renewed. "
# The hashes of the texts that versions wrote whose first line had none.
_EARLIER = frozenset(
    {
        "da4faf9fa505ceb41ba88c8f0ed1297c53e960adbcff722b95b6ed47f0454200",
        "4dde530294b67ea3b8a9ad045599cb3332e70a9170b7b86b9c59d10b2a681b2f",
        "24f409ba7e552fac8d12b7eab4bb8803de4cb57d9fcd87387031aa3f5aa803b5",
        "b5e4f442db49a4bed249fcd05d86835fcca3210c2082289d3cb3e8f96463bfab",
        "ba1fa4a8b57855641aab404ce32a51512a271a2a6c5d2d9d4bea1dc2516aaaec",
        "389f0f0e53274ed7123c7bcb3971d3795b41736b74a3bfd9f98f02a3f9434172",
        "beb9659bbf8eb1292ac68cdc60debd6891bbb52aec11dd98694e89c6758490bf",
        "1c460d58acb40de35668e05400efd034682690a697569c3468387fcd4b41c894",
        "9ae721fb9ed0c210ffc8f5f5a8f00b60ddd60f30f5585d040c8991481bad1d32",
        "7a09f52a345f2e3e15aa42b6f6b4369ba56a868045b7b457722228a3e37c9332",
        "4004d52d749a14ff7cf712517ff416d7b16aa1ab00fddd079254e0948dcfbce3",
        "fd539e91c7383410de25057c16806757a41ab70e82e9bc1aff29502d16d8d3c1",
        "cacd53abf077e8a7c11edd680cf0bfa135f4d324e86e956ac819c7e5013e2707",
    }
)


@dataclass(frozen=True)
class InstanceFile:
    """A `dagster.yaml` as it is read.

    Attributes:
        path: of the file, which need not exist.
        is_edited: whether its text is another one than this package has written.
        sections: what it sets.
        lacking: the settings that this package relies on and it does not have, as lines of YAML.
        is_own: whether it is in the home of the store, and not in a `DAGSTER_HOME` of the user's.
    """

    path: Path
    is_edited: bool
    sections: Mapping[str, Any]
    lacking: Sequence[str]
    is_own: bool = True

    def names(self, section: str) -> bool:
        """Whether a section that this package relies on is there as it needs it."""
        return _has(section, self.sections.get(section), _REQUIRED[section])

    @property
    def summary(self) -> str:
        """Whether it was edited, and what it lacks, in one line."""
        if not self.is_own:
            lacks = f"; it lacks {', '.join(self.lacking)}" if self.lacking else ""
            return f"DAGSTER_HOME names {self.path.parent}, which is left alone{lacks}"
        if not self.is_edited:
            return f"{self.path} is as this version writes it"
        if not self.lacking:
            return f"{self.path} has been edited and stays so; it has all that is required"
        return (
            f"{self.path} has been edited and stays so, but it lacks {', '.join(self.lacking)}; "
            "add these, or delete the file to have a new one: the rest of it is yours"
        )


def sealed(text: str) -> str:
    """A text with the first line by which it is known as not edited."""
    return f"{_MARK}{sha256(text.encode()).hexdigest()}\n{text}"


def renew(path: Path) -> InstanceFile:
    """Write the file where there is none, or replace one of another version that nobody edited.

    Where a file is there and cannot be replaced, as in a read-only home, it is used as it is.

    Raises:
        ConfigurationError: if there is none and it cannot be written, or it cannot be read.
    """
    wanted = sealed(DAGSTER_YAML)
    before = _text_of(path, is_own=True)
    if before is None:
        try:
            _write(path, wanted)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write {path} ({error.strerror}); set BACKTEST_HOME to a folder that can "
                "be written to, or put the file there, see docs/operations.md"
            ) from error
    elif before != wanted and not _is_edited(before):
        with suppress(OSError):  # what it lacks is said by whoever looks at what is returned
            _write(path, wanted)
    return read_file(path)


def read_file(path: Path, *, is_own: bool = True) -> InstanceFile:
    """A `dagster.yaml` as it is; one that does not exist sets nothing.

    Args:
        path: of the file.
        is_own: whether it is in the home of the store.

    Raises:
        ConfigurationError: if it cannot be read, or is not YAML with named sections.
    """
    text = _text_of(path, is_own=is_own)
    if text is None:
        return InstanceFile(path, is_edited=True, sections={}, lacking=_lacking({}), is_own=is_own)
    try:
        sections = {} if _is_blank(text) else dg.config_from_yaml_strings([text])
    # Of a text without named sections it is an error of Dagster's checks, which has no public name.
    except Exception as error:
        why = " ".join(str(error.__cause__ or error).split())
        raise ConfigurationError(broken(path, why, is_own=is_own)) from error
    return InstanceFile(path, text != sealed(DAGSTER_YAML), sections, _lacking(sections), is_own)


def broken(path: Path, why: str, *, is_own: bool) -> str:
    """What to say of a file that cannot be used, and what to do about it."""
    instead = "delete the file to have a new one" if is_own else "unset DAGSTER_HOME"
    return f"{path} is not valid: {why}; correct it, or {instead}"


def _lacking(sections: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {{ module: {wanted['module']}, class: {wanted['class']} }}"
        for name, wanted in _REQUIRED.items()
        if not _has(name, sections.get(name), wanted)
    ]


def _has(name: str, section: Any, wanted: Mapping[str, str]) -> bool:
    if not isinstance(section, Mapping):
        return False
    if name == "run_launcher":  # one that starts runs elsewhere judges itself whether they live
        return section.get("class") not in (None, _DEFAULT_LAUNCHER)
    return all(section.get(key) == value for key, value in wanted.items())


def _is_blank(text: str) -> bool:
    """Whether a text of YAML has comments and the marks of a document at most."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return all(line in ("", "---", "...") for line in lines)


def _is_edited(text: str) -> bool:
    first, _, rest = text.partition("\n")
    if first.startswith(_MARK):
        return sealed(rest) != text
    return sha256(text.encode()).hexdigest() not in _EARLIER


def _text_of(path: Path, *, is_own: bool) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(broken(path, str(error), is_own=is_own)) from error


def _write(path: Path, text: str) -> None:
    """Put it there whole, whoever else writes or reads it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}")
    try:
        whole.write_text(text, encoding="utf-8")
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)
