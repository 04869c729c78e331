"""`backtest-pipeline`: the commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from backtest_pipeline.cli import (
    bars,
    explore,
    jobs,
    leaderboard,
    portfolio,
    replay,
    retention,
    robustness,
    run,
    runs,
    serve,
    walk_forward,
)
from backtest_pipeline.cli.console import console, fail
from backtest_pipeline.cli.options import Bars, FullRebuild, split
from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.storage.logs import set_up_logging

app = typer.Typer(
    help="Crypto features to trusted backtests: bars, features, signals, backtests, portfolios.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(leaderboard.app)
app.add_typer(bars.app, name="bars")
app.add_typer(replay.app)
app.add_typer(runs.app, name="runs")
app.add_typer(retention.app)
app.add_typer(jobs.app, name="jobs")
app.add_typer(serve.app)


@app.command()
def demo() -> None:
    """Run the whole pipeline on the synthetic sample market and show the results."""
    from backtest_pipeline.cli import refresh as refreshing

    refreshing.demo()


_ranges = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command()(run.run)
app.command(context_settings=_ranges)(explore.explore)
app.command()(robustness.robustness)
app.command("walk-forward", context_settings=_ranges)(walk_forward.walk_forward)
app.command()(portfolio.portfolio)


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
    from backtest_pipeline.cli import refresh as refreshing

    refreshing.refresh(
        assets=split(assets),
        timeframes=split(timeframes),
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
    from backtest_pipeline.cli import trials as counting

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
    from backtest_pipeline.cli import look_ahead as probing

    probing.look_ahead(
        assets=split(assets),
        timeframes=split(timeframes),
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
    from backtest_pipeline.cli import restatements as watching

    watching.restatements(
        assets=split(assets) or None, timeframes=split(timeframes) or None, as_json=as_json
    )


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address of the Dagster UI.")] = "127.0.0.1",
) -> None:
    """Start the store, the Dagster UI, its daemon and the code location; Ctrl-C ends all."""
    from backtest_pipeline.cli import up as serving

    serving.up(host, port)


@app.command()
def migrate() -> None:
    """Bring the database schema up to date."""
    from backtest_pipeline.cli import up as serving

    serving.migrate()


@app.command()
def doctor() -> None:
    """Check settings, store, schema, artifacts and disk, and say how to mend what is wrong."""
    from backtest_pipeline.cli import up as serving

    serving.doctor()


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
