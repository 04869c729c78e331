"""A vectorbt that is missing or of another version is named, with the command to install it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.simulation.vectorbt_engine import library


def test_a_missing_vectorbt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        if name == "vectorbt-rust":
            raise PackageNotFoundError(name)
        return library.VECTORBT_VERSION

    monkeypatch.setattr(library, "version", missing)
    with pytest.raises(ConfigurationError, match=r"vectorbt-rust is not installed; .*pip install"):
        library.vectorbt_library()


def test_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "version", lambda _: "0.28.5")
    with pytest.raises(ConfigurationError, match=r"vectorbt 0.28.5 is installed, .*==1\.2\.0"):
        library.vectorbt_library()


def test_vectorbt_is_not_imported_with_the_engines() -> None:
    imported = "import sys, backtest_pipeline.simulation.batch; print('vectorbt' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", imported], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "False"
