"""Containers start in order, stay on this machine, may do little, and hold no password."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from backtest_pipeline.pipeline.monitoring.notices import NoticeSettings
from backtest_pipeline.service.settings import ServiceSettings
from backtest_pipeline.storage.settings import READ_ELSEWHERE, Settings
from backtest_pipeline.strategist.llm.settings import LlmSettings
from backtest_pipeline_tests.ops.compose_file import (
    FILE,
    GIVEN,
    ROOT,
    documented,
    filled,
    mounts,
    raw,
    resolved,
    variables,
)

COMPOSE = resolved()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WRITTEN: dict[str, dict[str, Any]] = raw()["services"]
OURS = {name for name, service in SERVICES.items() if "BACKTEST_IMAGE" in WRITTEN[name]["image"]}
ONCE = {"migrate", "certificates"}
SETTINGS = {
    f"BACKTEST_{name.upper()}"
    for kind in (Settings, ServiceSettings, LlmSettings, NoticeSettings)
    for name in kind.model_fields
}
# Of libpq and of the object stores; the rest is ours, or of images of others.
OF_LIBRARIES = re.compile(r"PGPASSWORD|(AWS|AZURE|GOOGLE)_[A-Z_]+")
BIN = Path(sys.executable).parent


def _has_compose() -> bool:
    try:
        found = subprocess.run(["docker", "compose", "version"], capture_output=True)
    except FileNotFoundError:
        return False
    return found.returncode == 0


@pytest.mark.skipif(not _has_compose(), reason="no docker compose on this machine")
def test_docker_compose_reads_the_file() -> None:
    found = subprocess.run(
        ["docker", "compose", "--profile", "*", "config", "--quiet"],
        cwd=ROOT,
        env=os.environ | GIVEN,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr


def run_tool(*command: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]], capture_output=True, text=True, cwd=ROOT, **more
    )


def test_the_file_is_as_the_specification_of_compose_has_it(tmp_path: Path) -> None:
    schema = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    substituted = tmp_path / "compose.yml"
    substituted.write_text(yaml.safe_dump(COMPOSE))
    for path in (FILE, substituted):
        found = run_tool(*schema, str(path))
        assert found.returncode == 0, found.stdout
    broken = yaml.safe_load(FILE.read_text().replace("pids_limit", "pid_limit"))
    substituted.write_text(yaml.safe_dump(broken))
    assert run_tool(*schema, str(substituted)).returncode == 1


def test_the_linter_finds_nothing_but_what_was_decided(tmp_path: Path) -> None:
    found = run_tool("compose-lint", "check", "--fail-on", "low", FILE.name)
    assert found.returncode == 0, found.stdout
    rules = yaml.safe_load((ROOT / ".compose-lint.yml").read_text())["rules"]
    assert all(rule["reason"] for rule in rules.values())
    careless = tmp_path / FILE.name
    careless.write_text(FILE.read_text().replace("  cap_drop: [ALL]\n", ""))
    assert run_tool("compose-lint", "check", str(careless)).returncode == 1


def test_the_parts_are_there_and_what_is_optional_is_a_profile() -> None:
    profiles: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for profile in service.get("profiles", [""]):
            profiles.setdefault(profile, set()).add(name)
    assert profiles == {
        "": {"postgres", "migrate", "code-location", "webserver", "daemon", "service"},
        "scale": {"certificates", "scheduler", "worker"},
        "observability": {"prometheus", "grafana"},
    }


def test_what_is_named_is_declared_and_what_is_declared_is_used() -> None:
    used: dict[str, set[str]] = {"volumes": set(), "networks": set(), "secrets": set()}
    for name, service in SERVICES.items():
        assert {"networks", "network_mode"} & set(service), f"{name} is in every network"
        used["networks"] |= set(service.get("networks", ()))
        used["secrets"] |= set(service.get("secrets", ()))
        used["volumes"] |= {source for source, _, _ in mounts(service) if "/" not in source}
        for other, how in service.get("depends_on", {}).items():
            wanted = SERVICES[other]
            assert (how["condition"] == "service_completed_successfully") == (other in ONCE)
            if how["condition"] == "service_healthy":
                assert "test" in wanted["healthcheck"]
            of_profile = set(wanted.get("profiles", ()))
            is_there = not of_profile or of_profile & set(service.get("profiles", ()))
            assert is_there or how.get("required") is False, (name, other)
    for kind, names in used.items():
        assert names == set(COMPOSE.get(kind, ())), kind


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_careful(name: str) -> None:
    service = SERVICES[name]
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert 0 < service["pids_limit"] <= 1024
    assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & set(service)
    # Compose cannot give them to a service that is read-only, but for files.
    for kind in ("secrets", "configs"):
        given = [COMPOSE[kind][one] for one in service.get(kind, ())]
        assert all(set(one) == {"file"} for one in given), kind
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), port
    for source, target, is_writable in mounts(service):
        assert "docker.sock" not in source
        if "/" in source:
            assert (ROOT / source).is_dir(), f"{source} is not there"
            assert target == "/artifacts" or not is_writable
    if name in OURS:
        user, _, group = service["user"].partition(":")
        assert int(user) > 0
        assert int(group) > 0
        assert "/tmp" in service["tmpfs"]  # noqa: S108


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_ends_or_is_started_again_and_says_how_it_is(name: str) -> None:
    service = SERVICES[name]
    if name in ONCE:
        assert service["restart"] == "no"
        assert service["healthcheck"] == {"disable": True}
        return
    of_others = service.get("profiles") == ["observability"]
    assert service["restart"] == ("unless-stopped" if of_others else "always")
    check = service["healthcheck"]
    assert {"interval", "timeout", "retries"} <= set(check)
    assert check["test"][0] in ("CMD", "CMD-SHELL")


def test_one_service_builds_the_image_of_all() -> None:
    assert [name for name, service in SERVICES.items() if "build" in service] == ["migrate"]
    build = SERVICES["migrate"]["build"]
    file = ROOT / build["context"] / "Dockerfile"
    assert f"ARG PYTHON_IMAGE={build['args']['PYTHON_IMAGE']}\n" in file.read_text()
    assert {SERVICES[name]["image"] for name in OURS} == {SERVICES["migrate"]["image"]}


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_exact_and_another_one_can_be_named(name: str) -> None:
    written = re.fullmatch(r"\$\{([A-Z]+_IMAGE):-([^}]+)\}", WRITTEN[name]["image"])
    assert written
    variable, image = written.groups()
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?", image), image
    pinned = f"{image}@sha256:{'0' * 64}"
    assert resolved({**GIVEN, variable: pinned})["services"][name]["image"] == pinned


def test_every_variable_is_explained_and_nothing_else_is() -> None:
    assert variables() == documented()
    ours = {name for name in variables() if name.startswith("BACKTEST_")}
    assert ours - READ_ELSEWHERE <= SETTINGS
    known = OF_LIBRARIES.pattern
    for name in OURS:
        for variable in WRITTEN[name].get("environment", ()):
            assert variable in SETTINGS or re.fullmatch(known, variable), (name, variable)


def test_every_setting_can_be_set_where_it_is_read() -> None:
    of_container = {"BACKTEST_POSTGRES_DSN", "BACKTEST_RUN_STORE_MODE", "BACKTEST_HOME"}
    fixed = {"BACKTEST_SERVICE_HOST", "BACKTEST_SERVICE_PORT", "BACKTEST_SERVICE_AUTH"}
    fixed |= {"BACKTEST_CACHE_FOLDER"}
    passed = {name for one in OURS for name in WRITTEN[one].get("environment", ())}
    assert SETTINGS - passed - fixed - of_container == set()
    for field in LlmSettings.model_fields:
        assert f"BACKTEST_{field.upper()}" in WRITTEN["code-location"]["environment"]
    for computing in ("code-location", "service", "worker"):  # each writes in bulk
        assert "BACKTEST_WRITERS" in WRITTEN[computing]["environment"], computing


def test_no_password_is_written_down_and_each_is_asked_for() -> None:
    for name, service in WRITTEN.items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|DSN|SECRET|TOKEN|_KEY$|WEBHOOK|SMTP", variable):
                assert value is None or value.startswith("${"), (name, variable)
                default = (
                    filled(value, {**GIVEN, "BACKTEST_DB_PASSWORD": ""})
                    if (value and ":-" in value)
                    else ""
                )
                assert not re.search(r"://[^/@]*:[^/@]*@", default), (name, variable)
        # A process's arguments are seen by everybody on the machine.
        for argument in service.get("command", ()):
            assert not re.search(r"\$\{\w*(PASSWORD|DSN|SECRET|TOKEN|KEY)", argument)
    with pytest.raises(KeyError, match="BACKTEST_DB_PASSWORD"):
        resolved({})
    for name, asked in {"grafana": "GRAFANA_PASSWORD", "prometheus": "METRICS_TOKEN"}.items():
        guard = SERVICES[name]["entrypoint"][2]
        without = subprocess.run(
            ["/bin/sh", "-c", re.sub("exec /.*", "echo begins", guard)],
            env={},
            capture_output=True,
            text=True,
        )
        assert (without.returncode, without.stdout) == (1, "")
        assert f"BACKTEST_{asked}" in without.stderr


def test_each_reaches_what_it_needs_and_nothing_else() -> None:
    network = {name: set(service.get("networks", ())) for name, service in SERVICES.items()}
    for name, service in SERVICES.items():
        needs_store = "BACKTEST_POSTGRES_DSN" in service["environment"] or name == "postgres"
        assert ("store" in network[name]) == needs_store, name
        assert ("code" in network[name]) == (name in ("code-location", "webserver", "daemon"))
        # A port of an internal network alone cannot be published.
        open_networks = {n for n in network[name] if not (COMPOSE["networks"][n] or {})}
        assert open_networks or not service.get("ports"), name
        # Database and bucket may be elsewhere.
        may_be_elsewhere = {"BACKTEST_POSTGRES_DSN", "BACKTEST_ARTIFACTS_URL"}
        if may_be_elsewhere & set(service["environment"]):
            assert "default" in network[name], name
    for name in ("store", "code", "pool"):
        assert COMPOSE["networks"][name] == {"internal": True}
    for name in ("webserver", "daemon"):
        assert "code-location:4000" in str(SERVICES[name]["command"])
    assert "ports" not in SERVICES["code-location"]


def test_the_pool_is_asked_for_itself() -> None:
    for name, page in {"scheduler": "/health", "worker": "/ready"}.items():
        command = SERVICES[name]["command"]
        port = command[command.index("--health-port") + 1]
        assert f"'http://127.0.0.1:{port}{page}'" in SERVICES[name]["healthcheck"]["test"][-1]


def test_services_see_the_same_files_where_they_look_for_them() -> None:
    computing = [n for n in OURS if "BACKTEST_STRATEGIES" in SERVICES[n]["environment"]]
    assert {"code-location", "service", "worker"} <= set(computing)
    for name in computing:
        service = SERVICES[name]
        where = {target: writable for _, target, writable in mounts(service)}
        settings = service["environment"]
        assert where[settings["BACKTEST_STRATEGIES"]] is False
        assert where[settings["BACKTEST_COLUMNS"]] is False
        assert where[settings["BACKTEST_ARTIFACTS_URL"]] is True
        assert where[settings["BACKTEST_HOME"]] is True
        assert service["volumes"] == SERVICES["code-location"]["volumes"]
    outside = {
        source for source, target, _ in mounts(SERVICES["service"]) if target == "/artifacts"
    }
    assert outside == {"./artifacts"}


def test_prometheus_scrapes_the_service_where_it_listens(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == ["service"]
    assert set(SERVICES["prometheus"]["networks"]) <= set(SERVICES["service"]["networks"])
    service = SERVICES["prometheus"]
    path = job["authorization"]["credentials_file"]
    token = WRITTEN["service"]["environment"]["BACKTEST_SERVICE_METRICS_TOKEN"]
    assert WRITTEN["prometheus"]["environment"] == {"METRICS_TOKEN": token}
    assert str(Path(path).parent) in service["tmpfs"]
    # Its entrypoint writes the token there, for its own user alone, and passes on the arguments.
    shell, dash, script, zeroth = service["entrypoint"]
    (tmp_path / "prometheus").write_text('#!/bin/sh\necho "$METRICS_TOKEN" "$@"')
    (tmp_path / "prometheus").chmod(0o700)
    here = script.replace(path, f"{tmp_path}/token").replace("/bin/prom", f"{tmp_path}/prom")
    begun = subprocess.run(
        [shell, dash, here, zeroth, *service["command"]],
        env=service["environment"],
        capture_output=True,
        text=True,
    )
    assert begun.stdout.split() == service["command"], begun.stderr
    assert (tmp_path / "token").read_text() == GIVEN["BACKTEST_METRICS_TOKEN"]
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    published = SERVICES["service"]["ports"][0].rpartition(":")[2]
    assert str(found["port"]) == published
