"""Manifests are valid, agree with each other and with the program, and give pods little."""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import PurePosixPath
from typing import Any

import kubernetes_validate
import pytest
from pydantic import SecretStr

from backtest_pipeline.defs.processes.health import HEARTBEAT_S
from backtest_pipeline.pipeline.monitoring.notices import NoticeSettings
from backtest_pipeline.service.routes.health import router
from backtest_pipeline.service.settings import ServiceSettings, load_service_settings
from backtest_pipeline.storage.settings import Settings, load_settings
from backtest_pipeline.strategist.llm.settings import LlmSettings
from backtest_pipeline_tests.deploy.manifests import (
    FOLDERS,
    OF_BUCKETS,
    kustomizations,
    manifests,
    named,
    of_dagster,
    pods,
    settings,
)
from deploy.charts import KUBERNETES_VERSION
from deploy.images import KUBERNETES, ROOT, Image, of_kubernetes, read_values

KINDS = (Settings, ServiceSettings, LlmSettings, NoticeSettings)
FIELDS = {f"BACKTEST_{name}".upper(): f for k in KINDS for name, f in k.model_fields.items()}
SECRETS = (KUBERNETES / "secrets.env.example").read_text()
WORKERS = read_values("values-dask.yaml")["worker"]
DAGSTER = read_values("values-dagster.yaml")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
OURS = "backtest-pipeline"


