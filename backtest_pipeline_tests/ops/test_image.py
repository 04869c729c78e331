"""The image is built from exact versions, holds no tools of tests, and what it installs runs."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from fnmatch import fnmatch
from pathlib import Path

import pytest

from backtest_pipeline_tests.ops.compose_file import ROOT

LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
BUILD, IMAGE = (
    "\n".join(LINES).split("\nFROM ")[1].splitlines(),
    "\n".join(LINES).split("\nFROM ")[2].splitlines(),
)
BIN = Path(sys.executable).parent


def copied(stage: list[str]) -> list[str]:
    """What a stage takes from the tree."""
    copies = [shlex.split(line)[1:] for line in stage if line.startswith("COPY")]
    return [path for *paths, _ in copies for path in paths if not path.startswith("--from=")]


def test_hadolint_finds_nothing() -> None:
    found = subprocess.run([BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_what_is_copied_is_there_and_is_not_ignored() -> None:
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"]
    assert ignore[0] == "*"
    sources = [path for path in copied(BUILD) + copied(IMAGE) if path != "/wheels"]
    assert sorted(f"!{path}" for path in sources) == sorted(x for x in ignore if x[0] == "!")
    for path in sources:
        assert (ROOT / path).exists()
    assert any(fnmatch("backtest_pipeline/__pycache__", pattern) for pattern in ignore[1:])


def test_the_base_is_exact_and_another_one_can_be_named() -> None:
    (base,) = [line for line in LINES if line.startswith("ARG")]
    assert re.fullmatch(r"ARG PYTHON_IMAGE=python:3\.1[123]\.\d+-slim-[a-z]+", base)
    assert {line.split()[1] for line in LINES if line.startswith("FROM")} == {"${PYTHON_IMAGE}"}


def test_only_the_lock_of_the_product_is_installed() -> None:
    installed = [line for line in IMAGE if "pip install" in line]
    assert [re.findall(r"-r (\S+)|(/wheels/\S+)", line) for line in installed] == [
        [("requirements.lock", "")],
        [("", "/wheels/*.whl")],
    ]
    assert all("--no-deps" in line for line in installed + BUILD if "pip " in line)
    assert all("--require-hashes" in line for line in LINES if " -r " in line)


def test_the_image_runs_as_nobody_special_and_says_how_it_is() -> None:
    (user,) = [line for line in IMAGE if line.startswith("USER")]
    assert re.fullmatch(r"USER [1-9]\d+:[1-9]\d+", user)
    assert any(line.startswith("HEALTHCHECK") for line in IMAGE)
    assert not any(re.match(r"(ENV|ARG).*(PASSWORD|DSN|TOKEN|KEY)", line) for line in LINES)
    (command,) = [line for line in IMAGE if line.startswith("CMD")]
    # An address that the command refuses would have the container end at once.
    assert ("0.0.0.0" in command) == ("--allow-remote" in command)  # noqa: S104


def built_wheel(folder: Path) -> Path:
    """The wheel, built from what the first stage copies and by its command."""
    source = folder / "source"
    source.mkdir()
    for path in copied(BUILD):
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, source / path, ignore=shutil.ignore_patterns("*.pyc"))
        else:
            shutil.copy(ROOT / path, source / path)
    (command,) = [line.removeprefix("RUN ") for line in BUILD if "pip wheel" in line]
    arguments = shlex.split(command.replace("/wheels", str(folder / "wheels")))
    built = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=source, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "wheels").glob("*.whl")
    return wheel


def environment_of_the_lock(folder: Path) -> Path:
    """A virtual environment with what the product's lock names, and nothing else.

    Its files are links to those that are installed here in the same versions, so that no network is
    needed. Returns its interpreter.
    """
    venv.create(folder, symlinks=True)
    lock = (ROOT / "requirements.lock").read_text()
    wanted = set(re.findall(r"^([a-zA-Z0-9._-]+)==", lock, re.MULTILINE))
    installed, site = Path(sysconfig.get_path("purelib")), next(folder.glob("lib/*/site-packages"))
    for distribution in importlib.metadata.distributions(path=[str(installed)]):
        if re.sub(r"[-_.]+", "-", distribution.name).lower() not in wanted:
            continue
        for file in distribution.files or ():
            if file.parts[0] != ".." and (installed / file).exists():
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                (site / file).symlink_to(installed / file)
    return folder / "bin" / "python"


def imported() -> set[str]:
    """The packages of others that any module imports, also where it does so in a function."""
    found: set[str] = set()
    for path in (ROOT / "backtest_pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - {"backtest_pipeline"}


_MISSING = """
import importlib.util, sys
print(" ".join(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))
"""
TOOLS = {"pytest", "hypothesis", "moto", "playwright", "hatchling", "boto3", "flask"}


@pytest.mark.slow
def test_the_wheel_runs_in_an_environment_of_the_products_lock_alone(open_folder: Path) -> None:
    folder = open_folder / "image"
    folder.mkdir()
    wheel = built_wheel(folder)
    python = environment_of_the_lock(folder / "venv")
    pip = ("-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index")
    subprocess.run([sys.executable, *pip, str(wheel)], check=True)
    outside = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BACKTEST_", "PYTHON", "DAGSTER"))
    }
    environment = {**outside, "BACKTEST_HOME": str(folder / "home")}

    def run(*command: str) -> str:
        found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    missing = run(str(python), "-c", _MISSING, *imported(), *TOOLS)
    assert set(missing.split()) == TOOLS
    where = run(str(python), "-c", "import backtest_pipeline; print(backtest_pipeline.__file__)")
    assert where.startswith(str(folder))
    program = str(python.with_name("backtest-pipeline"))
    version = importlib.metadata.version("backtest-pipeline")
    assert run(program, "--version") == f"backtest-pipeline {version}\n"
    migrated = run(program, "migrate", "--artifacts")
    assert "is writable, and belongs to this database" in migrated
