"""`backtest-pipeline`: the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from backtest_pipeline.cli import (
    assumed,
    bars,
    jobs,
    offering,
    ranking,
    replaying,
    results,
    retaining,
)
from backtest_pipeline.cli.console import console, fail
from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.storage.logs import set_up_logging

app = typer.Typer(
    help="Crypto features to trusted backtests: bars, features, signals, backtests, portfolios.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(ranking.app)
app.add_typer(bars.app, name="bars")
app.add_typer(replaying.app)
app.add_typer(results.app, name="runs")
app.add_typer(retaining.app)
app.add_typer(jobs.app, name="jobs")
app.add_typer(offering.app)

Bars = Annotated[
    Path | None,
    typer.Option(
        "--bars",
        help="File or folder of bars, or binance:1h; else BACKTEST_BARS or the sample market.",
    ),
]
FullRebuild = Annotated[
    bool, typer.Option("--full-rebuild", help="Compute also what has not changed.")
]


@app.command()
def demo() -> None:
    """Run the whole pipeline on the synthetic sample market and show the results."""
    from backtest_pipeline.cli import refreshing

    refreshing.demo()


@app.command()
@assumed.assuming
def run(
    *,
    signal: Annotated[str, typer.Option(help="Signal name or type, for example rsi or ema_9_21.")],
    asset: Annotated[str, typer.Option(help="Symbol, for example BTC.")],
    tf: Annotated[str, typer.Option(help="Timeframe, for example 1D.")] = "1D",
    assumptions: assumed.Compared,
    bars: Bars = None,
    full_rebuild: FullRebuild = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Backtest one signal on one asset, and store the run."""
    from backtest_pipeline.cli import running

    running.run(
        signal=signal,
        asset=asset,
        tf=tf,
        assumptions=assumptions,
        bars=str(bars or ""),
        full_rebuild=full_rebuild,
        as_json=as_json,
    )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@assumed.assuming
