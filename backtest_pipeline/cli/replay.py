"""`backtest-pipeline replay` and `explain-diff`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtest_pipeline.cli.console import print_json, progress_shown, say
from backtest_pipeline.cli.options import AsJson
from backtest_pipeline.cli.store import open_store

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.replay.explain import Explanation, Move
    from backtest_pipeline.pipeline.replay.replay import Replay

app = typer.Typer()


@app.command()
def replay(
    run_ids: Annotated[
        list[str], typer.Argument(metavar="RUN_ID...", help="Run ids, or their first characters.")
    ],
    code: Annotated[
        str, typer.Option(help="recorded: the code that made the run; installed: today's code.")
    ] = "recorded",
    as_json: AsJson = False,
) -> None:
    """Recompute stored runs from their snapshots, and compare the results bit for bit.

    Exit code 1 if a run differs or cannot be recomputed. A run that differs is quarantined.
    """
    replays = _replayed(run_ids, code)
    if as_json:
        print_json({"runs": [_as_json(one) for one in replays]})
    else:
        for one in replays:
            _show(one)
    if any(one.verdict != "same" for one in replays):
        sys.exit(1)


def _replayed(run_ids: Sequence[str], code: str) -> list[Replay]:
    with progress_shown() as progress:
        progress("loading", 0, 1)
        from backtest_pipeline.cli.up import ensure_schema
        from backtest_pipeline.pipeline.replay.replay import Code, replay_runs
        from backtest_pipeline.pipeline.workspace import open_workspace
        from backtest_pipeline.storage.settings import load_settings

        chosen = Code.of(code)
        settings = load_settings()
        ensure_schema(settings)
        with open_workspace(settings, progress=progress) as workspace:
            progress("loading", 1, 1)
            return replay_runs(workspace, run_ids, code=chosen)


_VERDICTS = {
    "same": "same result, bit for bit",
    "differs": "DIFFERENT RESULT",
    "impossible": "cannot be recomputed",
}
_QUARANTINE = {
    "set": "quarantined: excluded from leaderboard, portfolios and summaries",
    "lifted": "no longer in quarantine",
}


def _show(one: Replay) -> None:
    say(f"{one.name}, run {one.run_id}: {_VERDICTS[one.verdict]}")
    say(f"  code         {_code(one)}")
    say(f"  fingerprint  {one.expected} stored")
    if one.found:
        say(f"               {one.found} recomputed")
    for line in one.differences:
        say(f"  - {line}")
    for line in one.remarks:
        say(f"  ({line})")
    if one.quarantine:
        say(f"  {_QUARANTINE[one.quarantine]}")


def _code(one: Replay) -> str:
    if not one.code:
        return "none"
    whose = "the code that made the run" if one.is_own_code else "today's code"
    return f"{whose}, {one.code}"


def _as_json(one: Replay) -> dict[str, Any]:
    return {
        "run_id": str(one.run_id),
        "name": one.name,
        "verdict": one.verdict.value,
        "code": one.code,
        "is_own_code": one.is_own_code,
        "is_declared_same": one.is_declared_same,
        "is_own_environment": one.is_own_environment,
        "expected": one.expected,
        "found": one.found,
        "differences": list(one.differences),
        "remarks": list(one.remarks),
        "quarantine": one.quarantine,
    }


@app.command()
def explain_diff(
    a: Annotated[str, typer.Argument(help="Run A: its id, or the first characters of it.")],
    b: Annotated[str, typer.Argument(help="Run B.")],
    as_json: AsJson = False,
) -> None:
    """Explain why two stored runs differ: data, code or configuration, and by how much.

    Both runs are recomputed with one of these swapped at a time: B's in A, and A's in B.
    """
    with open_store() as workspace:
        from backtest_pipeline.pipeline.replay.explain import explain_runs

        explanation = explain_runs(workspace, a, b)
    if as_json:
        print_json(
            {
                **asdict(explanation),
                "a": str(explanation.a),
                "b": str(explanation.b),
                "movers": explanation.movers,
            }
        )
    else:
        _explain(explanation)


def _explain(explanation: Explanation) -> None:
    say(f"A  {explanation.names[0]}, run {explanation.a}")
    say(f"B  {explanation.names[1]}, run {explanation.b}")
    for factor in explanation.factors:
        say("")
        if factor.is_equal:
            say(f"{factor.name}: equal")
            continue
        say(f"{factor.name}: differs")
        for line in factor.differences[:_MOST_LINES]:
            say(f"  - {line}")
        if len(factor.differences) > _MOST_LINES:
            say(f"  - and {len(factor.differences) - _MOST_LINES} more (--json lists all)")
        if factor.forward is None or factor.backward is None:
            say("  cannot be swapped here, so its effect is not measured")
        elif factor.forward == explanation.total:  # nothing else differs
            say("  explains the whole difference between A and B")
        else:
            _show_move(f"from A to A with B's {factor.name}", factor.forward)
            _show_move(f"from B with A's {factor.name} to B", factor.backward)
    say("")
    _show_move("from A to B", explanation.total)
    if explanation.movers:
        say(f"explained by {', '.join(explanation.movers)}")
    else:
        is_equal = not (explanation.total.moved or explanation.total.error)
        say(
            "the results are equal"
            if is_equal
            else "no factor alone could be swapped to explain it"
        )
    if explanation.interacts:
        together = ", ".join(_amounts(explanation.interaction))
        say(f"interaction, beyond the sum of each alone: {together}")
    for line in explanation.remainder:
        say(f"not explained: {line}")


_MOST_LINES = 10


def _show_move(what: str, move: Move) -> None:
    if move.error:
        say(f"  {what}: cannot be computed: {move.error}")
        return
    if not move.moved:
        say(f"  {what}: no change")
        return
    say(f"  {what}: {', '.join(_amounts(asdict(move)))}")
    if move.first_bar:
        say(f"    first bar whose equity differs: {move.first_bar}")
    if move.first_trade:
        say(f"    first trade that differs: {move.first_trade}")


def _amounts(values: Mapping[str, Any]) -> list[str]:
    """The changes as text; a metric that is undefined in one of the results is left out."""
    shown = (
        ("total_return", "return {:+.4%}"),
        ("sharpe", "Sharpe {:+.4f}"),
        ("trade_count", "trades {:+.0f}"),
    )
    return [form.format(values[n]) for n, form in shown if values.get(n) is not None]
