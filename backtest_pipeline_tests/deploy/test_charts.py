"""Values are held against a chart: names that it does not know, and types that are not its own."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest
import yaml

from deploy.charts import CHARTS, Chart, ChartUnavailable, fetch, merged, problems_of
from deploy.images import ROOT, read_values

DAGSTER, DASK = CHARTS
TYPES = "https://types.example.com/v1.19.0/_definitions.json#/definitions"


def _chart(folder: Path, chart: Chart, schema: dict[str, Any] | None = None) -> Path:
    """A chart that knows all values of ours."""
    folder.mkdir(exist_ok=True)
    (folder / "values.yaml").write_text(yaml.safe_dump(read_values(chart.values)))
    if schema:
        (folder / "values.schema.json").write_text(json.dumps(schema))
    return folder


def _schema(webserver: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"dagsterWebserver": {"properties": webserver}}}


def test_values_that_the_chart_knows_are_sound(tmp_path: Path) -> None:
    found = {"replicaCount": {"type": "integer"}, "service": {"required": ["port"]}}
    assert problems_of(DAGSTER, _chart(tmp_path, DAGSTER, _schema(found))) == []
    assert problems_of(DASK, _chart(tmp_path, DASK)) == []


def test_a_value_that_the_chart_does_not_know_is_named(tmp_path: Path) -> None:
    values = read_values(DASK.values)
    del values["worker"]["threads_per_worker"]
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    (found,) = problems_of(DASK, tmp_path)
    assert found == "worker.threads_per_worker: the chart has no such value"
    # Some are in a comment alone, or in a template.
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "pod.yaml").write_text("{{ .Values.worker.threads_per_worker }}")
    assert problems_of(DASK, tmp_path) == []


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"service": {"properties": {"port": {"type": "string"}}}}, "service.port: 3000 is not of"),
        ({"securityContext": {"$ref": f"{TYPES}/io.k8s.api.core.v1.Probe"}}, ""),
        ({"readinessProbe": {"$ref": f"{TYPES}/io.k8s.api.core.v1.SecurityContext"}}, "httpGet"),
        ({"securityContext": {"$ref": f"{TYPES}/io.k8s.api.core.v1.SecurityContext"}}, ""),
    ],
)
def test_a_schema_may_refer_to_the_types_of_kubernetes(
    tmp_path: Path, part: dict[str, Any], says: str
) -> None:
    found = problems_of(DAGSTER, _chart(tmp_path, DAGSTER, _schema(part)))
    assert bool(found) == bool(says)
    assert says in "".join(found)


def test_values_are_joined_as_helm_does() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merged(base, {"a": {"c": [3]}, "d": {"e": 2}}) == {
        "a": {"b": 1, "c": [3]},
        "d": {"e": 2},
    }
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


def test_a_folder_without_a_chart_is_told(tmp_path: Path) -> None:
    with pytest.raises(ChartUnavailable, match="holds no chart"):
        problems_of(DASK, tmp_path)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """The address of the index of a repository with our version of Dask's chart."""
    files = tmp_path / "repository"
    files.mkdir()
    with tarfile.open(files / "dask.tgz", "w:gz") as archive:
        text = (ROOT / "deploy" / "k8s" / DASK.values).read_bytes()
        entry = tarfile.TarInfo("dask/values.yaml")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    entries = {"dask": [{"version": DASK.version, "urls": ["dask.tgz"]}]}
    (files / "index.yaml").write_text(yaml.safe_dump({"entries": entries}))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=files))
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/index.yaml"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_chart_is_fetched_in_exactly_its_version(tmp_path: Path, repository: str) -> None:
    chart = replace(DASK, index=repository)
    with httpx2.Client() as client:
        folder = fetch(chart, tmp_path, client)
        assert problems_of(chart, folder) == []
        with pytest.raises(ChartUnavailable, match=r"has no dask 1999\.1\.1"):
            fetch(replace(chart, version="1999.1.1"), tmp_path, client)
        with pytest.raises(ChartUnavailable, match="404"):
            fetch(replace(chart, index=f"{repository}.not"), tmp_path, client)
