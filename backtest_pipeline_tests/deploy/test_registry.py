"""Digests are found as registries tell them, and nothing is taken for one that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtest_pipeline_tests.deploy.registry_server import DIGEST, RegistryServer
from backtest_pipeline_tests.ports import free_port
from deploy.images import BadImage, Image
from deploy.registry import TOOLS, DigestNotFound, digest_of, of_registry

OTHER = f"sha256:{'ab' * 32}"
BEARER = 'Bearer realm="{realm}",service="registry",scope="repository:desk/tool:pull"'


@pytest.fixture
def image(registry: RegistryServer) -> Image:
    return Image.of(f"{registry.host}/desk/tool:1.2.3")


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("postgres:18.4", "docker.io", "library/postgres", "18.4", ""),
        ("docker.io/busybox:1.37.0", "docker.io", "library/busybox", "1.37.0", ""),
        ("prom/prometheus:v3.5.0", "docker.io", "prom/prometheus", "v3.5.0", ""),
        ("ghcr.io/a/b/c:1", "ghcr.io", "a/b/c", "1", ""),
        ("localhost:5000/a:1", "localhost:5000", "a", "1", ""),
        (f"postgres:18.4@{OTHER}", "docker.io", "library/postgres", "18.4", OTHER),
    ],
)
def test_a_name_is_read_as_docker_reads_it(
    text: str, registry: str, repository: str, tag: str, digest: str
) -> None:
    image = Image.of(text)
    found = (image.registry, image.repository, image.tag, image.digest)
    assert found == (registry, repository, tag, digest)
    assert str(image) == text


@pytest.mark.parametrize(
    "text", ["postgres", "", "a b:1", "postgres:18@sha256:ab", "UPPER:1", ":1"]
)
def test_a_name_without_a_tag_is_none(text: str) -> None:
    with pytest.raises(BadImage, match="names no image with a tag"):
        Image.of(text)


def test_the_digest_is_the_one_that_the_registry_names(
    image: Image, registry: RegistryServer
) -> None:
    assert of_registry(image) == DIGEST
    ((method, path, accepted),) = registry.asked
    assert (method, path) == ("HEAD", "/v2/desk/tool/manifests/1.2.3")
    # That of all kinds of machines, not of one.
    assert accepted.startswith("application/vnd.oci.image.index.v1+json")


def test_without_a_header_it_is_the_hash_of_the_manifest(
    image: Image, registry: RegistryServer
) -> None:
    registry.says_digest = None
    assert of_registry(image) == DIGEST
    assert [method for method, *_ in registry.asked] == ["HEAD", "GET"]


def test_a_header_that_is_no_digest_is_refused(image: Image, registry: RegistryServer) -> None:
    registry.says_digest = "latest"
    with pytest.raises(DigestNotFound, match="answers with 'latest', which is no digest"):
        of_registry(image)


def test_a_registry_that_wants_a_token_gets_the_one_that_it_gives(
    image: Image, registry: RegistryServer
) -> None:
    registry.challenge = BEARER
    assert of_registry(image) == DIGEST
    assert registry.scopes == [{"service": ["registry"], "scope": ["repository:desk/tool:pull"]}]


@pytest.mark.parametrize(
    ("challenge", "token", "says"),
    [
        (BEARER, "of-somebody-else", "needs a login"),
        (BEARER, None, "gave no token"),
        (BEARER, ["a"], "gave no token"),
        ('Basic realm="desk"', "", "needs a login"),
        ('Bearer realm="http://tokens.example.com/"', "", "gives tokens without TLS"),
    ],
)
def test_one_that_wants_more_says_what_helps(
    image: Image, registry: RegistryServer, challenge: str, token: object, says: str
) -> None:
    registry.challenge, registry.token = challenge, token
    with pytest.raises(DigestNotFound, match=says):
        of_registry(image)


def test_a_tag_that_there_is_not_is_told(registry: RegistryServer) -> None:
    with pytest.raises(DigestNotFound, match=r"desk/tool:9 is not there: .* no such image or tag"):
        of_registry(Image.of(f"{registry.host}/desk/tool:9"))


def test_without_a_network_it_says_so_and_what_to_do(tools: Path) -> None:
    image = Image.of(f"127.0.0.1:{free_port()}/desk/tool:1")
    with pytest.raises(DigestNotFound, match=r"cannot be reached .* where there is a network"):
        digest_of(image)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_is_asked_first_for_it_knows_logins(
    tool: str, image: Image, registry: RegistryServer, tools: Path
) -> None:
    said = tools / "said"
    program = tools / tool
    program.write_text(f'#!/bin/sh\necho "$@" > {said}\necho {OTHER}\n')
    program.chmod(0o755)
    assert digest_of(image) == OTHER
    assert said.read_text().split()[-1].removeprefix("docker://") == str(image)
    assert "{{{" not in said.read_text()
    assert registry.asked == []


def test_where_a_tool_fails_the_registry_is_asked(
    image: Image, registry: RegistryServer, tools: Path
) -> None:
    for tool, script in {"crane": "echo no such login >&2; exit 1", "skopeo": "echo 1.2.3"}.items():
        (tools / tool).write_text(f"#!/bin/sh\n{script}\n")
        (tools / tool).chmod(0o755)
    assert digest_of(image) == DIGEST
    registry.tags.clear()
    with pytest.raises(DigestNotFound, match=r"crane says: no such login; skopeo says: 1\.2\.3; "):
        digest_of(image)
