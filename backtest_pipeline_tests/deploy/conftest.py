"""A registry of images, and no tools but those that a test makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backtest_pipeline_tests.deploy.registry_server import RegistryServer, registry_server


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with registry_server() as server:
        yield server


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are found; empty at first."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder
