"""The cores of a container are those that it may take, not those of its host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from backtest_pipeline.simulation.cores import usable_cores

BOUND = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
V2 = "0::/\n"
V1 = "5:cpu,cpuacct:/docker/abc\n1:memory:/docker/abc\n"


def cores(root: Path, memberships: str, files: Mapping[str, str]) -> int:
    for name, text in {"proc/self/cgroup": memberships, **files}.items():
        path = root / name if name.startswith("proc") else root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return usable_cores(root)


@pytest.mark.parametrize(
    ("memberships", "files"),
    [
        (V2, {"cpu.max": "50000 100000\n"}),
        (V2, {"cpu.max": "100000 100000\n"}),
        ("0::/pod/container\n", {"pod/cpu.max": "100000 100000", "pod/container/cpu.max": "max 1"}),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "20000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}),
    ],
)
def test_a_limit_of_a_core_or_less_is_one(
    tmp_path: Path, memberships: str, files: Mapping[str, str]
) -> None:
    assert cores(tmp_path, memberships, files) == 1


@pytest.mark.parametrize(
    ("memberships", "files"),
    [
        (V2, {"cpu.max": "max 100000\n"}),
        (V2, {"cpu.max": "99900000 100000\n"}),
        (V2, {}),
        ("", {}),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}),
    ],
)
def test_without_a_limit_they_are_those_of_this_process(
    tmp_path: Path, memberships: str, files: Mapping[str, str]
) -> None:
    assert cores(tmp_path, memberships, files) == BOUND


@pytest.mark.skipif(BOUND < 2, reason="this process has one core")
def test_a_share_of_a_core_counts_as_one(tmp_path: Path) -> None:
    assert cores(tmp_path, V2, {"cpu.max": "150000 100000\n"}) == 2
