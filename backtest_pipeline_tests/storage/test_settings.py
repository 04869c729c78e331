from __future__ import annotations

import re
from pathlib import Path

import pytest

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.pipeline.monitoring.notices import NoticeSettings
from backtest_pipeline.service.settings import ServiceSettings
from backtest_pipeline.storage.settings import (
    READ_ELSEWHERE,
    Settings,
    load_settings,
    unread_variables,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUN_STORE_MODE", "POSTGRES_DSN", "HOME", "ARTIFACTS_URL"):
        monkeypatch.delenv(f"BACKTEST_{name}", raising=False)


def test_nothing_set_means_an_embedded_store_with_artifacts_below_home() -> None:
    settings = load_settings()
    assert settings.run_store_mode == "embedded"
    assert settings.home.is_absolute()
    assert settings.artifacts_folder == settings.home / "artifacts"


def test_every_setting_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", "postgresql://u:p@h/d")
    monkeypatch.setenv("BACKTEST_HOME", "/somewhere")
    monkeypatch.setenv("BACKTEST_ARTIFACTS_URL", "file:///else%20where")
    settings = load_settings()
    assert settings.run_store_mode == "postgres"
    assert settings.postgres_dsn is not None
    assert settings.postgres_dsn.get_secret_value() == "postgresql://u:p@h/d"
    assert settings.home == Path("/somewhere")
    assert settings.artifacts_folder == Path("/else where")


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "")
    assert load_settings().run_store_mode == "embedded"


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("RUN_STORE_MODE", "mysql", "'embedded' or 'postgres'"),
        ("HOME", "relative/folder", "absolute"),
        ("ARTIFACTS_URL", "ftp://bucket/prefix", "ftp:// is not supported"),
        ("ARTIFACTS_URL", "s3:///prefix", "must name a bucket"),
        ("ARTIFACTS_URL", "s3://bucket/../other", "must name a bucket"),
        ("ARTIFACTS_URL", "s3://key:hunter2@bucket/prefix", "put credentials into the variables"),
        ("ARTIFACTS_URL", "s3://hunter2@bucket/prefix", "put credentials into the variables"),
        ("ARTIFACTS_URL", "az://box/prefix?sv=1&sig=hunter2", "put credentials into"),
        ("ARTIFACTS_URL", "abfss://box:hunter2@name.dfs.core.windows.net", "put credentials"),
        ("ARTIFACTS_URL", "relative", "absolute"),
        ("POOL", "ray", "'inline', 'processes' or 'dask'"),
        ("POOL_WORKERS", "0", "must be at least 1"),
        ("POOL_TLS", "relative", "absolute"),
        ("POOL_ADDRESS", "scheduler:8786", "must be the address of a Dask scheduler"),
        ("POOL_ADDRESS", "tls://scheduler", "with its port"),
        ("POOL_ADDRESS", "tls://scheduler:nowhere", "with its port"),
        ("POOL_ADDRESS", "http://127.0.0.1:8786", "must be the address of a Dask scheduler"),
        ("POOL_ADDRESS", "tcp://10.0.0.5:8786", "is not on this host, and without TLS"),
        ("POOL_ADDRESS", "tcp://scheduler:8786", "is not on this host, and without TLS"),
        ("POOL_ADDRESS", "tls://scheduler:8786", "needs BACKTEST_POOL_TLS"),
    ],
)
def test_a_bad_value_is_refused_naming_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"BACKTEST_{variable}", value)
    with pytest.raises(ConfigurationError, match=f"BACKTEST_{variable}: .*{says}") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *("s3://bucket", "s3://bucket/some/prefix", "gs://bucket/prefix", "az://box/prefix"),
        "abfss://box@name.dfs.core.windows.net/prefix",
    ],
)
def test_a_bucket_has_its_copies_below_home(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("BACKTEST_ARTIFACTS_URL", f"{url}/")
    settings = load_settings()
    assert settings.artifacts_bucket == url
    assert settings.artifacts_folder == settings.home / "cache" / "artifacts"


def test_postgres_mode_without_a_dsn_is_refused_naming_the_dsn() -> None:
    with pytest.raises(ConfigurationError, match="BACKTEST_POSTGRES_DSN: is required"):
        load_settings(run_store_mode="postgres")


@pytest.mark.parametrize("dsn", ["hunter2 is not a dsn", "postgresql://u:hunter2@h:hunter2/d"])
def test_a_dsn_that_does_not_parse_is_refused_without_showing_it(dsn: str) -> None:
    if dsn.startswith("postgresql"):
        dsn = dsn.replace("/d", "/d?nonsense=hunter2")
    with pytest.raises(ConfigurationError, match="BACKTEST_POSTGRES_DSN") as caught:
        load_settings(run_store_mode="postgres", postgres_dsn=dsn)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_cluster_needs_the_address_of_its_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"BACKTEST_POOL_ADDRESS: .*must be the address"):
        load_settings(pool="dask")
    for address in ("tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786"):
        assert load_settings(pool="dask", pool_address=address).pool_address == address
    monkeypatch.setenv("BACKTEST_POOL_TLS", "/certificates")
    assert load_settings(pool="dask", pool_address="tls://scheduler:8786").pool == "dask"


def test_a_folder_that_was_refused_is_not_missed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTEST_POOL_TLS", "relative")
    with pytest.raises(ConfigurationError, match="must be an absolute folder") as caught:
        load_settings(pool="dask", pool_address="tls://scheduler:8786")
    assert "needs BACKTEST_POOL_TLS" not in str(caught.value)


def test_the_dsn_is_not_shown_by_printing_the_settings() -> None:
    settings = load_settings(run_store_mode="postgres", postgres_dsn="postgresql://u:hunter2@h/d")
    assert "hunter2" not in f"{settings!r} {settings}"


def test_variables_that_nobody_reads_are_told_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ARTIFACT_URL", "SERVICE_PROT", "OIDC_VIEWERS_ROLE", "COFFEE"):
        monkeypatch.setenv(f"BACKTEST_{name}", "hunter2")
    for name in ("BACKTEST_BARS", "backtest_bars", *READ_ELSEWHERE, "BACKTES_BARS"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("BACKTEST_EMPTY", "")
    assert unread_variables(Settings, ServiceSettings) == [
        "BACKTEST_ARTIFACT_URL is not a setting; did you mean BACKTEST_ARTIFACTS_URL?",
        "BACKTEST_COFFEE is not a setting; docs/reference/settings.md lists all",
        "BACKTEST_OIDC_VIEWERS_ROLE is not a setting; did you mean BACKTEST_OIDC_VIEWER_ROLE?",
        "BACKTEST_SERVICE_PROT is not a setting; did you mean BACKTEST_SERVICE_PORT?",
    ]


def test_what_is_read_elsewhere_is_all_that_is() -> None:
    """By docker-compose.yml, and by tests and benches."""
    settings = {
        f"BACKTEST_{name.upper()}"
        for kind in (Settings, ServiceSettings, NoticeSettings)
        for name in kind.model_fields
    }
    found = set(re.findall(r"\$\{(BACKTEST_\w+)", (ROOT / "docker-compose.yml").read_text()))
    for folder in ("backtest_pipeline_tests", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= set(re.findall(r'environ(?:\.get\(|\[)"(BACKTEST_\w+)"', path.read_text()))
    assert found - settings == READ_ELSEWHERE
