"""`make charts`: checks the values in deploy/k8s against the charts that they are for.

    make charts                     # fetches the charts, where there is a network
    make charts CHARTS=/some/where  # holds `dagster` and `dask`, from `helm pull --untar`

Dagster's chart has a schema, whose references to Kubernetes' own types are taken from
kubernetes-validate, in strict form: a field that there is not is told. Dask's has none. Of both,
each name is looked up among those that the chart's files mention. Where helm is installed, the
charts are rendered as well, and the result is validated.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import yaml

from deploy.images import KUBERNETES, read_values

KUBERNETES_VERSION = "1.32.0"
_VALUES, _SCHEMA = "values.yaml", "values.schema.json"


class ChartUnavailable(Exception):
    """A chart could not be read or fetched; the message says why."""


@dataclass(frozen=True)
class Chart:
    """A chart that the values of one file are for.

    Attributes:
        name: also of its release.
        version: the one that the values were written for.
        index: address of the index of its repository.
    """

    name: str
    version: str
    index: str

    @property
    def values(self) -> str:
        """The file with our values."""
        return f"values-{self.name}.yaml"


CHARTS = (
    Chart("dagster", "1.13.27", "https://dagster-io.github.io/helm/index.yaml"),
    Chart("dask", "2024.1.1", "https://helm.dask.org/index.yaml"),
)


def problems_of(chart: Chart, folder: Path) -> list[str]:
    """What is wrong with our values for a chart, a sentence each; empty if nothing is.

    Args:
        chart: the chart.
        folder: its unpacked files.

    Raises:
        ChartUnavailable: where the folder has no chart.
    """
    try:
        text = (folder / _VALUES).read_text()
    except OSError as error:
        raise ChartUnavailable(f"{folder} holds no chart: {error}") from None
    ours, theirs = read_values(chart.values), yaml.safe_load(text)
    # Some values are named in comments or read by templates alone.
    told = "\n".join([text, *(path.read_text() for path in folder.rglob("templates/**/*.*"))])
    found = [f"{name}: the chart has no such value" for name in _unknown(ours, theirs, told)]
    if (folder / _SCHEMA).is_file():
        schema = json.loads((folder / _SCHEMA).read_text())
        found += _against_schema(merged(theirs, ours), schema)
    return found


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values as Helm joins them: mappings key by key, all else whole."""
    out = dict(base)
    for key, value in over.items():
        known = out.get(key)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            out[key] = merged(known, value)
        else:
            out[key] = value
    return out


def _unknown(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], told: str, where: str = ""
) -> Iterator[str]:
    """Names of ours that the chart does not know, neither among its values nor elsewhere."""
    for key, value in ours.items():
        name = f"{where}{key}"
        if key not in theirs and not re.search(rf"\b{re.escape(key)}\b", told):
            yield name
        known = theirs.get(key)
        # A mapping that is empty there is whatever Kubernetes takes.
        if isinstance(value, Mapping) and isinstance(known, Mapping) and known:
            yield from _unknown(value, known, told, f"{name}.")


def _against_schema(values: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    from jsonschema.validators import validator_for
    from referencing import Registry, Resource

    def retrieve(uri: str) -> Resource[Any]:
        return _kubernetes_types()  # whatever version of them it names

    registry: Registry[Any] = Registry(retrieve=retrieve)  # pyright: ignore[reportCallIssue]
    validator = validator_for(schema)(schema, registry=registry)
    return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(values)]


@cache
def _kubernetes_types() -> Any:
    import kubernetes_validate
    from referencing import Resource
    from referencing.jsonschema import DRAFT202012

    package = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    path = package / f"v{KUBERNETES_VERSION}-local-strict" / "_definitions.json"
    types = json.loads(path.read_text())
    types.pop("$id", None)  # it would be its own address, and not the one that was asked for
    definitions = types["$defs"]
    # The chart puts `enabled` into probes, and takes it out again.
    definitions["io.k8s.api.core.v1.Probe"]["additionalProperties"] = True
    return Resource.from_contents({**types, "definitions": definitions}, DRAFT202012)


def fetch(chart: Chart, into: Path, client: httpx2.Client) -> Path:
    """Fetch a chart of exactly its version and unpack it; returns its folder.

    Raises:
        ChartUnavailable: where its repository cannot be reached or does not have it.
    """
    try:
        index = yaml.safe_load(client.get(chart.index).raise_for_status().text)
        entries = index["entries"].get(chart.name, [])
        urls = [entry["urls"][0] for entry in entries if entry["version"] == chart.version]
        if not urls:
            raise ChartUnavailable(f"{chart.index} has no {chart.name} {chart.version}")
        address = httpx2.URL(chart.index).join(urls[0])
        packed = client.get(address).raise_for_status().content
    except httpx2.HTTPError as error:
        raise ChartUnavailable(
            f"{chart.index}: {type(error).__name__}: {error}; `make charts CHARTS=FOLDER` checks"
            " charts that you have"
        ) from None
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(into, filter="data")
    return into / chart.name


def rendered(chart: Chart, folder: Path) -> list[str]:
    """What `helm template` and kubernetes-validate say against a chart with our values."""
    import kubernetes_validate

    given = ("--namespace", "backtest", "--values", str(KUBERNETES / chart.values))
    command = ["helm", "template", chart.name, str(folder), *given]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return [f"helm template: {answer.stderr.strip()}"]
    found = []
    for manifest in filter(None, yaml.safe_load_all(answer.stdout)):
        try:
            kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{manifest['kind']} {manifest['metadata']['name']}: {error}")
    return found


def main(arguments: list[str]) -> None:
    """Check all charts: those of a folder that is named, or fetched ones."""
    with tempfile.TemporaryDirectory() as fetched:
        wrong = 0
        for chart in CHARTS:
            try:
                if arguments:
                    folder = Path(arguments[0]) / chart.name
                else:
                    with httpx2.Client(timeout=60, follow_redirects=True) as client:
                        folder = fetch(chart, Path(fetched), client)
                found = problems_of(chart, folder)
            except ChartUnavailable as error:
                sys.exit(f"make charts: {error}")
            if shutil.which("helm"):
                found += rendered(chart, folder)
            wrong += len(found)
            for problem in found or ["its values are sound"]:
                print(f"{chart.name} {chart.version}: {problem}")  # noqa: T201
        if wrong:
            sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
