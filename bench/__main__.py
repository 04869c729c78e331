"""`python -m bench [case ...] [--quick]`: measure, print, and write the results."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from bench.machine import machine

CASES = (
    *("peers", "grid", "universe", "portfolio", "dagster_refresh", "walk_forward", "cache"),
    *("external", "provenance", "results_store", "service", "interval_coverage", "rules"),
    *("own_rules", "plans", "cross_section", "scaling", "dagster_log"),
)
RESULTS = Path(__file__).parent / "RESULTS.md"


def main(arguments: list[str] | None = None) -> None:
    """Run the named cases, all where none is named."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work?")
    parser.add_argument("--output", type=Path, help=f"default {RESULTS.name}, none when quick")
    given = parser.parse_args(arguments)
    for case in given.cases:
        if case not in CASES:
            parser.error(f"no case {case!r}; there are {', '.join(CASES)}")
    texts = [_title()]
    for case in given.cases or CASES:
        text = importlib.import_module(f"bench.{case}").run(quick=given.quick).markdown()
        print(text, end="\n\n", flush=True)
        texts.append(text)
    output = given.output or (None if given.quick else RESULTS)
    if output is not None:
        output.write_text("\n\n".join(texts) + "\n")


def _title() -> str:
    return f"# Measurements\n\nWritten by `python -m bench`; trust the ratios.\n\n{machine()}"


if __name__ == "__main__":
    main()
