"""`make pin`: writes the digests of all images, where there is a network.

A tag may mean another image tomorrow; a digest never does. Images are named as for Compose, by
variables of the environment or of `.env`, so that `POSTGRES_IMAGE=... make pin` pins another one.
Ours is named once: later it is the one that has been pinned. Nothing is written unless every digest
was found.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.images import (
    KUBERNETES,
    OURS,
    ROOT,
    BadImage,
    Image,
    of_compose,
    of_kubernetes,
    read_values,
)
from deploy.registry import DigestNotFound, digest_of

PINNED = ROOT / "deploy" / "pinned"
OF_COMPOSE = ROOT / ".env"
_IMAGES = "images.env"
_NAME = "backtest-pipeline"
"""Of our image in the manifests."""
# Names of images need no quotes, but may have them.
_VARIABLE = re.compile(r"""^\s*([A-Z]+_IMAGE)=["']?([^\s"'#]+)""", re.MULTILINE)
_WRITTEN = "# Written by `make pin`; run it again to follow the tags.\n"
_UNPUBLISHED = (
    f"{OURS} is not set: the image that is built here has no digest. Push it, and name it:"
    f" {OURS}=registry.example.com/desk/backtest-pipeline:0.1.0 make pin"
)


def named(
    environment: Mapping[str, str], of_compose: Path = OF_COMPOSE, folder: Path = PINNED
) -> dict[str, str]:
    """The variables that name images: of the environment, before those of the user's `.env`.

    Where neither names ours, it is the one that `folder` has pinned, by its tag: some files there
    would otherwise still name it, and others not.
    """
    of_user = {**_variables(of_compose), **environment}
    if not of_user.get(OURS) and (known := _variables(folder / _IMAGES).get(OURS)):
        of_user[OURS] = known.partition("@")[0]
    return of_user


def _variables(file: Path) -> dict[str, str]:
    return dict(_VARIABLE.findall(file.read_text())) if file.is_file() else {}


def chosen(environment: Mapping[str, str]) -> dict[str, Image]:
    """The images to pin by their variables; ours only if it is named.

    Args:
        environment: the variables, as `named` finds them.

    Raises:
        BadImage: for a variable that names no image with a tag.
    """
    images = of_compose() | of_kubernetes()
    for variable in images:
        if given := environment.get(variable):
            images[variable] = Image.of(given)
    if not environment.get(OURS):
        images.pop(OURS, None)
    return images


def pin(
    images: Mapping[str, Image], folder: Path = PINNED, find: Callable[[Image], str] = digest_of
) -> dict[str, Image]:
    """Look up the digest of each image and write the files of `folder`.

    Returns:
        The pinned images by their variables.

    Raises:
        DigestNotFound: where one is not found; then nothing is written.
    """
    pinned = {variable: image.pinned(find(image)) for variable, image in images.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in _files(pinned, folder).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_suffix(".new")
        unfinished.write_text(_WRITTEN + text)
        unfinished.replace(path)
    return pinned


def _files(pinned: Mapping[str, Image], folder: Path) -> dict[str, str]:
    files = {_IMAGES: "".join(f"{variable}={image}\n" for variable, image in pinned.items())}
    dagster: dict[str, Any] = {}
    if busybox := pinned.get("BUSYBOX_IMAGE"):
        dagster["busybox"] = {"image": _with_tag(busybox)}
    if ours := pinned.get(OURS):
        base = Path(os.path.relpath(KUBERNETES, folder))
        for name, part in (("k8s", "."), ("k8s-pool", "pool")):
            before = _named_in(KUBERNETES / part)
            text = _kustomization(Path("..") / base / part, before, ours)
            files[f"{name}/kustomization.yaml"] = text
        of_ours = {"image": _with_tag(ours)}
        # Helm takes a list from one file alone, so the deployment is written out.
        (deployment,) = read_values("values-dagster.yaml")["dagster-user-deployments"][
            "deployments"
        ]
        deployment["image"] |= _with_tag(ours)
        dagster |= {
            "dagsterWebserver": of_ours,
            "dagsterDaemon": of_ours,
            "pipelineRun": of_ours,
            "dagster-user-deployments": {"deployments": [deployment]},
        }
        files["values-dask.yaml"] = _yaml({"worker": {"image": _with_tag(ours)}})
    if dagster:
        files["values-dagster.yaml"] = _yaml(dagster)
    return files


def _with_tag(image: Image) -> dict[str, str]:
    # Charts join the two by a colon.
    return {"repository": image.name, "tag": f"{image.tag}@{image.digest}"}


def _named_in(folder: Path) -> str:
    """The name of our image after a kustomization, in which the user may have named another."""
    written = yaml.safe_load((folder / "kustomization.yaml").read_text())
    new = {image["name"]: image.get("newName") for image in written.get("images") or ()}
    return new.get(_NAME) or _NAME


def _kustomization(base: Path, before: str, image: Image) -> str:
    return _yaml(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [base.as_posix()],
            "images": [{"name": before, "newName": image.name, "digest": image.digest}],
        }
    )


class _Plain(yaml.SafeDumper):
    """Writes what is there twice twice, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.dump(dict(content), Dumper=_Plain, sort_keys=False, width=100)


def main() -> None:
    """Pin the images that the environment and the files name."""
    try:
        images = chosen(named(os.environ))
        pinned = pin(images)
    except (BadImage, DigestNotFound) as error:
        sys.exit(f"make pin: {error}")
    for image in pinned.values():
        print(image)  # noqa: T201
    if OURS not in pinned:
        print(_UNPUBLISHED)  # noqa: T201
    print(f"written to {PINNED.relative_to(ROOT)}; docs/kubernetes.md says how they are used")  # noqa: T201


if __name__ == "__main__":
    main()
