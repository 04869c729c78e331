"""`backtest-pipeline leaderboard`, `negative-controls` and `register-gates`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtest_pipeline.cli.console import (
    console,
    fail,
    print_json,
    rows_table,
    say,
)
from backtest_pipeline.cli.options import AnyTimeframe, AsJson
from backtest_pipeline.cli.store import open_store

if TYPE_CHECKING:
    from backtest_pipeline.storage.run_tables.engine_checks import EngineAgreement

app = typer.Typer()


@app.command()
def leaderboard(
    scheme: Annotated[
        str, typer.Option(help="Sort by a score: balanced, risk_focus, quality or low_cost.")
    ] = "",
    tf: AnyTimeframe = None,
    limit: Annotated[int, typer.Option(min=1, help="Runs to show.")] = 20,
    gates: Annotated[str, typer.Option(help="Name of a registered gate set.")] = "default",
    late_gates: Annotated[
        bool, typer.Option("--late-gates", help="Allow gates registered after the results.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rank all current runs by deflated Sharpe ratio, and show the best."""
    _rank(scheme=scheme, tf=tf, limit=limit, gates=gates, late_gates=late_gates, as_json=as_json)


@app.command()
def negative_controls(
    searches: Annotated[int, typer.Option(help="Searches per kind of random market.")] = 1000,
    bars: Annotated[int, typer.Option(help="Daily bars per random market.")] = 1461,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    gates: Annotated[str, typer.Option(help="Name of a registered gate set.")] = "default",
    planted: Annotated[
        str,
        typer.Option(
            help="Also search markets with an edge of these true yearly Sharpe ratios: 1,2,3."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Search random markets without an edge, and count how often one looks significant.

    With --planted, also how often an edge is found that is there.
    """
    _control(searches=searches, bars=bars, seed=seed, gates=gates, planted=planted, as_json=as_json)


@app.command()
def register_gates(
    name: Annotated[str, typer.Argument(help="Name of the gate set, for leaderboard --gates.")],
    file: Annotated[
        Path, typer.Argument(help="JSON list of gates: name, metric, at_least or at_most.")
    ],
) -> None:
    """Register a gate set before the runs that it will judge; it can never be changed."""
    _register(name, file)


def _say_agreement(found: EngineAgreement) -> None:
    say(found.told)
    for name in found.disagreeing:
        say(f"  differs from vectorbt: {name}")


def _rank(
    *, scheme: str, tf: str | None, limit: int, gates: str, late_gates: bool, as_json: bool
) -> None:
    """Publish the board of all current runs, and print the best of it."""
    from backtest_pipeline.research.ranking.leaderboard import scheme_of
    from backtest_pipeline.research.ranking.trials import CountingRule

    chosen = scheme_of(scheme).name if scheme else None
    with open_store() as workspace:
        from backtest_pipeline.pipeline.ranking.board_tables import shown_rows
        from backtest_pipeline.pipeline.ranking.leaderboard import publish_leaderboard

        board = publish_leaderboard(workspace, gates=gates, late_gates=late_gates)
    from backtest_pipeline.defs.assets.judgement import leaderboard_rows
    from backtest_pipeline.launch import report_stored

    report_stored("leaderboard", leaderboard_rows(board))
    rows = shown_rows(board, scheme=chosen, tf=tf, limit=limit)
    about = board.about
    n_unranked = len(board.rows) - about["n_ranked"]
    if as_json:
        print_json(
            {
                "board_id": about["board_id"],
                "published_at": about["published_at"].isoformat(),
                "gate_set": about["gate_set"],
                "gates": about["gates"],
                "registered_at": about["registered_at"].isoformat(),
                "registered_after_results": about["registered_after_results"],
                "open_gate_sets": about["open_gate_sets"],
                "gate_sets_not_shown": board.gate_sets_not_shown,
                "ranked": about["n_ranked"],
                "unranked": n_unranked,
                "passed": about["n_passed"],
                "followed_by_vectorbt": board.agreement.followed,
                "not_followed_by_vectorbt": dict(board.agreement.not_followed),
                "waiting_for_vectorbt": board.agreement.waiting,
                "worst_difference_to_vectorbt": board.agreement.worst,
                "differ_from_vectorbt": list(board.agreement.disagreeing),
                "runs": rows,
            }
        )
        return
    if not rows:
        where = f" at {tf}" if tf else ""
        fail(f"there is no ranked run{where}; run `backtest-pipeline refresh` first")
    title = f"by score {chosen}" if chosen else "by deflated Sharpe ratio"
    console.print(rows_table(f"Leaderboard {title}", rows))
    say(
        f"{about['n_ranked']} runs ranked, {n_unranked} unranked; {about['n_passed']} pass "
        f"every gate of {about['gate_set']!r}, registered {about['registered_at']:%F %T} UTC. "
        f"trials: {CountingRule.SETS} of the strategy, over all assets and timeframes."
    )
    _say_agreement(board.agreement)
    n_open, others = len(about["open_gate_sets"]), ", ".join(board.gate_sets_not_shown)
    say(
        f"{n_open} gate {'set was' if n_open == 1 else 'sets were'} registered before these "
        f"results; not shown: {others or 'none'}."
    )
    if about["registered_after_results"]:
        console.print(
            "[bold yellow]The gates were registered after results were known: "
            "passing them proves nothing.[/]"
        )


def _control(
    *, searches: int, bars: int, seed: int, gates: str, planted: str, as_json: bool
) -> None:
    """Run the searches on random markets, and print how many look significant."""
    from backtest_pipeline.pipeline.audits.negative_controls import (
        MOST_FALSE,
        Controls,
        believes_too_much,
        run_negative_controls,
        shown_controls,
        shown_power,
    )

    controls = Controls(searches, bars, seed, gates, _sharpes(planted))
    with open_store() as workspace:
        rows = run_negative_controls(workspace, controls)
    from backtest_pipeline.defs.assets.judgement import negative_controls_rows
    from backtest_pipeline.launch import report_stored

    report_stored("negative_controls", negative_controls_rows(rows))
    shown, power = shown_controls(rows), shown_power(rows)
    if as_json:
        print_json({"control_id": rows[0]["control_id"], "worlds": shown, "power": power})
    else:
        console.print(
            rows_table("False positives in markets without an edge", shown, percent=_RATES)
        )
        say(
            "rate: share of searches with a deflated Sharpe ratio of at least 95 %, corrected for "
            "choosing among strategies; upper_bound: upper 95 % confidence bound of that rate; "
            "best_run: share of strategies whose best run has one, as `run` prints it; "
            "walk_forward: share that passed; declared: share that would have passed if declared "
            "beforehand."
        )
        if power:
            found = [_with_errors(row) for row in power]
            console.print(rows_table("Power: markets with a planted edge", found))
            say(
                "shares that find the edge, with standard errors: the planted strategy's "
                "walk-forward, judged as one of all strategies' and as declared beforehand; "
                "searches with a significant run, and with one that passes all gates."
            )
    if believes_too_much(rows):
        fail(
            f"more than {MOST_FALSE:.0%} false positives in markets without an edge: do not trust "
            "what the leaderboard calls significant"
        )


_RATES = {
    *("best_by_psr", "dsr_in_family", "best_run", "walk_forward", "rate", "upper_bound"),
    *("declared", "passed_gates"),
}


def _with_errors(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of power with each share and its standard error in one cell, in percent."""
    errors = {f"{name}_se" for name in row} & row.keys()
    return {
        name: f"{value:.1%} ± {row[f'{name}_se']:.1%}" if f"{name}_se" in errors else value
        for name, value in row.items()
        if name not in errors
    }


def _sharpes(planted: str) -> tuple[float, ...]:
    """The Sharpe ratios of a list such as `1,2,3`."""
    try:
        return tuple(float(one) for one in planted.split(",") if one.strip())
    except ValueError:
        fail(f"--planted must be Sharpe ratios separated by commas, such as 1,2,3, not {planted!r}")


def _register(name: str, file: Path) -> None:
    """Register the gates of a JSON file under a name."""
    try:
        gates = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"{file}: {error}")
    if not isinstance(gates, list) or not all(isinstance(gate, dict) for gate in gates):
        fail(f"{file}: must hold a list of gates, each with name, metric, at_least or at_most")
    from backtest_pipeline.pipeline.ranking.leaderboard import register_gates as register
    from backtest_pipeline.research.ranking.leaderboard import gates_of

    gates_of(gates)
    with open_store() as workspace:
        gate_set = register(workspace, name, gates)
    say(f"{name}: {len(gate_set.gates)} gates, registered {gate_set.registered_at:%F %T} UTC")
