"""`docker-compose.yml` as Compose reads it: merged, and with variables filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / ".env.example"
# What a user has to set, and what the profiles need.
GIVEN = {
    f"BACKTEST_{name}": "of-this-test-alone"
    for name in ("DB_PASSWORD", "GRAFANA_PASSWORD", "METRICS_TOKEN")
}
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def raw() -> dict[str, Any]:
    """The file, with its anchors merged and its variables as they are written."""
    return yaml.safe_load(FILE.read_text())


def resolved(environment: Mapping[str, str] = GIVEN) -> dict[str, Any]:
    """The file with variables filled in; one that is required, and not given, is a KeyError."""
    found = _filled(raw(), environment)
    for service in found["services"].values():
        given = service.get("environment") or {}
        passed_on = {name: environment.get(name) for name, value in given.items() if value is None}
        service["environment"] = {
            name: value for name, value in (given | passed_on).items() if value is not None
        }
    return found


def _filled(part: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(part, dict):
        return {key: _filled(value, environment) for key, value in part.items()}
    if isinstance(part, list):
        return [_filled(value, environment) for value in part]
    return filled(part, environment) if isinstance(part, str) else part


def filled(text: str, environment: Mapping[str, str]) -> str:
    """A text with its variables filled in."""

    def value(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        if name is None:
            return "$"
        if environment.get(name):
            return environment[name]
        if kind == ":-":
            return default
        raise KeyError(name)

    return _VARIABLE.sub(value, text)


def variables() -> set[str]:
    """The names of all variables that the file reads."""
    read = {match.group(1) for match in _VARIABLE.finditer(FILE.read_text()) if match.group(1)}
    for service in raw()["services"].values():
        read |= {
            name for name, value in (service.get("environment") or {}).items() if value is None
        }
    return read


def documented() -> set[str]:
    """The names of all variables that the example of a user's settings explains."""
    return set(re.findall(r"^#?([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE))


def mounts(service: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Source, target, and whether it may be written, of each volume of a service."""
    for volume in service.get("volumes", ()):
        source, target, *options = volume.split(":")
        yield source, target, "ro" not in options