@pytest.mark.parametrize("name", manifests())
def test_a_manifest_is_valid(name: str) -> None:
    manifest = manifests()[name]
    for version in (KUBERNETES_VERSION, kubernetes_validate.latest_version()):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_field_that_there_is_not_would_be_found() -> None:
    manifest = copy.deepcopy(manifests()["Deployment/backtest-service"])
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["livenesProbe"] = container.pop("livenessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


def test_every_file_is_applied_or_is_for_a_chart() -> None:
    for folder in FOLDERS:
        applied = {*kustomizations()[folder.name]["resources"], "kustomization.yaml"}
        of_charts = {"values-dagster.yaml", "values-dask.yaml"} if folder == KUBERNETES else set()
        assert {path.name for path in folder.glob("*.yaml")} == applied | of_charts
        assert kustomizations()[folder.name]["namespace"] == "backtest"


def test_images_are_exact_and_each_can_be_replaced() -> None:
    for pod in pods().values():
        # The kustomization gives it a tag.
        assert [container["image"] for container in pod["spec"]["containers"]] == [OURS]
    for kustomization in kustomizations().values():
        (image,) = kustomization["images"]
        assert image == {"name": OURS, "newName": OURS, "newTag": VERSION}
    parts = [part for name, part in of_dagster().items() if name != "runs"]
    for part in [*parts, DAGSTER["pipelineRun"], {"image": WORKERS["image"]}]:
        image = part["image"]
        assert (image["repository"], image["tag"]) == (OURS, VERSION)
        assert image["pullPolicy"] == "IfNotPresent"
    for image in of_kubernetes().values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", image.tag), image
    assert Image.of(f"{OURS}:{VERSION}")


def test_settings_are_known_and_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings()
    assert set(given) - set(FIELDS) == {"NUMBA_CACHE_DIR"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", "postgresql://u:p@h/d")
    found = load_settings()
    assert found.run_store_mode == "postgres"
    assert found.artifacts_bucket
    # What is written lies where pods may write.
    home = PurePosixPath(given["BACKTEST_HOME"])
    assert PurePosixPath(given["NUMBA_CACHE_DIR"]).is_relative_to(home)
    container = pods()["backtest-service"]["spec"]["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert set(environment) <= set(FIELDS)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (port,) = container["ports"]
    assert load_service_settings().service_port == port["containerPort"]
    assert load_service_settings().service_auth == "on"


def test_no_secret_is_among_the_settings_and_each_has_its_name_in_the_example() -> None:
    secret = {name for name, field in FIELDS.items() if SecretStr in _types(field.annotation)}
    assert "BACKTEST_POSTGRES_DSN" in secret
    lines = [line for line in SECRETS.splitlines() if line and not line.startswith("#")]
    assert all(line.endswith("=") for line in lines)  # names alone
    assert {line.removesuffix("=") for line in lines} == secret | OF_BUCKETS
    assert set(settings()) & (secret | OF_BUCKETS) == set()


def _types(annotation: Any) -> set[Any]:
    return {annotation, *getattr(annotation, "__args__", ())}


def test_what_is_named_elsewhere_is_there() -> None:
    parts = [*pods().values(), *of_dagster().values(), WORKERS, DAGSTER["runLauncher"]]
    maps = {name for part in parts for name in named(part, "configMapRef", "envConfigMaps")}
    maps |= set(named(WORKERS, "configMapKeyRef"))
    secrets = {name for part in parts for name in named(part, "secretRef", "envSecrets")}
    secrets |= set(named(WORKERS, "secretKeyRef"))
    assert maps == {"backtest-settings"}
    assert secrets == {"backtest-secrets"}
    certificates = {name for part in parts for name in named(part, "secretName")}
    assert certificates == {"backtest-pool-certificates"}
    accounts = {name for part in parts for name in named(part, "serviceAccountName")}
    accounts.add(DAGSTER["dagster-user-deployments"]["serviceAccount"]["name"])
    assert accounts == {"backtest"}
    assert "ServiceAccount/backtest" in manifests()
    document = (ROOT / "docs" / "kubernetes.md").read_text()
    for name in ("backtest-secrets", *certificates):
        assert f"create secret generic {name}" in document


def test_probes_ask_what_the_service_answers() -> None:
    routes = {getattr(route, "path", "") for route in router.routes}
    container = pods()["backtest-service"]["spec"]["containers"][0]
    for kind in ("startup", "liveness", "readiness"):
        asked = container[f"{kind}Probe"]["httpGet"]
        assert asked["path"] in routes
        assert asked["port"] == container["ports"][0]["name"]
    # A store that is out of reach takes a pod out of the Service, and does not restart it.
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    grace = ServiceSettings.model_fields["service_grace_s"].default
    spec = pods()["backtest-service"]["spec"]
    (_, waits) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert spec["terminationGracePeriodSeconds"] > grace + int(waits)


def test_liveness_is_asked_of_what_is_deployed() -> None:
    of_charts = of_dagster()
    for name, pod in pods().items():
        is_job = f"Job/{name}" in manifests()
        assert is_job or "livenessProbe" in pod["spec"]["containers"][0], name
    assert of_charts["webserver"]["livenessProbe"]["httpGet"]["path"] == "/server_info"
    for part, name in {"daemon": "daemon", "code": "code-server"}.items():
        probe = of_charts[part]["livenessProbe"]
        assert probe["exec"]["command"][:3] == [OURS, "health", name]
    assert (
        f":{of_charts['code']['port']}" in of_charts["code"]["livenessProbe"]["exec"]["command"][-1]
    )
    # An outage of the database alone is not to restart the daemon, which outlasts it.
    probe = of_charts["daemon"]["livenessProbe"]
    given = probe["periodSeconds"] * probe["failureThreshold"]
    assert given > HEARTBEAT_S + Settings.model_fields["store_retry_s"].default


def test_no_service_gives_pods_variables_that_look_like_settings() -> None:
    """Kubernetes sets `NAME_PORT`, `NAME_SERVICE_HOST` and others for each Service."""
    services = {name.partition("/")[2] for name in manifests() if name.startswith("Service/")}
    services.add(of_dagster()["code"]["name"])
    assert services == {"pipeline-service", "pipeline-scheduler", "pipeline-code"}
    # The charts' pods cannot do without them.
    for pod in pods().values():
        assert pod["spec"]["enableServiceLinks"] is False
    assert of_dagster()["runs"]["runK8sConfig"]["podSpecConfig"]["enableServiceLinks"] is False


@pytest.mark.parametrize("part", ["service", "scheduler"])
def test_services_lead_to_their_pods(part: str) -> None:
    name = f"backtest-{part}"
    service = manifests()[f"Service/pipeline-{part}"]["spec"]
    pod = pods()[name]
    (port,) = service["ports"]
    (open_port,) = pod["spec"]["containers"][0]["ports"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    assert (port["targetPort"], port["port"]) == (open_port["name"], open_port["containerPort"])
    selector = manifests()[f"Deployment/{name}"]["spec"]["selector"]["matchLabels"]
    assert selector == service["selector"]
    policy = manifests()[f"NetworkPolicy/{name}"]["spec"]
    assert policy["podSelector"]["matchLabels"] == selector
    assert policy["ingress"][0]["ports"] == [{"port": port["port"]}]


def test_the_code_server_has_one_port_and_one_name() -> None:
    code = of_dagster()["code"]
    (server,) = DAGSTER["dagsterWebserver"]["workspace"]["servers"]
    assert (server["host"], server["port"]) == (code["name"], code["port"])
    arguments = code["dagsterApiGrpcArgs"]
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert given["--location-name"] == server["name"] == "backtest_pipeline"
    assert given["--module-name"] == "backtest_pipeline.definitions"
    assert str(code["port"]) in str(code["readinessProbe"])
    assert str(code["port"]) in code["startupProbe"]["exec"]["command"]
    policy = manifests()["NetworkPolicy/backtest-code-server"]["spec"]
    assert policy["ingress"][0]["ports"] == [{"port": code["port"]}]


def test_pods_may_do_little() -> None:
    uid = re.search(r"--uid (\d+)", (ROOT / "Dockerfile").read_text())
    assert uid
    uids = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), int(uid[1]))
    specs = {name: pod["spec"] for name, pod in pods().items()}
    contexts = [spec["securityContext"] for spec in specs.values()]
    contexts += [part["podSecurityContext"] for part in of_dagster().values()]
    for context in [*contexts, WORKERS["securityContext"]]:
        profile = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert context == {**uids, **profile}
    containers = [spec["containers"][0] for spec in specs.values()]
    for container in [*containers, *of_dagster().values()]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    for container in [*containers, *of_dagster().values(), {"volumeMounts": [], **WORKERS}]:
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        mounts = container["volumeMounts"] or WORKERS["mounts"]["volumeMounts"]
        writable = {m["mountPath"] for m in mounts if not m.get("readOnly")}
        assert writable == {settings()["BACKTEST_HOME"], "/tmp"}  # noqa: S108
    for spec in specs.values():
        assert spec["automountServiceAccountToken"] is False
    runs = of_dagster()["runs"]["runK8sConfig"]["podSpecConfig"]
    assert runs["automountServiceAccountToken"] is False
    assert DAGSTER["dagster-user-deployments"]["rbacEnabled"] is False


def test_only_what_is_served_is_reached() -> None:
    policies = {n: m["spec"] for n, m in manifests().items() if n.startswith("NetworkPolicy/")}
    nothing = policies["NetworkPolicy/backtest-nothing-else"]
    assert nothing == {"podSelector": {}, "policyTypes": ["Ingress"]}
    everywhere = [
        name for name, spec in policies.items() if "namespaceSelector" in str(spec.get("ingress"))
    ]
    assert everywhere == ["NetworkPolicy/backtest-service"]
