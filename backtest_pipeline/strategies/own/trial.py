"""Tries new Python strategies in a child process before this process executes them.

The child has ten seconds for each, and no import there may reach the network, start a process or
change files. It is no sandbox, but a guard against accidents: a strategy runs with the user's
rights afterwards. `python -m backtest_pipeline.strategies.own.trial` is the child.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from importlib.metadata import packages_distributions
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from backtest_pipeline.market.errors import StrategyRefused
from backtest_pipeline.strategies.own.modules import PREFIX, strategy_of_module
from backtest_pipeline.strategies.own.source import Source

IMPORT_LIMIT_S = 10.0
_HANGS = ".hangs"
_START_LIMIT_S = 120.0  # of the child itself, on a machine that is busy
_PACKAGE = Source.__module__.partition(".")[0]
_REFUSED = {
    "socket.connect": "reaches for the network",
    "socket.bind": "reaches for the network",
    "socket.getaddrinfo": "reaches for the network",
    "subprocess.Popen": "starts a process",
    "os.system": "starts a process",
    "os.exec": "starts a process",
    "os.posix_spawn": "starts a process",
    "os.fork": "starts a process",
    "os.remove": "deletes a file",
    "os.rename": "renames a file",
    "os.rmdir": "deletes a folder",
    "shutil.rmtree": "deletes a folder",
}


def tried(sources: Sequence[Source], known: Path | None = None) -> dict[str, str]:
    """Try importing strategies; returns why, by digest, of those that fail.

    Args:
        sources: Python strategies.
        known: folder that remembers what passed and what hung, so that they are tried once for all
            processes. Any other failure is quick, and installing a package may cure it.
    """
    paths = {s.digest: known / _key(s) for s in sources} if known is not None else {}
    hung = {digest for digest, path in paths.items() if path.with_suffix(_HANGS).exists()}
    failed = {s.digest: _hangs(s) for s in sources if s.digest in hung}
    todo = [s for s in sources if s.digest not in hung and not _is_there(paths.get(s.digest))]
    while todo:
        answers = _answers(todo)
        for source, why in zip(todo, answers, strict=False):
            if why:
                failed[source.digest] = why
            if source.digest in paths and why in ("", _hangs(source)):
                path = paths[source.digest]
                _remember(path.with_suffix(_HANGS) if why else path)
        todo = todo[len(answers) :]
    return failed


def forget_what_hung(known: Path) -> None:
    """Have files tried again that took too long before, perhaps on a machine that was busy."""
    for path in known.glob(f"*{_HANGS}"):
        path.unlink(missing_ok=True)


def _is_there(path: Path | None) -> bool:
    return path is not None and path.exists()


def _hangs(source: Source) -> str:
    return (
        f"{source.where}: importing it takes longer than {IMPORT_LIMIT_S:.0f} s; move what takes "
        "long into conditions(), or load a file prepared before. It is tried again once it is "
        f"edited, or by: backtest-pipeline strategies check {source.stem}"
    )


def _key(source: Source) -> str:
    """What a verdict depends on: the files, and the Python that read them."""
    return sha256(f"{source.digest} {sys.version} {sys.prefix}".encode()).hexdigest()


def _remember(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:  # a home that cannot be written: it is tried again next time
        return


def _answers(sources: Sequence[Source]) -> list[str]:
    """Verdicts on the sources in order; after one that hangs or ends the child, none follow."""
    child, lines, reader = _started(sources)
    found: list[str] = []
    try:
        if not _next(lines, _START_LIMIT_S):
            why = "the process that tries strategies did not start; its error is above"
            return [f"{source.where}: {why}" for source in sources]
        for source in sources:
            line = _next(lines, IMPORT_LIMIT_S)
            if line is None:
                found.append(_hangs(source))
            elif not line:
                found.append(f"{source.where}: importing it ends the process")
            else:
                found.append(json.loads(line))
            if not line:
                break
    finally:
        child.kill()
        reader.join()
        assert child.stdout is not None  # noqa: S101
        child.stdout.close()
        child.wait()
    return found


def _started(sources: Sequence[Source]) -> tuple[subprocess.Popen[str], Queue[str], Thread]:
    """The child, the lines that it answers (an empty one when it has ended), and their reader."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "backtest_pipeline.strategies.own.trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None  # noqa: S101
    assert child.stdout is not None  # noqa: S101
    lines: Queue[str] = Queue()
    reader = Thread(target=_pass_on, args=(child.stdout, lines), daemon=True)
    reader.start()
    asked = [
        {"main": s.main, "place": s.place, "files": {n: d.hex() for n, d in s.files.items()}}
        for s in sources
    ]
    with suppress(BrokenPipeError):  # it has ended, which its answers say
        child.stdin.write(json.dumps(asked))
        child.stdin.close()
    return child, lines, reader


def _next(lines: Queue[str], limit_s: float) -> str | None:
    """The next line, empty at the end; None where none came in time."""
    try:
        return lines.get(timeout=limit_s)
    except Empty:
        return None


def _pass_on(stream: Iterable[str], lines: Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def _refuse_side_effects(temporary: str, event: str, args: tuple[object, ...]) -> None:
    what = _REFUSED.get(event)
    if event == "open" and _writes(args, temporary):
        what = f"writes the file {args[0]}"
    if what:
        raise StrategyRefused(f"importing it {what}; a strategy computes from its features alone")


def _writes(args: tuple[object, ...], temporary: str) -> bool:
    path, _, flags = args
    return (
        isinstance(path, str)
        and isinstance(flags, int)
        and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        and not path.startswith((temporary, os.devnull))
        and "__pycache__" not in path  # what packages compile
    )


def _require_installed(before: Collection[str], source: Source) -> None:
    """Refuse modules whose edits would go unseen: neither installed nor files of the strategy."""
    roots = tuple(
        {sys.prefix, sys.base_prefix, *site.getsitepackages(), *sysconfig.get_paths().values()}
    )
    loose: dict[str, str] = {}
    for name in sorted(sys.modules.keys() - before):
        top = name.partition(".")[0]
        file = getattr(sys.modules[name], "__file__", None)
        if not file or top.startswith(PREFIX) or top == _PACKAGE:
            continue
        if not file.startswith(roots) and top not in packages_distributions():
            loose[name] = file
            del sys.modules[name]  # so that it is seen too where the next strategy imports it
    for name, file in loose.items():
        raise StrategyRefused(
            f"{source.where}: it imports {name} from {file}, which is no installed package, so "
            "that edits of it would go unseen; put both into one folder, and write: "
            f"from .{name.partition('.')[0]} import ..."
        )


def main() -> None:
    """Answer on stdout: a line when ready, then one for each source, its failure or empty text."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what strategies print goes to stderr
    sys.dont_write_bytecode = True
    asked = json.load(sys.stdin)
    print(json.dumps("ready"), file=answers)
    # Found before: finding it writes files, which would ask the hook again.
    sys.addaudithook(partial(_refuse_side_effects, tempfile.gettempdir()))
    for one in asked:
        source = Source(
            one["main"], {n: bytes.fromhex(d) for n, d in one["files"].items()}, one["place"]
        )
        before, why = set(sys.modules), ""
        try:
            strategy_of_module(source)
            _require_installed(before, source)
        except StrategyRefused as error:
            why = str(error)
        print(json.dumps(why), file=answers)


if __name__ == "__main__":
    main()
