"""`backtest-pipeline bars`: what files of bars hold, and the local cache of exchange bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtest_pipeline.cli.console import (
    console,
    fail,
    print_json,
    progress_shown,
    rows_table,
    say,
)
from backtest_pipeline.cli.options import AsJson, End, Start
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.pipeline.spec_options import day_of

if TYPE_CHECKING:
    from backtest_pipeline.sources.binance.client import BinanceClient
    from backtest_pipeline.sources.cache import BarCache, Series
    from backtest_pipeline.sources.keep import Kept
    from backtest_pipeline.sources.spans import Span

app = typer.Typer(name="bars", help="Files of bars, and the local cache of exchange bars.")

Interval = Annotated[str, typer.Option(help="1m, 5m, 15m, 30m, 1h, 4h, 12h or 1d.")]


@app.command()
def pull(
    symbols: Annotated[list[str], typer.Argument(help="Binance spot symbols, such as BTCUSDT.")],
    interval: Interval = "1d",
    start: Start = None,
    end: End = None,
    again: Annotated[
        bool, typer.Option("--again", help="Fetch cached bars again too: they may be revised.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch bars from Binance into the cache; an interrupted pull resumes when run again."""
    _pull(
        [key_of(symbol) for symbol in symbols],
        interval,
        start=start,
        end=end,
        again=again,
        as_json=as_json,
    )


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="File or folder of bars; docs/bars.md.")],
    exchange: Annotated[str, typer.Option(help="Exchange that the bars are from.")] = "binance",
    as_json: AsJson = False,
) -> None:
    """Add the bars of a file to the cache; bars already cached are not replaced."""
    _import(file, exchange, as_json=as_json)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the cached series: first and last bar, holes, size."""
    _list(as_json=as_json)


@app.command()
def verify(
    symbols: Annotated[list[str] | None, typer.Argument(help="Symbols; default: all.")] = None,
    source: Annotated[
        bool, typer.Option("--source", help="Also compare with the bars Binance has today.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the hash of every cached file; damaged files are set aside and fetched when needed."""
    _verify([key_of(symbol) for symbol in symbols or ()], source=source, as_json=as_json)


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="File, archive or folder of bars.")],
    write: Annotated[
        bool, typer.Option(help="Write what was understood to bars.toml beside the files.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Say what is understood of files of bars and what is not, and write bars.toml."""
    _inspect(path, write=write, as_json=as_json)


@contextmanager
def _open_cache() -> Iterator[tuple[BarCache, BinanceClient]]:
    """The cache that the settings name, and the exchange."""
    from backtest_pipeline.market.errors import ConfigurationError
    from backtest_pipeline.sources.binance.client import BinanceClient
    from backtest_pipeline.storage.settings import exchange_access

    access = exchange_access()
    cache = access.cache()
    if cache is None:
        raise ConfigurationError(
            "BACKTEST_USE_CACHE is off, so no bars are cached; unset it or set it to true"
        )
    yield cache, BinanceClient(access.binance_url)
    cache.evict()


def _pull(
    symbols: Sequence[str],
    interval: str,
    *,
    start: str | None,
    end: str | None,
    again: bool,
    as_json: bool,
) -> None:
    from backtest_pipeline.sources.binance.klines import timeframe_of

    timeframe = timeframe_of(interval)
    first, last = day_of(start, "--start"), day_of(end, "--end")
    if first and last and last <= first:
        raise InvalidInput(f"--end {end} is not after --start {start}; --end is exclusive")
    rows = []
    with progress_shown() as progress, _open_cache() as (cache, client):
        from backtest_pipeline.sources.binance.pull import pull
        from backtest_pipeline.sources.cache import Series

        progress("exchange", 0, 1)
        now_us = client.now_us()
        span = _requested_span(first, last, now_us)
        progress("exchange", 1, 1)
        for symbol in dict.fromkeys(symbols):
            series = Series("binance", symbol, timeframe)
            stage = f"{symbol} {timeframe.name}"
            progress(stage, 0, 1)
            pulled = pull(
                client,
                cache,
                series,
                span,
                now_us=now_us,
                again=again,
                tell=lambda done, total, stage=stage: progress(stage, done, total),
            )
            progress(stage, max(pulled.pages, 1), max(pulled.pages, 1))
            rows.append({**_row(cache, series), "fetched": pulled.bars})
    _print("Cached bars", rows, as_json=as_json)


def _requested_span(first: date | None, last: date | None, now_us: int) -> Span:
    """The span between two days; without a start from the listing, without an end until now."""
    from backtest_pipeline.market.timeframes import DAY_US
    from backtest_pipeline.sources.spans import Span

    epoch = datetime(1970, 1, 1, tzinfo=UTC).date()
    span = Span(
        (first - epoch).days * DAY_US if first else 0,
        (last - epoch).days * DAY_US if last else now_us,
    )
    if span.start >= now_us:
        now = datetime.fromtimestamp(now_us / 1e6, UTC)
        raise InvalidInput(f"--start {first} is in the future; it is {now:%Y-%m-%d %H:%M} UTC")
    if span.end <= span.start or span.start < 0:
        raise InvalidInput(f"--end {last} is not after --start {first}; --end is exclusive")
    return span


def _import(file: Path, exchange: str, *, as_json: bool) -> None:
    with progress_shown() as progress, _open_cache() as (cache, _):
        from backtest_pipeline.sources.files import FileBars
        from backtest_pipeline.sources.keep import keep

        progress("importing", 0, 1)
        imported = keep(cache, exchange, FileBars(file.expanduser()))
        progress("importing", 1, 1)
        rows = [{**_row(cache, kept.series), "added": kept.added} for kept in imported]
    _print("Cached bars", rows, as_json=as_json)
    if not as_json:
        for kept in imported:
            _remark(kept)


def _inspect(path: str, *, write: bool, as_json: bool) -> None:
    with progress_shown() as progress:
        from backtest_pipeline.sources.files import FileBars
        from backtest_pipeline.sources.files.inspection import inspect_bars

        progress("reading", 0, 1)
        found = inspect_bars(FileBars(path))
        progress("reading", 1, 1)
    written = _written(found.settings, found.settings_path) if write else None
    if as_json:
        print_json(
            {
                "assets": list(found.assets),
                "not_understood": list(found.unread),
                "settings": found.settings,
                "settings_path": str(found.settings_path),
                "written": written == "written",
            }
        )
    else:
        shown = ("file", "layout", "symbol", "key", "timeframe", "stamp", "bars", "from", "until")
        if found.assets:
            rows = [{name: row[name] for name in shown} for row in found.assets]
            console.print(rows_table("Understood", rows))
        for row in found.assets:
            columns = ", ".join(f"{ours} = {theirs!r}" for ours, theirs in row["columns"].items())
            say(f"{row['file']} {row['symbol']}: {columns}; timeframe {row['told']}")
        for sentence in found.unread:
            say(f"not understood: {sentence}")
        if written:
            say(f"{found.settings_path}: {written}")
        else:
            console.print(found.settings, markup=False, highlight=False)
    if not found.assets:
        fail(f"nothing of {path} is understood; say in {found.settings_path} what is missing")


def _written(settings: str, path: Path) -> str:
    """What became of a settings file; one that is there is the user's and stays."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(settings)
    except FileExistsError:
        return "is there already and stays as it is"
    except OSError as reason:
        return f"cannot be written ({reason}); --no-write prints it"
    return "written"


def _remark(kept: Kept) -> None:
    for issue in kept.issues:
        say(f"{kept.series}: {issue.rows:,} rows: {issue.reason.explanation}")
    if kept.differing:
        say(f"{kept.series}: {kept.differing:,} bars differ from the cached ones, which were kept")


def _list(*, as_json: bool) -> None:
    with progress_shown() as progress, _open_cache() as (cache, _):
        progress("reading", 0, 1)
        rows = [_row(cache, series) for series in cache.series()]
        progress("reading", 1, 1)
        where = str(cache.root)
    _print("Cached bars", rows, as_json=as_json, where=where)


def _row(cache: BarCache, series: Series) -> dict[str, Any]:
    """A cached series as a row of the table and of the JSON."""
    from backtest_pipeline.sources.cache import open_times
    from backtest_pipeline.sources.spans import Span

    held = cache.read(series)
    n_bytes, n_files = cache.size(series)
    length, opens = series.length_us, open_times(held.bars)
    row = {**_name(series), "from": None, "until": None, "bars": len(opens), "holes": 0}
    unknown = []
    if len(opens):
        first, end = int(opens[0]), int(opens[-1]) + length
        unknown = held.missing(Span(first, end))
        row |= {"from": _minute(first), "until": _minute(end), "holes": held.holes(length)}
    return {
        **row,
        "unknown": sum(-(-(span.end - span.start) // length) for span in unknown),
        "kB": round(n_bytes / 1000),
        "files": n_files,
    }


def _minute(at_us: int) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m-%d %H:%M}"


def _verify(symbols: Sequence[str], *, source: bool, as_json: bool) -> None:
    from backtest_pipeline.sources.base import require_known

    rows = []
    with progress_shown() as progress, _open_cache() as (cache, client):
        every = cache.series()
        require_known(symbols, [series.symbol for series in every])
        chosen = [series for series in every if not symbols or series.symbol in symbols]
        now_us = client.now_us() if source else 0
        for i, series in enumerate(chosen):
            progress("verifying", i, len(chosen))
            row = {**_name(series), "damaged": len(cache.verify(series))}
            if source and series.exchange == "binance":
                row["changed"] = _changed(cache, client, series, now_us)
            rows.append(row)
        progress("verifying", len(chosen), len(chosen))
    _print("Verified", rows, as_json=as_json)
    damaged = sum(row["damaged"] for row in rows)
    if damaged:
        fail(
            f"{damaged} cached files are damaged and were renamed to *.damaged; "
            "`backtest-pipeline bars pull` fetches their bars again"
        )
    if any(row.get("changed") for row in rows):
        fail(
            "Binance has revised some of these bars since they were cached; "
            "`backtest-pipeline bars pull SYMBOL --again` replaces them"
        )


def _name(series: Series) -> dict[str, Any]:
    return {
        "exchange": series.exchange,
        "symbol": series.symbol,
        "timeframe": series.timeframe.name,
    }


def _changed(cache: BarCache, client: BinanceClient, series: Series, now_us: int) -> int:
    """How many bars differ between the cache and the exchange, missing ones on either side too."""
    import tempfile

    from backtest_pipeline.sources.binance.pull import pull
    from backtest_pipeline.sources.cache import BarCache as Cache
    from backtest_pipeline.sources.keep import changed

    held = cache.read(series)
    with tempfile.TemporaryDirectory(prefix="bars-") as folder:
        today = Cache(Path(folder))
        for span in held.covered:
            pull(client, today, series, span, now_us=now_us)
        return len(changed(held, today.read(series)))


def _print(
    title: str, rows: Sequence[dict[str, Any]], *, as_json: bool, where: str | None = None
) -> None:
    if as_json:
        print_json({"series": list(rows)} | ({"folder": where} if where else {}))
    elif rows:
        console.print(rows_table(title, rows))
    else:
        say("the cache is empty; `backtest-pipeline bars pull BTCUSDT --interval 1d` fills it")
    if where and not as_json:
        say(f"files: {where}")
