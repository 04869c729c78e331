"""What the documents show runs as they show it."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import sqlalchemy as sa

from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.documents import ROOT, blocks


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("docs/python-api.md", "python")
    exec(compile(example, "docs/python-api.md", "exec"), {})  # noqa: S102 - our own document
    assert len(capsys.readouterr().out.split()) > 3


def test_the_research_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("docs/research.md", "python")
    exec(compile(example, "docs/research.md", "exec"), {})  # noqa: S102 - our own document
    assert len(capsys.readouterr().out.split()) == 2


def test_the_portfolio_example_and_query_run(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = blocks("docs/portfolios.md", "python")
    exec(compile(example, "docs/portfolios.md", "exec"), {})  # noqa: S102 - our own document
    assert len(capsys.readouterr().out.split()) > 3
    (query,) = blocks("docs/portfolios.md", "sql")
    with database.begin() as connection:
        assert connection.execute(sa.text(query)).all() == []


def test_the_portfolio_page_names_every_scheme_and_figure() -> None:
    from backtest_pipeline.pipeline.stages.portfolios import FIGURES
    from backtest_pipeline.research.portfolio.portfolio import LEFT_OUT, SCHEDULES
    from backtest_pipeline.research.portfolio.weights import SCHEMES

    text = (ROOT / "docs/portfolios.md").read_text()
    for name in (*SCHEMES, *SCHEDULES, *LEFT_OUT, *FIGURES):
        assert f"`{name}`" in text, name


def test_the_api_that_is_documented_is_the_api_that_there_is() -> None:
    import backtest_pipeline

    documented = (ROOT / "docs/python-api.md").read_text()
    for name in backtest_pipeline.__all__:
        assert name in documented
        assert getattr(backtest_pipeline, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = backtest_pipeline.nothing


@pytest.mark.parametrize(
    "document",
    ["README.md", *(f"{path.relative_to(ROOT)}" for path in (ROOT / "docs").rglob("*.md"))],
)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), f"{document} links to {target}"


def test_every_direct_dependency_has_a_reason() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    named = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    named += [requirement for extra in extras for requirement in extra]
    reasons = (ROOT / "docs/dependencies.md").read_text()
    for requirement in named:
        name = re.split(r"[\[=><]", requirement)[0]
        assert name in reasons, f"{name} has no reason in docs/dependencies.md"


def pins(lock: str) -> dict[str, str]:
    """The lines of a lock that pin packages, each with its environment marker, without hashes."""
    lines = re.findall(r"^([a-zA-Z0-9._-]+)==(.*?) *\\?$", lock, re.MULTILINE)
    versions: dict[str, list[str]] = {}
    for name, version in lines:
        versions.setdefault(name, []).append(version)
    return {name: " / ".join(sorted(found)) for name, found in versions.items()}


@pytest.mark.parametrize(
    ("name", "fewest"),
    [("requirements.lock", 100), ("requirements-dev.lock", 150), ("requirements-build.lock", 4)],
)
def test_a_lock_holds_hashes_and_no_addresses(name: str, fewest: int) -> None:
    lock = (ROOT / name).read_text()
    pinned = re.findall(r"^[a-zA-Z0-9._-]+==", lock, re.MULTILINE)
    assert len(pinned) >= fewest
    assert lock.count("--hash=sha256:") >= len(pinned)
    assert "://" not in lock


def test_what_is_tested_is_what_the_image_holds_without_the_tools_of_tests() -> None:
    import tomllib

    image = pins((ROOT / "requirements.lock").read_text())
    tested = pins((ROOT / "requirements-dev.lock").read_text())
    built = pins((ROOT / "requirements-build.lock").read_text())
    for name, versions in {**image, **built}.items():
        assert name in tested, f"{name} is in no test"
        for version in re.findall(r"[0-9][^ ;]*", versions.partition(";")[0]):
            assert version in tested[name], f"{name} {version} is not what is tested"
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    tools = {re.split(r"[\[=><]", tool)[0] for tool in groups["dev"]}
    assert not tools & set(image)
    assert {"dask", "distributed", "pydantic-ai-slim"} <= set(image)


def test_the_queries_on_the_concepts_page_run(database: Database, tmp_path: Path) -> None:
    on_tables, on_files = blocks("docs/concepts.md", "sql")
    with database.begin() as connection:
        for query in on_tables.split(";"):
            if query.strip():
                connection.execute(sa.text(query))

    store = ArtifactStore(tmp_path / "artifacts")
    equity = pa.table(
        {"run_id": ["a", "a", "b"], "equity": [1.0, 3.0, 2.0], "drawdown": [0.0, -0.5, -0.1]}
    )
    store.put_directory("runs/1D/some-block", {"equity.parquet": equity}, {})
    query = on_files.replace("'artifacts/", f"'{store.root}/")
    assert sorted(duckdb.connect().execute(query).fetchall()) == [
        ("a", 3.0, -0.5),
        ("b", 2.0, -0.1),
    ]


def test_the_query_on_the_data_sources_page_runs(tmp_path: Path) -> None:
    from backtest_pipeline.market.timeframes import timeframe
    from backtest_pipeline.sources.cache import BarCache, Series
    from backtest_pipeline.sources.segments import BARS
    from backtest_pipeline.sources.spans import Span

    bars = pa.table([[0], [1.0], [3.0], [1.0], [2.0], [5.0]], schema=BARS)
    cache = BarCache(tmp_path / "cache" / "bars")
    cache.put(Series("binance", "BTCUSDT", timeframe("1D")), Span(0, 10), bars)
    (query,) = blocks("docs/data-sources.md", "sql")
    query = query.replace("'cache/bars/", f"'{cache.root}/")
    assert duckdb.connect().execute(query).fetchall() == [(1, 0, 2.0)]


def test_every_number_of_a_robustness_is_stored_and_explained(database: Database) -> None:
    from backtest_pipeline.research.robustness.robustness import DOUBTS

    page = (ROOT / "docs/robustness.md").read_text()
    (query,) = blocks("docs/robustness.md", "sql")
    with database.begin() as connection:
        connection.execute(sa.text(query))
        stored = {column["name"] for column in sa.inspect(connection).get_columns("run_robustness")}
    for name in DOUBTS:
        assert f"`{name}`" in page
        assert name in stored


def test_the_walk_forward_page_runs(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("docs/walk-forward.md", "python")
    exec(compile(example, "docs/walk-forward.md", "exec"), {})  # noqa: S102 - our own document
    assert len(capsys.readouterr().out.split()) == 3
    (queries,) = blocks("docs/walk-forward.md", "sql")
    with database.begin() as connection:
        for query in filter(str.strip, queries.split(";")):
            connection.execute(sa.text(query))