def explore(
    *,
    context: typer.Context,
    indicator: Annotated[
        str, typer.Argument(help="ema, rsi, atr, bollinger, macd, or any signal type.")
    ],
    asset: Annotated[str, typer.Option(help="Symbol, for example BTC.")],
    tf: Annotated[str, typer.Option(help="Timeframe, for example 1D.")] = "1D",
    assumptions: assumed.Assumed,
    bars: Bars = None,
    metric: Annotated[str, typer.Option(help="Metric of docs/metrics.md to rank by.")] = "sharpe",
    max_combinations: Annotated[int, typer.Option(help="More than these are refused.")] = 20_000,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("exploration.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Sweep an indicator's parameters on one asset: a heat map as one HTML page, and a table.

    Parameters are options with a range, after the indicator: --fast 5:50:5 --slow 20,50,200.
    A parameter that is not given takes a range of its own.
    """
    from backtest_pipeline.cli import exploring

    exploring.explore(
        indicator,
        context.args,
        asset=asset,
        tf=tf,
        assumptions=assumptions,
        bars=str(bars or ""),
        metric=metric,
        max_combinations=max_combinations,
        output=output,
        as_json=as_json,
    )


@app.command()
@assumed.assuming
def robustness(
    *,
    signal: Annotated[str, typer.Option(help="Signal name or type, for example rsi or ema_9_21.")],
    asset: Annotated[str, typer.Option(help="Symbol, for example BTC.")],
    tf: Annotated[str, typer.Option(help="Timeframe, for example 1D.")] = "1D",
    assumptions: assumed.Compared,
    bars: Bars = None,
    draws: Annotated[int, typer.Option(help="Repetitions of each random method.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    full_rebuild: FullRebuild = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Backtest one signal on one asset, and tell how far the result can be trusted."""
    from backtest_pipeline.cli import doubting

    doubting.robustness(
        signal=signal,
        asset=asset,
        tf=tf,
        assumptions=assumptions,
        bars=str(bars or ""),
        draws=draws,
        seed=seed,
        full_rebuild=full_rebuild,
        as_json=as_json,
    )


@app.command(
    "walk-forward", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
@assumed.assuming
def walk_forward(
    *,
    context: typer.Context,
    signal: Annotated[str, typer.Option(help="Signal name or type, for example ema.")],
    asset: Annotated[str, typer.Option(help="Symbol, for example BTC.")],
    tf: Annotated[str, typer.Option(help="Timeframe, for example 1D.")] = "1D",
    train: Annotated[float, typer.Option(help="Days of a training window.")] = 365,
    test: Annotated[float, typer.Option(help="Days of a test window.")] = 90,
    step: Annotated[
        float | None, typer.Option(help="Days from test to test; those of a test if not given.")
    ] = None,
    mode: Annotated[str, typer.Option(help="rolling, expanding or anchored.")] = "rolling",
    dates: Annotated[
        list[str] | None,
        typer.Option(help="Instead: a fold's dates, 2020-01-01:2021-01-01:2021-04-01; repeatable."),
    ] = None,
    purge: Annotated[int, typer.Option(help="Bars left out before each test.")] = 0,
    embargo: Annotated[float, typer.Option(help="Share of a window left out besides.")] = 0.01,
    objective: Annotated[
        str, typer.Option(help="A metric, composite, or weights: sharpe=1,calmar=0.5")
    ] = "sharpe",
    search: Annotated[str, typer.Option(help="auto, grid, random or tpe.")] = "auto",
    max_combinations: Annotated[
        int | None, typer.Option(help="Else BACKTEST_OPTIMIZER_MAX_COMBINATIONS.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of a random or tpe search.")] = 0,
    assumptions: assumed.Assumed,
    bars: Bars = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the folds.")] = False,
    full_rebuild: FullRebuild = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Choose parameters on training windows, test each choice on the bars after, store all folds.

    The values to choose from are options with a range: --fast 5:50:5 --slow 20,50,200. A
    parameter that is not given takes a range of its own.
    """
    from backtest_pipeline.cli import walking

    walking.walk_forward(
        signal,
        context.args,
        asset=asset,
        tf=tf,
        schedule={"train": train, "test": test, "step": step, "mode": mode},
        dates=dates or (),
        gap={"purge": purge, "embargo": embargo},
        objective=objective,
        search={"method": search, "most": max_combinations, "seed": seed},
        assumptions=assumptions,
        bars=str(bars or ""),
        dry_run=dry_run,
        full_rebuild=full_rebuild,
        as_json=as_json,
    )


@app.command()
def refresh(
    assets: Annotated[
        str, typer.Option(help="Symbols, separated by commas; all of the source if not given.")
    ] = "",
    timeframes: Annotated[
        str, typer.Option(help="Timeframes, separated by commas; all of the project if not given.")
    ] = "",
    bars: Bars = None,
    full_rebuild: FullRebuild = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Refresh bars, features, signals, backtests and portfolios, as one Dagster run."""
    from backtest_pipeline.cli import refreshing

    refreshing.refresh(
        assets=_split(assets),
        timeframes=_split(timeframes),
        bars=str(bars or ""),
        full_rebuild=full_rebuild,
        as_json=as_json,
    )


@app.command()
def trials(
    asset: Annotated[str, typer.Option(help="Symbol, for example BTC.")],
    tf: Annotated[str, typer.Option(help="Timeframe, for example 1D.")] = "1D",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count what was tried on one asset, and deflate its runs' Sharpe ratios by it anew."""
    from backtest_pipeline.cli import counting

    counting.trials(asset=asset, tf=tf, as_json=as_json)


@app.command("look-ahead")
def look_ahead(
    assets: Annotated[
        str, typer.Option(help="Stored symbols, separated by commas; a sample if not given.")
    ] = "",
    timeframes: Annotated[
        str, typer.Option(help="Stored timeframes, separated by commas; all if not given.")
    ] = "",
    bars: Bars = None,
    seed: Annotated[int, typer.Option(help="Other seeds draw other cuts and futures.")] = 0,
    cuts: Annotated[int, typer.Option(help="Cuts of each timeframe.")] = 6,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Probe whether a feature or a signal uses bars that come after it."""
    from backtest_pipeline.cli import probing

    probing.look_ahead(
        assets=_split(assets),
        timeframes=_split(timeframes),
        bars=str(bars or ""),
        seed=seed,
        cuts=cuts,
        as_json=as_json,
    )


@app.command()
def restatements(
    assets: Annotated[str, typer.Option(help="Symbols, separated by commas; all if none.")] = "",
    timeframes: Annotated[
        str, typer.Option(help="Timeframes, separated by commas; all if none.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find history that was changed after runs had used it, and how much PnL that moved."""
    from backtest_pipeline.cli import watching

    watching.restatements(
        assets=_split(assets) or None, timeframes=_split(timeframes) or None, as_json=as_json
    )


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address of the Dagster UI.")] = "127.0.0.1",
) -> None:
    """Start the store, the Dagster UI, its daemon and the code location; Ctrl-C ends all."""
    from backtest_pipeline.cli import serving

    serving.up(host, port)


@app.command()
def migrate() -> None:
    """Bring the database schema up to date."""
    from backtest_pipeline.cli import serving

    serving.migrate()


@app.command()
def doctor() -> None:
    """Check settings, store, schema, artifacts and disk, and say how to mend what is wrong."""
    from backtest_pipeline.cli import serving

    serving.doctor()


def _split(names: str) -> list[str] | None:
    return [name.strip() for name in names.split(",") if name.strip()] or None


def main() -> None:
    """Run the command; errors of this project become a message and exit code 1."""
    set_up_logging()
    try:
        app()
    except BacktestError as error:
        fail(str(error))
    except KeyboardInterrupt:
        console.print("interrupted; what was stored stays, run the command again to go on")
        sys.exit(130)


if __name__ == "__main__":
    main()
