"""`backtest-pipeline strategies`: those shipped and your own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtest_pipeline.cli.console import console, fail, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson, Params

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.strategy_check import StrategyCheck
    from backtest_pipeline.strategies.cross_section.definition import CrossSection
    from backtest_pipeline.strategies.known_strategies import Catalogue
    from backtest_pipeline.strategies.own.loading import Loaded, LoadedCrossSection

Name = Annotated[str, typer.Argument(metavar="NAME", help="A strategy, in full or short.")]

app = typer.Typer()
strategies = typer.Typer(
    name="strategies", help="List, show, check and begin strategies.", no_args_is_help=True
)
app.add_typer(strategies)


def _catalogue() -> Catalogue:
    from backtest_pipeline.pipeline.workspace import use_strategies
    from backtest_pipeline.strategies.known_strategies import catalogue

    use_strategies()
    return catalogue()


@strategies.command("list")
def list_strategies(*, as_json: AsJson = False) -> None:
    """List all strategies, and files that cannot be loaded with the reason."""
    found = _catalogue()
    rows = [_row(one) for one in found.known.values()]
    ranking = [
        {"cross_section": name, "version": one.hash, "origin": one.origin}
        for name, one in found.cross_sections.items()
    ]
    if as_json:
        refused = dict(found.refused)
        print_json({"strategies": rows, "cross_sections": ranking, "refused": refused})
        return
    shown = [
        {
            "strategy": one.strategy.name,
            "parameters": ", ".join(f"{k} {v}" for k, v in row["parameters"].items()) or "-",
            "from": one.source.main if one.source and not one.source.is_package else one.origin,
        }
        for one, row in zip(found.known.values(), rows, strict=True)
    ]
    console.print(rows_table("Strategies", shown))
    if ranking:
        console.print(rows_table("Strategies that rank a universe", ranking))
    for name, why in found.refused.items():
        say(f"{name} cannot be used: {why}")


def _row(one: Loaded) -> dict[str, Any]:
    strategy = one.strategy
    return {
        "strategy": strategy.name,
        "version": one.hash,
        "origin": one.origin,
        "parameters": strategy.telling(strategy.parse({})),
        "presets": {name: dict(params) for name, params in strategy.presets.items()},
    }


@strategies.command()
def show(name: Name, *, as_json: AsJson = False) -> None:
    """Show a strategy's parameters, its columns, stops, cooldown, sizing, grid and files."""
    from backtest_pipeline.pipeline.runs.identity import simulation_config, without_defaults
    from backtest_pipeline.simulation.config import SimulationConfig
    from backtest_pipeline.simulation.rules import config_for
    from backtest_pipeline.strategies.registry import strategy_of

    found = _catalogue()
    if name in found.cross_sections:
        _show_cross_section(found.cross_sections[name], as_json=as_json)
        return
    one = found.known[strategy_of(name).name]
    strategy = one.strategy
    defaults = strategy.parse({})
    schema = strategy.params_type.model_json_schema()["properties"]
    about = {
        **_row(one),
        "description": strategy.description,
        "parameters": {
            field: {"default": value, **_bounds(schema[field])}
            for field, value in defaults.model_dump().items()
        },
        "columns": list(strategy.columns(defaults)),
        "account": without_defaults(
            simulation_config(config_for(SimulationConfig(), strategy, defaults))
        ),
        "grid": {axis: list(values) for axis, values in strategy.grid.items()},
        "files": sorted(one.source.files) if one.source else [],
    }
    if as_json:
        print_json(about)
        return
    say(f"{strategy.name}, version {one.hash}, {one.origin}")
    if strategy.description:
        say(strategy.description)
    rows = [
        {"parameter": field, **{key: str(value) for key, value in facts.items()}}
        for field, facts in about["parameters"].items()
    ]
    if rows:
        keys = dict.fromkeys(key for row in rows for key in row)
        console.print(
            rows_table("Parameters", [{key: row.get(key, "") for key in keys} for row in rows])
        )
    say(f"reads {', '.join(about['columns']) or 'no column'} at its defaults")
    for rule, value in about["account"].items():
        fields = value if isinstance(value, Mapping) else {"": value}
        told = ", ".join(f"{name} {given}".strip() for name, given in fields.items())
        say(f"{rule} at its defaults, where a run names none: {told}")
    for axis, values in about["grid"].items():
        say(f"explored: {axis} {', '.join(map(str, values))}")
    for preset, params in about["presets"].items():
        say(f"preset {preset}: {', '.join(f'{k} {v}' for k, v in params.items()) or 'defaults'}")


