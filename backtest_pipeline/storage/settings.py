"""Settings of the store, read from the environment and validated once at start."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from backtest_pipeline.market.errors import ConfigurationError, UnknownName
from backtest_pipeline.market.field_problems import field_problem
from backtest_pipeline.market.symbols import symbol_keys
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.sources.choose import ExchangeAccess
from backtest_pipeline.storage.external.names import ExternalNames, filters_of, parts_of

PREFIX = "BACKTEST_"
# Variables with this prefix that no settings class reads: docker-compose.yml, tests or benches do.
READ_ELSEWHERE = frozenset(
    PREFIX + name
    for name in (
        *("DB_PASSWORD", "GRAFANA_PASSWORD", "METRICS_TOKEN", "IMAGE", "UID", "GID", "UI_NAMES"),
        *(f"{kind}_FOLDER" for kind in ("ARTIFACTS", "BARS", "COLUMNS", "STRATEGIES")),
        *(f"{kind}_MEMORY" for kind in ("RUNS", "SERVICE", "WORKER")),
        "POOL_REPLICAS",
        *("CHAOS_SEED", "EXAMPLES", "FAULT_SCRIPTS", "FUZZ_EXAMPLES", "KILLED_AT", "TEST_DATA"),
    )
)
_BUCKETS = ("s3", "az", "abfs", "abfss", "gs")
_Kind = TypeVar("_Kind", bound=BaseSettings)
DEFAULT_WRITERS = 4
DEFAULT_TIMEFRAMES = ("1H", "4H", "12H", "1D", "2D", "3D", "1W", "2W", "1M", "1M_CAL")


def default_home() -> Path:
    """The folder that holds everything unless `BACKTEST_HOME` says otherwise.

    For root it is below `/var/lib`: PostgreSQL then runs as another user, which could reach a
    folder below root's home only if that home were open to everybody.
    """
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/backtest_pipeline")
    return user_data_path("backtest_pipeline")


class Settings(BaseSettings):
    """Settings of the store and its data; one field per `BACKTEST_...` variable.

    Attributes:
        run_store_mode: `embedded` for a private PostgreSQL server below the home, or `postgres` for
            a server of yours.
        postgres_dsn: connection string in mode `postgres`, a URL or `key=value` words; a secret.
        home: absolute folder of the embedded server, Dagster's settings and, by default, the
            artifacts.
        bars: file or folder of bars, or an exchange with an interval such as `binance:1h`
            (docs/data-sources.md); empty for the synthetic sample market.
        symbol_keys: TOML file with the keys of symbols, `"BTC/USDT" = "BTCUSDT"`; other symbols get
            theirs by the mapping of docs/bars.md.
        timeframes: timeframes that assets are partitioned by, separated by spaces or commas.
        store_retry_s: seconds to wait for an unavailable database, or for the scheduler and the
            workers of a pool, before giving up; 0 for no waiting.
        writers: most transactions of refreshes that write in bulk at once, over all processes and
            hosts of the store; as many as the database server has cores, or a few more
            (docs/operations.md). Give all hosts the same number.
        artifacts_url: an absolute local folder, or a bucket with an optional prefix (`s3://`,
            `az://`, `abfss://`, `gs://`; docs/operations.md); empty for `<home>/artifacts`.
        optimizer_max_combinations: maximum number of parameter combinations that one sweep
            evaluates.
        wfo_threshold: walk-forward efficiency below which a strategy is called overfit.
        binance_url: base URL of Binance's REST API.
        use_cache: whether to cache bars of an exchange, and read them from the cache.
        cache_folder: absolute folder of cached bars; empty for `<home>/cache/bars`.
        cache_max_gb: maximum size of the cache of bars, and of the local copies of a bucket's
            artifacts; the least recently used are removed first.
        cache_max_days: cached bars not used for this many days are removed.
        retention_days: retention deletes results older than this many days, unless they are pinned
            or needed (docs/results.md).
        retention_log_days: retention trims Dagster's log of runs that ended more than this many
            days ago; how assets stand is kept (docs/operations.md).
        features_table: external feature table, `table` or `schema.table`
            (docs/external-features.md); it is used instead of `BACKTEST_BARS`. Empty to build
            features from bars.
        features_dsn: connection string of its database, for a role that may only read; a secret.
            Empty if it is in the store's own database.
        features_ema_table: external table of EMAs; empty to compute EMAs from closes.
        features_assets_table: table with `id` and `symbol` of its assets; empty for the symbols of
            the store, or `ID-<id>`.
        features_filters: `column=value` for each key column of the table other than id, ts and tf,
            separated by commas, such as `alignment_source=multi_tf,venue_id=1`; `|` separates
            several values of one column.
        strategies: absolute folder of your own strategies (docs/strategies.md); empty for
            `<home>/strategies`.
        columns: absolute folder of files with columns of your own, such as a model's scores
            (docs/columns.md); empty for `<home>/columns`.
        strategies_trust: whether to load strategies that another user owns or may write, such as
            those of a mount into a container.
        service_url: public address of the HTTP service, such as `https://desk.example.com`, which
            `run` and Dagster link reports to; empty for no links.
        pool: where the work of a run is done (docs/scaling.md): `inline` in threads of its process,
            `processes` in warm worker processes on this host, `dask` on a cluster.
        pool_workers: number of worker processes on this host; by default as many as there are cores
            that this process may use, in a container at most those that it is limited to.
            With `inline`, the number of threads, by default 2.
        pool_address: address of the Dask scheduler, such as `tls://scheduler:8786`; without TLS
            only on this host, such as `tcp://127.0.0.1:8786`.
        pool_tls: absolute folder with `ca.pem`, `cert.pem` and `key.pem`, which scheduler, workers
            and clients show each other.
        log_format: `json` or `text` for log lines on stderr (docs/observability.md); empty for
            `json` from the service and `text` from commands.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True
    )

    run_store_mode: Literal["embedded", "postgres"] = "embedded"
    postgres_dsn: SecretStr | None = Field(default=None, validate_default=True)
    home: Path = Field(default_factory=default_home)
    store_retry_s: float = Field(default=120, ge=0, le=3600)
    writers: int = Field(default=DEFAULT_WRITERS, ge=1, le=1000)
    artifacts_url: str = ""
    bars: str = ""
    symbol_keys: str = ""
    timeframes: Annotated[tuple[str, ...], NoDecode] = DEFAULT_TIMEFRAMES
    optimizer_max_combinations: int = Field(default=500, ge=1, le=1_000_000)
    wfo_threshold: float = Field(default=0.6, gt=0, le=10)
    binance_url: str = "https://api.binance.com"
    use_cache: bool = True
    cache_folder: Path | None = None
    cache_max_gb: float = Field(default=10, gt=0)
    cache_max_days: float = Field(default=365, gt=0)
    retention_days: float = Field(default=90, gt=0, le=36_500)
    retention_log_days: float = Field(default=14, gt=0, le=36_500)
    features_table: str = ""
    features_dsn: SecretStr | None = None
    features_ema_table: str = ""
    features_assets_table: str = ""
    features_filters: str = ""
    strategies: Path | None = None
    strategies_trust: bool = False
    columns: Path | None = None
    service_url: str = ""
    pool: Literal["inline", "processes", "dask"] = "inline"
    pool_workers: int | None = Field(default=None, ge=1, le=1024)
    pool_tls: Path | None = None
    pool_address: str = Field(default="", validate_default=True)
    log_format: Literal["", "json", "text"] = ""

    @field_validator("symbol_keys")
    @classmethod
    def _symbol_keys_can_be_read(cls, path: str) -> str:
        try:
            symbol_keys()
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return path

    @field_validator("timeframes", mode="before")
    @classmethod
    def _timeframes_exist(cls, names: str | tuple[str, ...]) -> tuple[str, ...]:
        given = names.replace(",", " ").split() if isinstance(names, str) else names
        if not given:
            raise ValueError("must name at least one timeframe, such as 1D")
        try:
            chosen = {timeframe(name) for name in given}
        except UnknownName as error:
            raise ValueError(str(error)) from None
        return tuple(tf.name for tf in sorted(chosen, key=lambda tf: tf.sort_key))

    @field_validator("postgres_dsn")
    @classmethod
    def _dsn_is_given_and_parses(
        cls, dsn: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        if info.data.get("run_store_mode") != "postgres":
            return dsn
        if dsn is None:
            raise ValueError("is required if BACKTEST_RUN_STORE_MODE=postgres")
        return _parsed(dsn)

    @field_validator("features_table", "features_ema_table", "features_assets_table")
    @classmethod
    def _table_is_named(cls, name: str) -> str:
        return ".".join(parts_of(name)) if name else ""

    @field_validator("features_filters")
    @classmethod
    def _filters_parse(cls, text: str) -> str:
        filters_of(text)
        return text

    @field_validator("features_dsn")
    @classmethod
    def _features_dsn_parses(cls, dsn: SecretStr | None) -> SecretStr | None:
        return _parsed(dsn) if dsn is not None else None

    @field_validator(
        "features_dsn", "features_ema_table", "features_assets_table", "features_filters"
    )
    @classmethod
    def _is_of_a_table(cls, given: Any, info: ValidationInfo) -> Any:
        if given and not info.data.get("features_table", True):
            raise ValueError("has no effect without BACKTEST_FEATURES_TABLE")
        return given

    @field_validator("pool_address")
    @classmethod
    def _scheduler_is_safe(cls, address: str, info: ValidationInfo) -> str:
        if info.data.get("pool") != "dask" and not address:
            return address
        parts = urlsplit(address)
        if parts.scheme not in ("tcp", "tls") or not parts.hostname or not _port_of(address):
            raise ValueError(
                "must be the address of a Dask scheduler with its port, such as "
                f"tls://scheduler:8786, not {address!r}"
            )
        if parts.scheme == "tcp" and not is_loopback(parts.hostname):
            raise ValueError(
                f"{address} is not on this host, and without TLS whoever reaches it can run code "
                "there: write tls://, and set BACKTEST_POOL_TLS (docs/scaling.md)"
            )
        # A folder that was refused is missing here too, and was complained of already.
        if parts.scheme == "tls" and info.data.get("pool_tls", "refused") is None:
            raise ValueError(
                "needs BACKTEST_POOL_TLS, the folder of ca.pem, cert.pem and key.pem; "
                "`backtest-pipeline pool certificates FOLDER` makes them"
            )
        return address

    @field_validator("home", "cache_folder", "strategies", "columns", "pool_tls")
    @classmethod
    def _folder_is_absolute(cls, folder: Path | None) -> Path | None:
        if folder is None:
            return None
        folder = folder.expanduser()
        if not folder.is_absolute():
            raise ValueError(f"must be an absolute folder, not {str(folder)!r}")
        return folder

    @field_validator("binance_url")
    @classmethod
    def _url_is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"must be an address like https://api.binance.com, not {url!r}")
        return url

    @field_validator("service_url")
    @classmethod
    def _service_is_somewhere(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query):
            raise ValueError(f"must be an address like https://desk.example.com, not {url!r}")
        return url.rstrip("/")

    @field_validator("artifacts_url")
    @classmethod
    def _artifacts_are_somewhere(cls, url: str) -> str:
        scheme = urlsplit(url).scheme
        if scheme not in ("", "file"):
            return _bucket(url)
        if url and not _local_folder(url).is_absolute():
            raise ValueError(f"must be an absolute folder, not {url!r}")
        return url

    @property
    def strategies_folder(self) -> Path:
        """The folder of the user's own strategies."""
        return self.strategies or self.home / "strategies"

    @property
    def columns_folder(self) -> Path:
        """The folder of the user's own columns."""
        return self.columns or self.home / "columns"

    @property
    def bar_cache(self) -> Path:
        """The folder of cached exchange bars."""
        return self.cache_folder or self.home / "cache" / "bars"

    @property
    def artifacts_folder(self) -> Path:
        """The folder of the artifacts, or of their local copies if they are in a bucket."""
        if self.artifacts_bucket:
            return self.home / "cache" / "artifacts"
        return _local_folder(self.artifacts_url) if self.artifacts_url else self.home / "artifacts"

    @property
    def artifacts_bucket(self) -> str:
        """The URL of the artifact bucket; empty if artifacts are in a local folder."""
        return self.artifacts_url if urlsplit(self.artifacts_url).scheme in _BUCKETS else ""

    @property
    def external(self) -> ExternalNames | None:
        """The external tables; None if features are built from bars."""
        if not self.features_table:
            return None
        return ExternalNames(
            parts_of(self.features_table),
            parts_of(self.features_ema_table) if self.features_ema_table else None,
            parts_of(self.features_assets_table) if self.features_assets_table else None,
            filters_of(self.features_filters),
        )

    def bars_of(self, given: str = "") -> str:
        """The bars that features are built from: `given`, by default the setting `bars`.

        Empty with an external feature table, which takes precedence over `BACKTEST_BARS`.

        Raises:
            ConfigurationError: if bars are given with an external feature table.
        """
        if self.external is None:
            return given or self.bars
        if given:
            raise ConfigurationError(
                f"features come from the table {self.external.table}, and bars ({given}) cannot"
                " replace it; unset BACKTEST_FEATURES_TABLE to build features from bars"
            )
        return ""


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(**overrides: Any) -> Settings:
    """The store settings of this process; see `read_settings`."""
    return read_settings(Settings, **overrides)


