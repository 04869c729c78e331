"""The cache of bars: what is known, by any number of processes, whatever happens to the files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.errors import BarsError, InvalidInput
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.sources.cache import BarCache, Held, Series, open_times
from backtest_pipeline.sources.segments import BARS, damaged_in, segments_in
from backtest_pipeline_tests.sources import cached_hours
from backtest_pipeline_tests.sources.cached_hours import BTC, HOUR, hours, span


def known(held: Held) -> dict[int, float]:
    opens = (open_times(held.bars) // HOUR).tolist()
    return dict(zip(opens, held.bars["open"].to_pylist(), strict=True))


def only_file(cache: BarCache) -> Path:
    (segment,) = segments_in(cache.folder(BTC))
    return segment.path


def test_a_span_is_a_hit_only_where_every_period_is_there_or_known_to_be_a_hole(
    tmp_path: Path,
) -> None:
    cache = BarCache(tmp_path)
    assert cache.read(BTC) == Held(BARS.empty_table(), [])
    cache.put(BTC, span(0, 100), hours(*range(50), *range(51, 100)))
    held = cache.look_up(BTC, span(0, 100))
    assert held.missing(span(0, 100)) == []
    assert held.holes(HOUR) == 1
    # One missing in a hundred is a miss.
    assert cache.look_up(BTC, span(0, 101)).missing(span(0, 101)) == [span(100, 101)]
    assert (cache.counts.hits, cache.counts.misses) == (1, 1)


def test_what_was_put_last_is_right_about_bars_and_about_holes(tmp_path: Path) -> None:
    cache = BarCache(tmp_path)
    cache.put(BTC, span(0, 10), hours(*range(10)))
    cache.put(BTC, span(3, 6), hours(3, 5, price=2.0))
    held = cache.read(BTC)
    assert known(held) == {i: 2.0 if i in (3, 5) else 1.0 for i in range(10) if i != 4}
    assert held.covered == [span(0, 10)]
    assert known(cache.read(BTC, span(2, 4))) == {2: 1.0, 3: 2.0}


@settings(max_examples=12, deadline=None)
@given(
    puts=st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 8), st.sets(st.integers(0, 28))),
        min_size=1,
        max_size=9,
    )
)
def test_any_order_of_puts_and_merges_reads_like_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory,
    puts: list[tuple[int, int, set[int]]],
) -> None:
    cache = BarCache(tmp_path_factory.mktemp("cache"), most_segments=2)
    bars: dict[int, float] = {}
    covered: set[int] = set()
    for version, (start, n, holes) in enumerate(puts):
        end = start + n + 1
        there = [i for i in range(start, end) if i not in holes]
        cache.put(BTC, span(start, end), hours(*there, price=float(version)))
        covered |= set(range(start, end))
        bars = {i: p for i, p in bars.items() if not start <= i < end}
        bars |= dict.fromkeys(there, float(version))
    before = cache.read(BTC)
    cache.tidy(BTC)
    for held in (before, cache.read(BTC), BarCache(cache.root).read(BTC)):
        assert known(held) == bars
        assert {at // HOUR for s in held.covered for at in range(s.start, s.end, HOUR)} == covered
    assert len(segments_in(cache.folder(BTC))) <= max(2, len(before.covered))


def test_a_changed_byte_is_noticed_and_put_aside_and_the_rest_stays(tmp_path: Path) -> None:
    cache = BarCache(tmp_path)
    cache.put(BTC, span(0, 10), hours(*range(10)))
    file = only_file(cache)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    cache.put(BTC, span(10, 20), hours(*range(10, 20)))

    fresh = BarCache(tmp_path)
    held = fresh.look_up(BTC, span(0, 20))
    assert held.missing(span(0, 20)) == [span(0, 10)]
    assert known(held) == dict.fromkeys(range(10, 20), 1.0)
    assert fresh.counts.quarantined == 1
    assert [path.read_bytes() for path in damaged_in(fresh.folder(BTC))] == [bytes(content)]
    fresh.put(BTC, span(0, 10), hours(*range(10)))
    assert fresh.read(BTC).missing(span(0, 20)) == []


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all"])
def test_a_file_that_is_cut_or_no_parquet_is_put_aside(tmp_path: Path, content: bytes) -> None:
    cache = BarCache(tmp_path)
    cache.put(BTC, span(0, 10), hours(*range(10)))
    cache.read(BTC)
    only_file(cache).write_bytes(content)
    assert cache.read(BTC).missing(span(0, 10)) == [span(0, 10)]
    assert cache.counts.quarantined == 1


def test_verify_finds_a_change_that_kept_size_and_time(tmp_path: Path) -> None:
    cache = BarCache(tmp_path)
    cache.put(BTC, span(0, 10), hours(*range(10)))
    cache.read(BTC)
    file = only_file(cache)
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(cache.verify(BTC)) == 1
    assert cache.verify(BTC) == []


def test_a_reader_goes_on_while_segments_are_merged_and_removed(tmp_path: Path) -> None:
    reader, writer = BarCache(tmp_path), BarCache(tmp_path)
    for i in range(17):
        writer.put(BTC, span(i, i + 1), hours(i))
    listed = segments_in(reader.folder(BTC))
    assert len(reader.read(BTC).bars) == 17
    writer.tidy(BTC)
    assert len(segments_in(reader.folder(BTC))) == 1
    assert not any(segment.path.exists() for segment in listed)
    assert known(reader.read(BTC)) == dict.fromkeys(range(17), 1.0)


def test_a_merge_that_was_killed_before_it_removed_the_parts_changes_nothing(
    tmp_path: Path,
) -> None:
    cache = BarCache(tmp_path)
    for i in range(17):
        cache.put(BTC, span(i // 2, i + 1), hours(*range(i // 2, i + 1), price=float(i)))
    before = {segment.path: segment.path.read_bytes() for segment in segments_in(cache.folder(BTC))}
    held = cache.read(BTC)
    cache.tidy(BTC)
    for path, content in before.items():
        path.write_bytes(content)
    again = BarCache(tmp_path).read(BTC)
    assert again == held


def test_what_a_killed_writer_left_is_never_read_and_swept_after_an_hour(tmp_path: Path) -> None:
    cache = BarCache(tmp_path)
    cache.put(BTC, span(0, 1), hours(0))
    abandoned = cache.folder(BTC) / ".unfinished-1"
    abandoned.write_bytes(b"half a page")
    assert known(cache.read(BTC)) == {0: 1.0}
    cache.tidy(BTC)
    assert abandoned.exists()
    os.utime(abandoned, (0, 0))
    cache.tidy(BTC)
    assert not abandoned.exists()


def test_the_series_used_longest_ago_goes_first_and_old_ones_go_anyway(tmp_path: Path) -> None:
    names = ("AAAUSDT", "BBBUSDT", "CCCUSDT")
    series = [Series("binance", name, timeframe("1H")) for name in names]
    cache = BarCache(tmp_path)
    now = time.time()
    for age_days, one in zip((3, 2, 1), series, strict=True):
        cache.put(one, span(0, 10), hours(*range(10)))
        os.utime(cache.folder(one), (now, now - age_days * 86_400))
    size, _ = cache.size(series[0])
    assert BarCache(tmp_path, most_bytes=10 * size).evict() == []
    assert BarCache(tmp_path, most_days=2.5).evict() == [series[0]]
    tight = BarCache(tmp_path, most_bytes=int(1.5 * size))
    assert tight.evict() == [series[1]]
    assert tight.counts.evicted == 1
    assert tight.series() == [series[2]]
    assert len(cache.read(series[1]).bars) == 0


def test_reading_counts_as_use(tmp_path: Path) -> None:
    cache = BarCache(tmp_path, most_days=1)
    cache.put(BTC, span(0, 1), hours(0))
    os.utime(cache.folder(BTC), (0, 0))
    cache.read(BTC)
    assert cache.evict() == []


def test_two_processes_write_merge_and_read_one_series_at_once(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-m", cached_hours.__name__, str(tmp_path), str(mine)])
        for mine in (0, 1)
    ]
    cache, seen = BarCache(tmp_path), 0
    while any(writer.poll() is None for writer in writers):
        held = cache.read(BTC)
        assert len(held.bars) >= seen, "a bar that was there has gone"
        seen = len(held.bars)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert known(cache.read(BTC)) == dict.fromkeys(range(24), 1.0)
    assert cache.read(BTC).covered == [span(0, 24)]
    assert cache.counts.quarantined == 0


def test_a_folder_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BarsError, match=r"cannot write bars to .*BACKTEST_CACHE_FOLDER"):
        BarCache(tmp_path / "file").put(BTC, span(0, 1), hours(0))


def test_a_symbol_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    for symbol in ("../../etc", "..", "a/b", ""):
        with pytest.raises(InvalidInput, match="symbol"):
            BarCache(tmp_path).folder(Series("binance", symbol, timeframe("1H")))
