"""What Prometheus and Grafana ask for, as it lies in `ops/`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

OPS = Path(__file__).parents[2] / "ops"
DASHBOARD = OPS / "grafana" / "dashboards" / "backtests.json"
ALERTS = OPS / "prometheus" / "alerts.yml"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)?\s*\{([^}]*)\}")
_WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring"}


@dataclass(frozen=True)
class Used:
    """The metrics of a query, and the labels that are asked of each."""

    metrics: frozenset[str]
    matched: Mapping[str, frozenset[str]]
    grouped: frozenset[str]


def used(query: str) -> Used:
    """The names in a PromQL query; enough of its grammar for ours."""
    bare = re.sub(r"\[[^]]*\]", "", _STRING.sub('""', query))
    grouped = {
        label.strip() for _, labels in _GROUPING.findall(bare) for label in labels.split(",")
    }
    bare = _GROUPING.sub(" ", bare)
    matched: dict[str, frozenset[str]] = {}
    for metric, matchers in _SELECTOR.findall(bare):
        found = frozenset(re.split(r"[=!~]", one)[0].strip() for one in matchers.split(",") if one)
        matched[metric] = matched.get(metric, frozenset()) | found
    bare = re.sub(r"\{[^}]*\}", "", bare)
    bare = re.sub(r"\boffset\s+\w+|\b[0-9.]+(e[0-9]+)?\b", " ", bare)
    names = {
        match.group()
        for match in _NAME.finditer(bare)
        if match.group() not in _WORDS and not bare[match.end() :].lstrip().startswith("(")
    }
    return Used(frozenset(names), matched, frozenset(grouped))


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def panels() -> Iterator[dict[str, Any]]:
    """Every panel that shows something."""
    for panel in dashboard()["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


def dashboard_queries() -> list[tuple[str, str]]:
    """Title of the panel, and query, with Grafana's variables as it would fill them in."""
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", "1m"))
        for panel in panels()
        for target in panel["targets"]
    ]


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return group["rules"]