def read_settings(kind: type[_Kind], **overrides: Any) -> _Kind:
    """Read settings from the environment; `overrides` replace fields by name.

    Raises:
        ConfigurationError: naming each missing or invalid variable; never with a secret's value.
    """
    try:
        return kind(**overrides)
    except ValidationError as error:
        complaints = ", and ".join(_complaint(e) for e in error.errors())
        raise ConfigurationError(f"{complaints}; correct the setting or unset it") from None


def unread_variables(*kinds: type[BaseSettings]) -> list[str]:
    """A message for each variable that has our prefix and is set, but that no settings read.

    The message suggests the closest known name, and never shows the variable's value.

    Args:
        kinds: all settings classes.
    """
    known = READ_ELSEWHERE | {PREFIX + name.upper() for kind in kinds for name in kind.model_fields}
    # Like the settings: names are case-insensitive, and an empty value counts as not set.
    given = sorted(n for n, value in os.environ.items() if value and n.upper().startswith(PREFIX))
    return [_unread(name, known) for name in given if name.upper() not in known]


def exchange_access(settings: Settings | None = None) -> ExchangeAccess:
    """Access to exchanges (URL and cache), by these settings or those of the environment."""
    chosen = settings or load_settings()
    return ExchangeAccess(
        binance_url=chosen.binance_url,
        cache_folder=chosen.bar_cache if chosen.use_cache else None,
        cache_bytes=int(chosen.cache_max_gb * 1e9),
        cache_days=chosen.cache_max_days,
    )


