"""What is deployed on Kubernetes, as its files say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from backtest_pipeline_tests.ops.compose_file import documented
from deploy.images import KUBERNETES, read_values

OF_BUCKETS = {n for n in documented() if n.startswith(("AWS_", "AZURE_", "GOOGLE_"))}
"""What names a bucket and lets in: the same variables as for Compose."""
FOLDERS = (KUBERNETES, KUBERNETES / "pool")


@cache
def kustomizations() -> dict[str, dict[str, Any]]:
    """The kustomizations by the name of their folder."""
    return {
        folder.name: yaml.safe_load((folder / "kustomization.yaml").read_text())
        for folder in FOLDERS
    }


@cache
def manifests() -> dict[str, dict[str, Any]]:
    """All manifests of ours, by kind and name; read once, so nobody may change them."""
    found = {}
    for folder in FOLDERS:
        for file in kustomizations()[folder.name]["resources"]:
            for manifest in yaml.safe_load_all((folder / file).read_text()):
                found[f"{manifest['kind']}/{manifest['metadata']['name']}"] = manifest
    return found


def pods() -> dict[str, dict[str, Any]]:
    """The pods of our manifests, by the name of what makes them: metadata and spec."""
    return {
        name.partition("/")[2]: manifest["spec"]["template"]
        for name, manifest in manifests().items()
        if "template" in manifest.get("spec", {})
    }


def of_dagster() -> dict[str, dict[str, Any]]:
    """What the values for Dagster's chart say of each kind of pod."""
    values = read_values("values-dagster.yaml")
    (code,) = values["dagster-user-deployments"]["deployments"]
    runs = values["runLauncher"]["config"]["k8sRunLauncher"]
    pod = runs["runK8sConfig"]["podSpecConfig"]
    container = runs["runK8sConfig"]["containerConfig"]
    contexts = {
        "podSecurityContext": pod["securityContext"],
        "securityContext": container["securityContext"],
    }
    return {
        "webserver": values["dagsterWebserver"],
        "daemon": values["dagsterDaemon"],
        "code": code,
        "runs": {**runs, **contexts},
    }


def settings() -> dict[str, str]:
    """The settings of all pods."""
    return manifests()["ConfigMap/backtest-settings"]["data"]


def named(part: Any, *keys: str) -> Iterator[str]:
    """The names below any of these keys, however deep."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key in keys:
                entries = value if isinstance(value, list) else [value]
                yield from (e["name"] if isinstance(e, Mapping) else e for e in entries)
            else:
                yield from named(value, *keys)
    elif isinstance(part, list):
        for value in part:
            yield from named(value, *keys)
