"""Fixtures that all rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real market data; tests that need it are skipped where it is absent."""
    folder = Path(
        os.environ.get("BACKTEST_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
    )
    if not folder.is_dir():
        pytest.skip(f"no market data at {folder}; set BACKTEST_TEST_DATA")
    return folder
