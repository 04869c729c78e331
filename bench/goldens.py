"""Golden fingerprints: hashes of the results of fixed specs on fixed markets.

`python -m bench.goldens check` computes them and says which differ from `bench/goldens/`;
`python -m bench.goldens record` writes them anew, after a declared version was raised. A
fingerprint hashes the trades, the equity and the benchmark bit by bit, and the metrics to nine
digits, for some of these go through a processor's own logarithms.

The sample market and the questions need nothing; `bybit` needs the real daily bars.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import text

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.specs import spec_of
from backtest_pipeline.pipeline.use_cases.refresh import refresh_backtests, refresh_signals
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.metrics.metrics import METRIC_NAMES
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.sources.files import FileBars
from backtest_pipeline.sources.sample import SampleMarket
from bench.bars import REAL
from bench.store import fresh_store
from bench.universe import TIMEFRAMES

FOLDER = Path(__file__).parent / "goldens"
SAMPLE_TIMEFRAMES = ("4H", "1D", "1W", "1M")


def main(arguments: list[str] | None = None) -> None:
    """Record or check all golden fingerprints, or those of the named markets."""
    parser = argparse.ArgumentParser(prog="python -m bench.goldens", description=__doc__)
    parser.add_argument("deed", choices=("record", "check"))
    parser.add_argument("markets", nargs="*", help="sample, questions, bybit; all where none is")
    given = parser.parse_args(arguments)
    known = {"sample": sample, "questions": questions, "bybit": bybit}
    differing = 0
    for name in given.markets or known:
        found = known[name]()
        if given.deed == "record":
            write(name, found)
            print(f"{name}: {len(found):,} recorded")
            continue
        others = difference(read(name), found)
        differing += len(others)
        print(f"{name}: {len(found):,} computed, {len(others)} differ", *others[:20], sep="\n  ")
    sys.exit(1 if differing else 0)


def read(name: str) -> dict[str, str]:
    """The recorded fingerprints of a market by run."""
    lines = (FOLDER / f"{name}.txt").read_text().splitlines()
    return {run: digest for digest, _, run in (line.partition(" ") for line in lines)}


def write(name: str, found: Mapping[str, str]) -> None:
    """Record fingerprints."""
    FOLDER.mkdir(exist_ok=True)
    lines = [f"{digest} {run}\n" for run, digest in sorted(found.items())]
    (FOLDER / f"{name}.txt").write_text("".join(lines))


def difference(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """The runs whose fingerprints are not the recorded ones, or that one side alone has."""
    return sorted(run for run in recorded.keys() | found if recorded.get(run) != found.get(run))


def sample() -> dict[str, str]:
    """Every preset on every asset of the synthetic market."""
    return _of_market(SampleMarket(), SAMPLE_TIMEFRAMES)


def bybit() -> dict[str, str]:
    """Every preset on every symbol of the real daily bars, at six timeframes."""
    return _of_market(FileBars(REAL), TIMEFRAMES)


def _of_market(source: BarSource, timeframes: tuple[str, ...]) -> dict[str, str]:
    partitions = [Partition(asset, tf) for asset in source.symbols() for tf in timeframes]
    with fresh_store(), open_workspace() as workspace:
        reports = [
            *refresh_signals(workspace, source, partitions),
            refresh_backtests(workspace, partitions, SimulationConfig()),
        ]
        for report in reports:
            assert not report.failed, report.failed[0]
        return stored_runs(workspace)


def stored_runs(workspace: Workspace) -> dict[str, str]:
    """The fingerprint of each current run of a store."""
    query = text("""
        SELECT r.signal_name || ' ' || r.symbol || ' ' || r.tf AS run, r.result_fingerprint, m.*
        FROM backtest_runs r JOIN backtest_metrics m USING (run_id) WHERE r.is_current
    """)
    with workspace.database.begin() as connection:
        rows = connection.execute(query).mappings().all()
    return {
        row["run"]: fingerprint(row["result_fingerprint"], {n: row[n] for n in METRIC_NAMES})
        for row in rows
    }


def fingerprint(result: str, metrics: Mapping[str, float | None]) -> str:
    """Sixteen digits of a hash over a result's fingerprint and its metrics."""
    shown = {name: None if v is None else f"{v:.9g}" for name, v in metrics.items()}
    content = json.dumps([result, shown], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def questions() -> dict[str, str]:
    """Fingerprints of the result of each spec in `questions.json`, on a fresh store."""
    found = {}
    with fresh_store() as settings, open_workspace() as workspace:
        for name, asked in json.loads((FOLDER / "questions.json").read_text()).items():
            given = execute(workspace, settings, spec_of(asked), "goldens")
            found |= answered(name, given.model_dump(mode="json"))
    return found


def answered(name: str, given: Mapping[str, Any]) -> dict[str, str]:
    """Fingerprints of a result: of its run, its folds, ranked rows and selection."""
    run = given.get("best_run", given)
    found = {name: fingerprint(run["result_fingerprint"], run["metrics"])}
    for i, fold in enumerate(given.get("folds", ())):
        chosen = json.dumps(fold["params"], sort_keys=True)
        metrics = {f"{s}_{n}": v for s in ("train", "test") for n, v in fold[s].items()}
        found[f"{name}, fold {i}"] = fingerprint(chosen, metrics)
    for i, row in enumerate(given.get("ranked", ())):
        chosen = json.dumps(row["params"], sort_keys=True)
        found[f"{name}, number {i}"] = fingerprint(chosen, row["metrics"])
    if "selection" in given:
        found[f"{name}, selection"] = fingerprint("", given["selection"])
    return found


if __name__ == "__main__":
    main()
