"""How a command opens the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from backtest_pipeline.cli.console import progress_shown
from backtest_pipeline.market.errors import InvalidInput

if TYPE_CHECKING:
    from backtest_pipeline.cli.options import Typed
    from backtest_pipeline.pipeline.specs import SpecModel
    from backtest_pipeline.pipeline.workspace import Workspace
    from backtest_pipeline.storage.settings import Settings

S = TypeVar("S", bound="SpecModel")


@contextmanager
def open_store() -> Iterator[Workspace]:
    """The open store, migrated, that shows its progress."""
    with progress_shown() as progress:
        progress("loading", 0, 1)
        from backtest_pipeline.cli.up import ensure_schema
        from backtest_pipeline.pipeline.workspace import open_workspace
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings()
        ensure_schema(settings)
        with open_workspace(settings, progress=progress) as workspace:
            progress("loading", 1, 1)
            yield workspace


@contextmanager
def opened_for(typed: Typed[S], signal: str | None) -> Iterator[tuple[Workspace, Settings, S]]:
    """The open store, the settings, and the spec that was typed.

    Args:
        typed: what was typed of it.
        signal: the short way to name a strategy or a preset, if given.

    Raises:
        InvalidInput: for a spec that makes no sense, before anything is opened where it shows.
    """
    wanted = None if signal else typed.spec()
    with open_store() as workspace:
        from backtest_pipeline.storage.settings import load_settings

        yield workspace, load_settings(), wanted or _named(workspace, typed, signal or "")


def _named(workspace: Workspace, typed: Typed[S], signal: str) -> S:
    from backtest_pipeline.storage.tables.dimensions import active_signals
    from backtest_pipeline.strategies.registry import named

    if typed.options.get("strategy") or typed.options.get("preset"):
        raise InvalidInput("--signal is short for --strategy or --preset: give one of them")
    with workspace.database.begin() as connection:
        presets = {preset.name: preset for preset in active_signals(connection)}
    found = named(signal, presets)
    if found.preset and "preset" in typed.kind.model_fields:
        return typed.adding(preset=found.preset).spec()
    # Where parameters are chosen, those of a preset do not count.
    strategy = presets[found.preset].strategy if found.preset else found.strategy
    return typed.adding(strategy=strategy).spec()
