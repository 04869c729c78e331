"""How a command opens the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from backtest_pipeline.cli.console import progress_shown
from backtest_pipeline.market.errors import AmbiguousName, InvalidInput, UnknownName

if TYPE_CHECKING:
    from backtest_pipeline.cli.options import SpecOptions
    from backtest_pipeline.pipeline.specs import StrategySpec
    from backtest_pipeline.pipeline.workspace import Workspace
    from backtest_pipeline.storage.settings import Settings

S = TypeVar("S", bound="StrategySpec")


@contextmanager
def open_store() -> Iterator[Workspace]:
    """The migrated store, open, with its progress shown on stderr."""
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
def open_store_for(
    options: SpecOptions[S], signal: str | None
) -> Iterator[tuple[Workspace, Settings, S]]:
    """The open store, the settings, and the validated spec.

    Args:
        options: the command's values for the fields of the spec.
        signal: `--signal`, the shorthand for a strategy or a preset.

    Raises:
        UnknownName, InvalidInput: for a spec that is invalid whatever the store holds, before the
            store is opened; for a `signal` that is neither a strategy nor a preset, after it.
    """
    from backtest_pipeline.pipeline.given_rules import strategies_for
    from backtest_pipeline.pipeline.soundness import require_sound
    from backtest_pipeline.pipeline.workspace import use_strategies
    from backtest_pipeline.storage.settings import load_settings

    settings = load_settings()
    use_strategies(settings)
    spec = _without_store(options, signal) if signal else options.spec()
    most = getattr(spec, "max_combinations", None) or 0
    require_sound(spec, max(most, settings.optimizer_max_combinations))
    with open_store() as workspace:
        spec = _spec_of_signal(workspace, options, signal) if signal else spec
        with strategies_for(spec) as named:
            yield workspace, settings, named


def _without_store(options: SpecOptions[S], signal: str) -> S:
    """The spec as far as it can be told without the presets of the store."""
    from backtest_pipeline.strategies.registry import named

    if options.values.get("strategy") or options.values.get("preset"):
        raise InvalidInput("--signal is short for --strategy or --preset: give only one of them")
    try:
        strategy = named(signal).strategy
    except (UnknownName, AmbiguousName):
        is_preset = "preset" in options.kind.model_fields
        return options.updated(**{"preset": signal} if is_preset else {"param": None}).spec()
    return options.updated(strategy=strategy).spec()


def _spec_of_signal(workspace: Workspace, options: SpecOptions[S], signal: str) -> S:
    from backtest_pipeline.pipeline.presets import active_presets
    from backtest_pipeline.strategies.registry import named

    presets = {preset.name: preset for preset in active_presets(workspace)}
    match = named(signal, presets)
    if match.preset and "preset" in options.kind.model_fields:
        return options.updated(preset=match.preset).spec()
    # Walk-forwards choose the parameters themselves: of a preset only the strategy counts.
    strategy = presets[match.preset].strategy if match.preset else match.strategy
    return options.updated(strategy=strategy).spec()
