"""What two processes must have in common, and how a difference is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtest_pipeline.pipeline.pools.environment import (
    code_and_packages,
    differing,
    name_of,
    surroundings,
)
from backtest_pipeline.storage.settings import load_settings


def test_code_packages_and_store_make_a_name() -> None:
    settings = load_settings()
    known = surroundings(settings, "one")
    assert known == surroundings(settings, "one")
    assert code_and_packages().items() <= known.items()
    assert {"code", "python", "machine", "numba", "pandas", "store"} <= known.keys()
    assert name_of(known) == name_of(dict(reversed(known.items())))
    assert name_of(known) != name_of(surroundings(settings, "other"))
    for name in known:
        assert name_of(known) != name_of({**known, name: "other"})


def test_where_features_are_read_is_part_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = {name_of(surroundings(load_settings(), "one"))}
    monkeypatch.setenv("BACKTEST_FEATURES_TABLE", "their.features")
    names.add(name_of(surroundings(load_settings(), "one")))
    monkeypatch.setenv("BACKTEST_FEATURES_FILTERS", "venue=BINANCE")
    names.add(name_of(surroundings(load_settings(), "one")))
    assert len(names) == 3


def test_what_differs_is_told_with_both_values() -> None:
    ours = {"code": "a" * 64, "numba": "0.66.0", "store": "one"}
    assert differing(ours, ours) == []
    theirs = {"code": "a" * 64, "numba": "0.67.1"}
    assert differing(ours, theirs) == [
        "numba is 0.66.0 here and 0.67.1 there",
        "store is one here and unknown there",
    ]
    assert differing(ours, {**ours, "code": "b" * 64}) == [
        f"code is {'a' * 16}... here and {'b' * 16}... there"
    ]
