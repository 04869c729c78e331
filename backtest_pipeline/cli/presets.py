"""`backtest-pipeline presets`: named parameters that every refresh computes."""

from __future__ import annotations

from typing import Annotated

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson, Params
from backtest_pipeline.cli.store import open_store

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the preset.")]

app = typer.Typer()
presets = typer.Typer(name="presets", help="List, add and remove presets.", no_args_is_help=True)
app.add_typer(presets)


@presets.command("list")
def list_presets(*, as_json: AsJson = False) -> None:
    """List the active presets, and those that refreshes leave out with the reason."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.presets import active_presets, left_out_presets

        active = active_presets(workspace)
        left_out = left_out_presets(workspace)
    if as_json:
        rows = [
            {"preset": one.name, "strategy": one.strategy, "params": one.params} for one in active
        ]
        print_json({"presets": rows, "left_out": left_out})
        return
    if active:
        shown = [
            {
                "preset": one.name,
                "strategy": one.strategy,
                "parameters": ", ".join(f"{k} {v}" for k, v in one.params.items()) or "defaults",
            }
            for one in active
        ]
        console.print(rows_table("Presets", shown))
    else:
        say("no preset is active; `presets add` registers one")
    for name, why in left_out.items():
        say(f"preset {name} is left out: {why}")


@presets.command()
def add(
    name: Name,
    *,
    strategy: Annotated[str, typer.Option(help="Strategy, in full or short.")],
    param: Params = None,
) -> None:
    """Add a preset: every refresh computes it from now on."""
    from backtest_pipeline.pipeline.spec_options import params_from

    params = params_from(param or ())
    with open_store() as workspace:
        from backtest_pipeline.pipeline.presets import register_preset

        row = register_preset(workspace, name, strategy, params)
    values = ", ".join(f"{k} {v}" for k, v in row.params.items()) or "its defaults"
    say(f"preset {row.name}: {row.strategy} with {values}; the next refresh computes it")


@presets.command()
def remove(name: Name) -> None:
    """Let refreshes compute a preset no more; its stored runs stay."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.presets import remove_preset

        remove_preset(workspace, name)
    say(f"preset {name} is removed; its stored runs stay until retention deletes them")
