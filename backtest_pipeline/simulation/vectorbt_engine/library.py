"""The vectorbt that results are made with: its version, and its import."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from backtest_pipeline.market.errors import ConfigurationError

VECTORBT_VERSION = "1.2.0"
"""Part of the identity of runs that vectorbt simulates: another version may give other results."""
SIMULATED_VERSION = 1
"""Raise it when the same events on the same bars give other trades or equity with vectorbt."""
_PACKAGES = ("vectorbt", "vectorbt-rust")


def vectorbt_identity() -> tuple[str, str]:
    """Name and version of the engine, recorded with each run that vectorbt simulated."""
    return "vectorbt", f"{VECTORBT_VERSION}+{SIMULATED_VERSION}"


def vectorbt_library() -> Any:
    """The module `vectorbt`; the first call imports it, in about eight seconds of CPU time.

    Raises:
        ConfigurationError: where vectorbt or its Rust engine is missing or of another version than
            `VECTORBT_VERSION`, with the command that installs it.
    """
    for package in _PACKAGES:
        try:
            installed = version(package)
        except PackageNotFoundError as error:
            raise ConfigurationError(f"{package} is not installed; {_remedy()}") from error
        if installed != VECTORBT_VERSION:
            raise ConfigurationError(
                f"{package} {installed} is installed, but this version of backtest_pipeline "
                f"computes with {VECTORBT_VERSION}; {_remedy()}"
            )
    return import_module("vectorbt")


def _remedy() -> str:
    return (
        f"install it with: pip install 'vectorbt[rust]=={VECTORBT_VERSION}', or leave out what "
        "needs it (engine=account does not)"
    )
