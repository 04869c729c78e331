"""The machine and library versions of a benchmark run."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

_LIBRARIES = (
    *("numpy", "numba", "pandas", "pyarrow", "vectorbt", "vectorbt-rust", "backtesting"),
    *("sqlalchemy", "adbc-driver-postgresql", "dagster", "dagster-postgres"),
)


def machine() -> str:
    """Cores, memory, processor, versions and date as Markdown."""
    memory = psutil.virtual_memory().total / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    load = os.getloadavg()[0]
    return "\n".join(
        [
            f"- {psutil.cpu_count()} cores ({_processor()}), {memory:.0f} GiB memory",
            f"- {platform.system()}, Python {platform.python_version()}, {libraries}",
            f"- {datetime.now(UTC):%Y-%m-%d}; load when it began: {load:.1f}",
        ]
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
