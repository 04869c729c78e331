"""What all code of a process shares; as a program: what of it importing us changes."""

from __future__ import annotations

import ast
import atexit
import gc
import json
import locale
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import backtest_pipeline

PACKAGE = Path(backtest_pipeline.__file__).parent


def modules() -> list[str]:
    """All modules of the package."""
    paths = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


def foreign_modules() -> list[str]:
    """All modules of others that the package imports anywhere, also within functions."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return sorted(name for name in found if name.split(".")[0] != PACKAGE.name)


def state() -> dict[str, Any]:
    """What others may have set, or rely on."""
    import numpy as np
    import optuna
    import pandas as pd
    import plotly.io
    import pyarrow as pa
    from numba.core import config

    root = logging.getLogger()
    handlers = {
        name: ([repr(h) for h in logger.handlers], logger.level, logger.propagate)
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and not name.startswith(PACKAGE.name)
    }
    with warnings.catch_warnings(record=True):  # some options of pandas warn of themselves
        options = pd.describe_option(_print_desc=False)
    return {
        "environment": dict(os.environ),
        "log records": repr(logging.getLogRecordFactory()),
        "root logger": ([repr(h) for h in root.handlers], root.level, root.manager.disable),
        "loggers of others": handlers,
        "warnings": [repr(one) for one in warnings.filters],
        "hooks": [repr(h) for h in (sys.excepthook, sys.unraisablehook, threading.excepthook)],
        "signals": {str(s): repr(signal.getsignal(s)) for s in signal.valid_signals()},
        "threads": threading.active_count(),
        "children": len(multiprocessing.active_children()),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "path": [*sys.path, *map(repr, sys.meta_path)],
        "folder": os.getcwd(),
        "files": sorted(os.listdir()),
        "open": sorted(_open_files()),
        "exit": atexit._ncallbacks(),
        "limits": (sys.getrecursionlimit(), gc.get_threshold(), socket.getdefaulttimeout()),
        "locale": locale.setlocale(locale.LC_ALL),
        "random": (repr(random.getstate()), repr(np.random.get_state())),
        "numpy": (np.geterr(), np.get_printoptions()["precision"]),
        "pandas": options,
        "plotly": (plotly.io.templates.default, plotly.io.renderers.default),
        "numba": {k: repr(v) for k, v in vars(config).items() if k.isupper()},
        "threads of arrow": (pa.cpu_count(), pa.io_thread_count()),
        "optuna": optuna.logging.get_verbosity(),
    }


def shared_by_tests() -> dict[str, str]:
    """What a test may change for those after it without anybody seeing why they fail."""
    umask = os.umask(0o077)
    os.umask(umask)
    of_libraries = ("KMP_", "MPLCONFIGDIR", "PYTEST_")  # which set them when they are loaded
    environment = {k: v for k, v in os.environ.items() if not k.startswith(of_libraries)}
    interrupt = repr(signal.getsignal(signal.SIGINT))
    return {**environment, "umask": oct(umask), "folder": os.getcwd(), "interrupt": interrupt}


def _open_files() -> list[str]:
    folder = Path("/proc/self/fd")
    return [os.readlink(one) for one in folder.iterdir() if one.exists()] if folder.exists() else []


def main() -> None:
    """Import what others wrote, then each of our modules; print what changed by which."""
    for name in foreign_modules():
        import_module(name)
    before, changed = state(), dict[str, list[str]]()
    for name in modules():
        import_module(name)
        after = state()
        parts = [part for part in before if before[part] != after[part]]
        if parts:
            changed[name], before = parts, after
    print(json.dumps(changed))  # noqa: T201


if __name__ == "__main__":
    main()
