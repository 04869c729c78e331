"""The service's page: its examples run, its tables are the code's."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from starlette.testclient import TestClient

from backtest_pipeline.service.problems import KINDS
from backtest_pipeline_tests.service.conftest import Server, Store

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "service.md").read_text()


def test_every_problem_is_documented_as_it_is() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \| (.+) \|$", PAGE, re.MULTILINE)
    assert rows == [(code, str(kind.status), kind.title) for code, kind in KINDS.items()]


def test_every_route_is_on_the_page(client: TestClient) -> None:
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in PAGE, path


def test_the_examples_run_one_after_the_other(store: Store, server: Server) -> None:
    examples = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    assert examples.count("curl ") > 12
    here = examples.replace("http://127.0.0.1:8000", server.url).replace(
        "/events -H", "/events --max-time 1 -H"
    )
    for theirs, ours in (("S-ALPHA", "AAA"), ("S-BETA", "BBB")):
        here = here.replace(theirs, ours)
    for theirs, ours in (
        ("730", "40"), ("365", "20"), ('"1D", "1W"', '"1D"'), ("[30, 60]", "[20, 30]"),
    ):  # fmt: skip
        here = here.replace(theirs, ours)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", here],
        env={**os.environ, "KEY": store.key()},
        cwd=store.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 28), done.stderr  # 28: the stream of a pending job goes on
    assert '"ready"' in done.stdout
    assert "<svg" in (store.folder / "run.html").read_text()
