"""Containers start in order, stay on this machine, and hold no password of their own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ENVIRONMENT = {
    f"BACKTEST_{name}": "of-this-test-alone"
    for name in ("DB_PASSWORD", "GRAFANA_PASSWORD", "METRICS_TOKEN")
}


def _has_compose() -> bool:
    try:
        found = subprocess.run(["docker", "compose", "version"], capture_output=True)
    except FileNotFoundError:
        return False
    return found.returncode == 0


@pytest.mark.skipif(not _has_compose(), reason="no docker compose on this machine")
def test_docker_compose_reads_the_file() -> None:
    found = subprocess.run(
        ["docker", "compose", "--profile", "observability", "config", "--quiet"],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr


def test_the_parts_are_there_and_watching_is_a_profile() -> None:
    assert list(SERVICES) == ["postgres", "migrate", "dagster", "service", "prometheus", "grafana"]
    profiles = {name: service.get("profiles") for name, service in SERVICES.items()}
    watching = ["observability"]
    assert profiles["prometheus"] == profiles["grafana"] == watching
    assert not any(profiles[name] for name in ("postgres", "migrate", "dagster", "service"))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_careful(name: str) -> None:
    service = SERVICES[name]
    assert service["init"] is True
    assert "restart" in service
    assert "privileged" not in service
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), port
    for volume in service.get("volumes", ()):
        assert "docker.sock" not in volume
        source = volume.split(":")[0]
        is_ours = source.startswith("./")
        assert source in COMPOSE["volumes"] or is_ours or source.startswith("${")
        if is_ours:
            assert (ROOT / source).exists()
            assert volume.endswith(":ro")
    if "image" in service:
        assert re.fullmatch(r"[a-z/]+:v?\d[\d.]*", service["image"]), service["image"]
    else:
        assert (ROOT / service["build"] / "Dockerfile").exists()


def test_no_password_is_written_down_and_each_is_asked_for() -> None:
    for name, service in SERVICES.items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|DSN|SECRET|TOKEN|KEY", variable):
                assert "${BACKTEST_" in value, (name, variable)
        # A process's arguments are seen by everybody on the machine.
        assert "${" not in str(service.get("command", ""))
    assert "${BACKTEST_DB_PASSWORD:?" in TEXT
    guard = SERVICES["grafana"]["entrypoint"][-1].replace("$$", "$")
    without = subprocess.run(
        ["/bin/sh", "-c", guard.replace("exec /run.sh", "echo begins")],
        env={"GF_SECURITY_ADMIN_PASSWORD": ""},
        capture_output=True,
        text=True,
    )
    assert (without.returncode, without.stdout) == (1, "")
    assert "BACKTEST_GRAFANA_PASSWORD" in without.stderr


def test_each_waits_for_what_it_needs() -> None:
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("dagster", "service"):
        condition = SERVICES[name]["depends_on"]["migrate"]["condition"]
        assert condition == "service_completed_successfully"
    assert "/readyz" in str(SERVICES["service"]["healthcheck"]["test"])
    assert SERVICES["service"]["volumes"] == SERVICES["dagster"]["volumes"]


def test_prometheus_scrapes_the_service_where_it_listens() -> None:
    config = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == ["service"]
    secret = job["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    assert secret in SERVICES["prometheus"]["secrets"]
    variable = COMPOSE["secrets"][secret]["environment"]
    token = SERVICES["service"]["environment"]["BACKTEST_SERVICE_METRICS_TOKEN"]
    assert token == f"${{{variable}:-}}"
    published = SERVICES["service"]["ports"][0].rpartition(":")[2]
    assert str(found["port"]) == published


def test_the_image_runs_as_nobody_special_and_says_how_it_is() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    (user,) = [line for line in lines if line.startswith("USER")]
    assert user != "USER root"
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    assert not any(re.match(r"(ENV|ARG).*(PASSWORD|DSN|TOKEN|KEY)", line) for line in lines)