def _show_cross_section(one: LoadedCrossSection, *, as_json: bool) -> None:
    about = {
        "cross_section": one.rule.name,
        "version": one.hash,
        "origin": one.origin,
        "description": one.rule.description,
        **one.rule.document(),
        "columns": list(one.rule.reads),
    }
    if as_json:
        print_json(about)
        return
    say(f"{one.rule.name}, version {one.hash}, {one.origin}")
    if one.rule.description:
        say(one.rule.description)
    rows = [{"field": key, "value": str(value)} for key, value in one.rule.document().items()]
    console.print(rows_table("Cross-section", rows))
    say(f"reads {', '.join(one.rule.reads)}")


def _bounds(schema: Mapping[str, Any]) -> dict[str, Any]:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    allowed = [schema, *schema.get("anyOf", [])]
    return {word: one[key] for key, word in words.items() for one in allowed if key in one}


@strategies.command()
def check(name: Name, *, param: Params = None, as_json: AsJson = False) -> None:
    """Load a strategy, probe it for look-ahead, time it, and count its conditions.

    It is tried on the daily bars of the sample market. Exit code 1 where anything is wrong.
    """
    from backtest_pipeline.pipeline.spec_options import params_from
    from backtest_pipeline.pipeline.strategy_check import check_strategy
    from backtest_pipeline.pipeline.workspace import use_strategies
    from backtest_pipeline.strategies.known_strategies import catalogue, try_again
    from backtest_pipeline.strategies.registry import strategy_of

    use_strategies()
    try_again()
    ranking = catalogue().cross_sections.get(name)
    if ranking is not None:
        _check_cross_section(ranking.rule, as_json=as_json)
        return
    strategy = strategy_of(name)
    found = check_strategy(strategy, params_from(param or ()))
    if as_json:
        print_json(
            {
                "strategy": strategy.name,
                "rows": found.rows,
                "milliseconds": round(found.milliseconds, 3),
                "true_bars": dict(found.true_bars),
                "signals": dict(found.signals),
                "changed_by_history": {str(n): v for n, v in found.changed_by_history.items()},
                "invented": list(found.invented),
            }
        )
        return
    _show_check(strategy.name, found)


def _check_cross_section(rule: CrossSection, *, as_json: bool) -> None:
    from backtest_pipeline.pipeline.cross_section.ranked_check import check_cross_section
    from backtest_pipeline.report.json_values import plain

    found = check_cross_section(rule)
    if as_json:
        print_json({"cross_section": rule.name, **plain(vars(found))})
        return
    say(
        f"{rule.name}: no look-ahead found in {found.probes} other futures of all assets; "
        f"{found.milliseconds:.1f} ms for {found.rows:,} daily bars"
    )
    for title, figures in (("Rebalances", found.rebalances), ("Information", found.figures)):
        rows = [
            {"figure": name, "value": None if math.isnan(value) else value}
            for name, value in figures.items()
        ]
        console.print(rows_table(f"{title} on the sample market", rows))


def _show_check(name: str, found: StrategyCheck) -> None:
    say(f"{name}: no look-ahead found; {found.milliseconds:.1f} ms for {found.rows:,} daily bars")
    if found.invented:
        say(f"{', '.join(found.invented)}: random values here; `run` reads yours (docs/columns.md)")
    rows = [
        {"condition": side, "bars": bars, "signals": found.signals[side]}
        for side, bars in found.true_bars.items()
    ]
    console.print(rows_table("Sample market", rows))
    if not (found.true_bars["long_entry"] or found.true_bars["short_entry"]):
        fail(f"{name} never enters on the sample market; loosen its conditions")
    for bars, share in found.changed_by_history.items():
        say(f"with a history of {bars:,} bars, {share:.2%} of the conditions after it differ")


@strategies.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new strategy.")],
    *,
    base: Annotated[
        str, typer.Option("--from", help="Strategy to copy as Python; default: rules in TOML.")
    ] = "",
) -> None:
    """Begin a strategy of your own in the folder of strategies."""
    from backtest_pipeline.storage.settings import load_settings
    from backtest_pipeline.strategies.own.template import make_folder, new_strategy

    folder = load_settings().strategies_folder
    make_folder(folder)
    path = new_strategy(folder, name, base, _catalogue().known)
    say(f"{path}")
    say(f"edit it, then: backtest-pipeline strategies check {name}")
