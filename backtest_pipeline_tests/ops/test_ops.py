"""Dashboards and alerts ask for what there is, in a real Prometheus."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from backtest_pipeline_tests.ops.conftest import asked
from backtest_pipeline_tests.ops.queries import (
    OPS,
    alerts,
    dashboard,
    dashboard_queries,
    panels,
    used,
)
from backtest_pipeline_tests.waiting import LIMIT_S, until

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="no prometheus and promtool on this machine",
)
OF_PROMETHEUS = {"up": frozenset({"job", "instance"})}
OF_EVERY_TARGET = {"job", "instance"}
# They show what goes wrong, and nothing where nothing does.
MAY_BE_EMPTY = {"Failures a second, by code"}


@pytest.fixture(scope="module")
def told(target: str) -> dict[str, frozenset[str]]:
    """Names of labels by metric, as /metrics prints them."""
    # The first scrape is not counted before it has ended.
    httpx2.get(f"http://{target}/metrics", timeout=LIMIT_S)
    text = httpx2.get(f"http://{target}/metrics", timeout=LIMIT_S).text
    found: dict[str, frozenset[str]] = dict(OF_PROMETHEUS)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, frozenset()) | set(sample.labels)
    return found


def _queries() -> Iterator[tuple[str, str]]:
    yield from dashboard_queries()
    for alert in alerts():
        yield alert["alert"], alert["expr"]


@pytest.mark.parametrize(
    ("query", "metrics", "matched", "grouped"),
    [
        ("a_total", {"a_total"}, {}, set()),
        (
            'sum by (x, y) (rate(a_total{code=~"B|C", z!=""}[5m])) / max(b offset 1d) > 10e9',
            {"a_total", "b"},
            {"a_total": {"code", "z"}},
            {"x", "y"},
        ),
        ("time() - max without (instance) (c) and d or vector(0)", {"c", "d"}, {}, {"instance"}),
    ],
)
def test_names_in_queries_are_found(query: str, metrics: set, matched: dict, grouped: set) -> None:
    found = used(query)
    assert found.metrics == metrics
    assert found.matched == matched
    assert found.grouped == grouped


def test_dashboard_and_alerts_name_metrics_and_labels_that_there_are(
    told: dict[str, frozenset[str]],
) -> None:
    for where, query in _queries():
        found = used(query)
        assert found.metrics, (where, query)
        for name in found.metrics:
            assert name in told, f"{where}: {name}"
        known = OF_EVERY_TARGET.union(*(told[name] for name in found.metrics))
        assert found.grouped <= known, (where, found.grouped - known)
        for name, labels in found.matched.items():
            assert labels <= told[name] | OF_EVERY_TARGET, (where, name, labels)


def test_every_metric_of_the_store_is_on_the_dashboard_or_alerted(
    told: dict[str, frozenset[str]],
) -> None:
    names = {name for _, query in _queries() for name in used(query).metrics}
    ours = {name for name in told if not name.startswith(("process_", "http_", "up"))}
    unseen = {n for n in ours if n not in names and not n.endswith(("_sum", "_count", "_created"))}
    assert unseen == set()


@needs_prometheus
def test_every_query_of_the_dashboard_runs_and_has_something_to_show(prometheus: str) -> None:
    for title, query in dashboard_queries():
        if title in MAY_BE_EMPTY or query.endswith("> 0"):
            asked(prometheus, query)
            continue
        # A scrape that came too late leaves nothing to show until the next one.
        until(
            lambda query=query: asked(prometheus, query),
            lambda title=title, query=query: f"{title}: {query}",
        )


@needs_prometheus
def test_prometheus_loads_the_alerts_and_none_of_them_fails(prometheus: str) -> None:
    (group,) = httpx2.get(f"{prometheus}/api/v1/rules", timeout=LIMIT_S).json()["data"]["groups"]
    assert {rule["name"] for rule in group["rules"]} == {alert["alert"] for alert in alerts()}
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    for alert in alerts():
        asked(prometheus, alert["expr"])


@needs_prometheus
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "--syntax-only", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
)
def test_promtool_finds_them_sound(arguments: tuple[str, ...]) -> None:
    found = subprocess.run(
        ["promtool", *arguments], cwd=OPS / "prometheus", capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tests = yaml.safe_load((OPS / "prometheus" / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    rests = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fires == rests == {alert["alert"] for alert in alerts()}
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert set(alert["annotations"]) == {"summary", "description"}


def test_the_dashboard_is_laid_out_as_grafana_wants_it() -> None:
    found = dashboard()
    assert found["schemaVersion"] >= 36
    assert (found["uid"], found["timezone"]) == ("backtests", "utc")
    (variable,) = found["templating"]["list"]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    ids = [panel["id"] for panel in found["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in found["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert taken.isdisjoint(cells), panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"] in (
            *("s", "bytes", "short", "reqps", "percentunit", "none"),
        ), panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            is_of_seconds = "_seconds" in target["expr"] and "_seconds_total" not in target["expr"]
            unit = panel["fieldConfig"]["defaults"]["unit"]
            assert (unit == "s") == is_of_seconds, panel["title"]
            assert (unit == "bytes") == ("_bytes" in target["expr"]), panel["title"]


def test_grafana_finds_its_datasource_and_dashboards_where_compose_puts_them() -> None:
    provisioning = OPS / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "backtests.yml").read_text())[
        "providers"
    ]
    compose = yaml.safe_load((OPS.parent / "docker-compose.yml").read_text())["services"]
    mounted = {v.split(":")[1]: v.split(":")[0] for v in compose["grafana"]["volumes"]}
    assert mounted[provider["options"]["path"]] == "./ops/grafana/dashboards"
    assert mounted["/etc/grafana/provisioning"] == "./ops/grafana/provisioning"
    assert "prometheus" in compose
