"""How many cores there are to compute on."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def usable_cores(root: Path = _ROOT) -> int:
    """How many cores this process may use: those it is bound to, or what its container may take.

    Args:
        root: below which `proc` and `sys` are.

    Returns:
        The number, at least 1; a share of a core counts as one.
    """
    if hasattr(os, "sched_getaffinity"):
        bound = len(os.sched_getaffinity(0))
    else:
        bound = os.cpu_count() or 1
    return max(1, math.ceil(min([bound, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that each control group of this process may take, if it is limited."""
    groups = root / "sys" / "fs" / "cgroup"
    for line in (_text(root / "proc" / "self" / "cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            for folder in _up_to(groups, path):
                yield from _quota(_text(folder / "cpu.max") or "")
        elif "cpu" in controllers.split(","):
            for folder in _up_to(groups / controllers, path):
                numbers = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
                yield from _quota(" ".join(number or "" for number in numbers))


def _up_to(top: Path, path: str) -> Iterator[Path]:
    """The folder of a group and those above it. In a container the path may be that of the host."""
    folder = top / path.strip("/")
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


def _quota(text: str) -> Iterator[float]:
    quota, _, period = text.strip().partition(" ")
    if quota.isdigit() and period.strip().isdigit():  # not `max`, nor -1
        yield int(quota) / int(period)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:  # another system, or a group that is not shown here
        return None