def _unread(name: str, known: Iterable[str]) -> str:
    # Without the prefix, which would make any two names similar.
    ends = [one.removeprefix(PREFIX) for one in sorted(known)]
    near = get_close_matches(name.upper().removeprefix(PREFIX), ends, n=1)
    hint = f"did you mean {PREFIX}{near[0]}?" if near else "docs/reference/settings.md lists all"
    return f"{name} is not a setting; {hint}"


def _complaint(error: Any) -> str:
    variable = PREFIX + str(error["loc"][0]).upper()
    return f"{variable}: {field_problem(error)}"


def _parsed(dsn: SecretStr) -> SecretStr:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(dsn.get_secret_value())
    except psycopg.Error:  # libpq's message quotes pieces of the DSN, so it is not shown
        raise ValueError(
            "is not a valid connection string; write postgresql://user:password@host:5432/database,"
            " with %40 for an @ in the password"
        ) from None
    return dsn


def _port_of(address: str) -> int | None:
    try:
        return urlsplit(address).port
    except ValueError:
        return None


def _local_folder(url: str) -> Path:
    path = unquote(urlsplit(url).path) if url.startswith("file:") else url
    return Path(path).expanduser()


def _bucket(url: str) -> str:
    """The URL of a bucket without a trailing slash; an invalid one is not quoted in the error."""
    parts = urlsplit(url)
    if parts.scheme not in _BUCKETS:
        raise ValueError(
            f"{parts.scheme}:// is not supported; give an absolute folder, s3://bucket/prefix,"
            " az://container/prefix or gs://bucket/prefix"
        )
    # In abfs://container@account... the first part is not a user name.
    named = parts.username is not None and not parts.scheme.startswith("abfs")
    if parts.password is not None or named or parts.query or parts.fragment:
        raise ValueError(
            "must be only a bucket and a prefix; put credentials into the variables of the object"
            " store (AWS_..., AZURE_..., GOOGLE_...)"
        )
    if not parts.hostname or {".", ".."} & set(unquote(parts.path).split("/")):
        raise ValueError(
            f"must name a bucket, with an optional prefix: {parts.scheme}://bucket/prefix"
        )
    return url.rstrip("/")
