"""`make pin` writes one set of files, in which each image has its digest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from backtest_pipeline_tests.deploy.registry_server import DIGEST, RegistryServer
from backtest_pipeline_tests.ops.compose_file import GIVEN, resolved
from deploy.charts import merged
from deploy.images import KUBERNETES, OURS, Image, of_compose, read_values
from deploy.pin import PINNED, chosen, named, pin
from deploy.registry import DigestNotFound

KUBECTL = shutil.which("kubectl")


@pytest.fixture
def images(registry: RegistryServer) -> dict[str, Image]:
    """All images, as a registry of one's own has them."""
    names = chosen({OURS: f"{registry.host}/desk/backtest-pipeline:0.1.0"})
    own = {
        variable: Image.of(f"{registry.host}/{image.repository}:{image.tag}")
        for variable, image in names.items()
    }
    registry.tags = {(image.repository, image.tag) for image in own.values()}
    return own


@pytest.fixture
def folder(images: dict[str, Image], tools: Path) -> Path:
    """The files, beside a copy of those that they build on."""
    folder = tools.parent / "deploy" / "pinned"
    shutil.copytree(KUBERNETES, folder.parent / "k8s")
    pin(images, folder)
    return folder


def test_all_images_are_pinned_and_ours_once_it_is_published() -> None:
    others = ("BUSYBOX", "GRAFANA", "POSTGRES", "PROMETHEUS", "PYTHON")
    known = {f"{name}_IMAGE" for name in others}
    assert set(chosen({})) == known
    assert set(of_compose()) == known - {"BUSYBOX_IMAGE"} | {OURS}
    given = {OURS: "r.example.com/b:1", "POSTGRES_IMAGE": "r.example.com/pg:18"}
    found = chosen(given)
    assert {name: str(found[name]) for name in given} == given


def test_images_are_named_as_for_compose_and_ours_stays_named(
    folder: Path, images: dict[str, Image], tmp_path: Path
) -> None:
    of_compose = tmp_path / ".env"
    assert named({}, of_compose, tmp_path / "nothing") == {}
    # Without its digest, so that it follows the tag as the others do.
    assert named({}, of_compose, folder) == {OURS: str(images[OURS])}
    of_compose.write_text(
        "#GRAFANA_IMAGE=\nPOSTGRES_IMAGE=postgres:17\nBACKTEST_DB_PASSWORD='a$b'\n"
    )
    assert named({}, of_compose, folder)["POSTGRES_IMAGE"] == "postgres:17"
    assert str(chosen(named({}, of_compose, folder))["POSTGRES_IMAGE"]) == "postgres:17"
    given = {"POSTGRES_IMAGE": "postgres:16", OURS: "r.example.com/b:2"}
    assert named(given, of_compose, folder).items() >= given.items()
    before = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
    pin(chosen({**{n: str(i) for n, i in images.items()}, **named({}, tmp_path, folder)}), folder)
    after = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_compose_starts_them_by_their_digests(folder: Path, images: dict[str, Image]) -> None:
    lines = (folder / "images.env").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert variables == {name: f"{image}@{DIGEST}" for name, image in images.items()}
    services = resolved({**GIVEN, **variables})["services"]
    assert {service["image"] for service in services.values()} <= set(variables.values())
    assert services["migrate"]["build"]["args"]["PYTHON_IMAGE"] == variables["PYTHON_IMAGE"]


@pytest.mark.skipif(KUBECTL is None, reason="no kubectl on this machine")
@pytest.mark.parametrize(("name", "pods"), [("k8s", 2), ("k8s-pool", 1)])
def test_kustomize_replaces_our_image(
    folder: Path, images: dict[str, Image], name: str, pods: int
) -> None:
    answer = subprocess.run(
        [str(KUBECTL), "kustomize", str(folder / name)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    named = [line.split()[-1] for line in answer.stdout.splitlines() if " image: " in line]
    assert named == [f"{images[OURS].name}@{DIGEST}"] * pods


@pytest.mark.parametrize(
    ("edited", "name"),
    [
        (
            "  - {name: busybox, newTag: '1'}\n  - {name: backtest-pipeline, newName: r.io/b}\n",
            "r.io/b",
        ),
        ("  - {name: backtest-pipeline, newTag: '1'}\n", "backtest-pipeline"),
        ("  []\n", "backtest-pipeline"),
    ],
)
def test_the_kustomization_names_our_image_as_what_it_builds_on_does(
    images: dict[str, Image], tools: Path, monkeypatch: pytest.MonkeyPatch, edited: str, name: str
) -> None:
    own = tools.parent / "deploy" / "k8s"
    shutil.copytree(KUBERNETES, own)
    for path in own.rglob("kustomization.yaml"):
        before, *_ = path.read_text().partition("images:\n")
        path.write_text(f"{before}images:\n{edited}")
    monkeypatch.setattr("deploy.pin.KUBERNETES", own)
    pin(images, own.parent / "pinned")
    written = [yaml.safe_load(path.read_text()) for path in own.parent.glob("pinned/*/kust*")]
    assert [one["images"][0]["name"] for one in written] == [name] * 2


def test_the_charts_start_them_by_their_digests(folder: Path, images: dict[str, Image]) -> None:
    ours = {"repository": images[OURS].name, "tag": f"0.1.0@{DIGEST}"}
    before = read_values("values-dagster.yaml")
    values = merged(before, yaml.safe_load((folder / "values-dagster.yaml").read_text()))
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    for part in (values["dagsterWebserver"], values["dagsterDaemon"], deployment):
        assert part["image"] == {**ours, "pullPolicy": "IfNotPresent"}
    assert values["busybox"]["image"]["tag"] == f"1.37.0@{DIGEST}"
    # All else is as it was.
    (known,) = before["dagster-user-deployments"]["deployments"]
    assert {**deployment, "image": known["image"]} == known
    workers = merged(
        read_values("values-dask.yaml"), yaml.safe_load((folder / "values-dask.yaml").read_text())
    )
    assert workers["worker"]["image"].items() >= ours.items()
    assert workers["worker"]["image"]["dask_worker"] == "dask"


def test_nothing_is_written_where_one_is_missing(
    images: dict[str, Image], registry: RegistryServer, tools: Path
) -> None:
    registry.tags.pop()
    with pytest.raises(DigestNotFound, match="is not there"):
        pin(images, tools / "pinned")
    assert not (tools / "pinned").exists()


def test_the_files_go_where_the_document_says() -> None:
    text = (KUBERNETES.parents[1] / "docs" / "kubernetes.md").read_text()
    assert PINNED.relative_to(KUBERNETES.parents[1]).as_posix() in text
