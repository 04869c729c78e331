"""Begins a strategy of a user's own: rules that work, or a copy of one in Python."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import backtest_pipeline.strategies as package
from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.strategies.known_strategies import SHORT_NAMES
from backtest_pipeline.strategies.own.loading import Loaded, is_good_name

RULES = """\
# docs/rules.md has the language; `backtest-pipeline strategies check {name}` tries it.
name = "{name}"
description = "Buy a close above the highest high of the bars before, sell below their lowest low."

long_entry = "close > highest(high, breakout, prior=True)"
long_exit = "close < lowest(low, exit_bars, prior=True)"

[params]
breakout = {{ default = 20, min = 2, max = 250, grid = [10, 20, 40, 60] }}
exit_bars = {{ default = 10, min = 2, max = 250, grid = [5, 10, 20] }}

[stops]
trailing_atr = 3

# Every refresh computes these parameters.
[presets.{name}_20_10]
breakout = 20
exit_bars = 10
"""


def make_folder(folder: Path) -> None:
    """Make the folder of strategies where it is missing; raises InvalidInput where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InvalidInput(f"{error.filename} exists; name a folder") from error
    except OSError as error:
        raise InvalidInput(f"cannot make the folder {folder}: {error.strerror}") from error


def new_strategy(folder: Path, name: str, base: str, known: Mapping[str, Loaded]) -> Path:
    """Write the file of a new strategy, and return its path.

    Args:
        folder: the folder of strategies.
        name: name of the strategy and its file.
        base: strategy that is copied, in full or short; empty for rules in TOML.
        known: strategies that there are.

    Raises:
        InvalidInput: for a name that is taken or invalid, or a base that cannot be copied.
        UnknownName: for a base that does not exist.
    """
    if not is_good_name(name):
        raise InvalidInput(
            f"{name!r} cannot name a strategy: use lower-case letters, digits and _, at most 60"
        )
    if (full := SHORT_NAMES.get(name, name)) in known:
        raise InvalidInput(f"there is a strategy {name}: {known[full].origin}; choose another name")
    text = _copied(base, name, known) if base else RULES.format(name=name)
    path = folder / f"{name}{'.py' if base else '.toml'}"
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError as error:
        raise InvalidInput(f"{path} exists; choose another name, or edit it") from error
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error
    with os.fdopen(file, "w", encoding="utf-8") as opened:
        opened.write(text)
    return path


def _copied(base: str, name: str, known: Mapping[str, Loaded]) -> str:
    """The code of a strategy in one Python file, under another name."""
    full = SHORT_NAMES.get(base, base)
    if full not in known:
        raise UnknownName("strategy", base, [*SHORT_NAMES, *known])
    source = known[full].source
    if source is None:
        file = Path(package.__path__[0], f"{full}.py")
        if not file.is_file():
            raise InvalidInput(f"{full} comes from {known[full].origin}; copy a shipped strategy")
        text = file.read_text(encoding="utf-8")
    elif list(source.files) == [source.main] and not source.is_rules:
        text = source.files[source.main].decode()
    else:
        raise InvalidInput(f"{known[full].origin} is not one Python file; copy it by hand")
    return re.sub(rf'(\bname=)(["\']){full}\2', rf'\g<1>"{name}"', text, count=1)
