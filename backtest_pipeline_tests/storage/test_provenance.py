from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.storage.provenance import content_versions


def panel_of(**assets: list[float]) -> Panel:
    lengths = [len(values) for values in assets.values()]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    ts = np.concatenate([np.arange(n) for n in lengths]).astype(np.int64)
    close = np.concatenate([np.array(values, float) for values in assets.values()])
    columns = {"close": close, "open": close + 1, "flag": close > 0}
    return Panel(timeframe("1D"), tuple(assets), offsets, ts, columns)


def version(panel: Panel, asset: str = "a", columns: tuple[str, ...] = ("close", "flag")) -> str:
    return content_versions(panel, columns).whole[asset]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=9))
def test_a_version_does_not_depend_on_the_other_assets(values: list[float]) -> None:
    alone = version(panel_of(a=values))
    assert version(panel_of(b=[1.0, 2.0], a=values, c=[])) == alone


@pytest.mark.parametrize(
    "other",
    [
        panel_of(a=[1.0, 2.0, 4.0]),
        panel_of(a=[1.0, 2.0]),
        panel_of(a=[1.0, 2.0, 3.0, 3.0]),
        panel_of(a=[1.0, np.nan, 3.0]),
        panel_of(a=[1.0, 3.0, 2.0]),
    ],
)
def test_any_other_content_has_another_version(other: Panel) -> None:
    assert version(panel_of(a=[1.0, 2.0, 3.0])) != version(other)


def test_stamps_columns_and_timeframe_count() -> None:
    panel = panel_of(a=[1.0, 2.0])
    base = version(panel)
    later = Panel(panel.timeframe, panel.assets, panel.offsets, panel.ts + 1, panel.columns)
    weekly = Panel(timeframe("1W"), panel.assets, panel.offsets, panel.ts, panel.columns)
    assert len({base, version(later), version(weekly), version(panel, "a", ("close", "open"))}) == 4


def test_every_nan_is_the_same_nan() -> None:
    odd = np.array([0x7FF8_0000_0000_0123], np.uint64).view(np.float64)
    panel, other = panel_of(a=[np.nan]), panel_of(a=[float(odd[0])])
    other = other.with_columns({"close": odd})
    assert np.isnan(odd).all()
    assert version(panel) == version(other)


def test_a_version_is_the_same_on_every_machine() -> None:
    nan = b"\0\0\0\0\0\0\xf8\x7f"
    digest = hashlib.sha256(b"1D\0close:f8\0flag:i8\0")
    digest.update(struct.pack("<2qd", 0, 1, 1.5))
    digest.update(struct.pack("<2q", 1, 0) + nan)
    digest.update(struct.pack("<2qd", 2, 0, -2.0))
    assert version(panel_of(a=[1.5, np.nan, -2.0])) == digest.hexdigest()[:32]


@given(st.lists(st.integers(0, 9_000), min_size=1, max_size=4), st.data())
@settings(max_examples=30, deadline=None)
def test_a_beginning_has_the_version_that_it_has_alone(
    lengths: list[int], data: st.DataObject
) -> None:
    values = {f"a{i}": [float(i + row) for row in range(n)] for i, n in enumerate(lengths)}
    asset = data.draw(st.sampled_from(sorted(values)))
    n = data.draw(st.integers(0, len(values[asset])))
    columns = ("close", "flag")
    found = content_versions(panel_of(**values), columns, {asset: n - 1})
    assert found.beginning == {asset: version(panel_of(**{asset: values[asset][:n]}), asset)}
    assert found.whole == content_versions(panel_of(**values), columns).whole


def test_a_whole_number_is_not_the_number_with_the_same_bytes() -> None:
    panel = panel_of(a=[1.0])
    bits = panel.with_columns({"close": panel["close"].view(np.int64)})
    assert version(panel) != version(bits)


def test_the_values_are_not_changed_by_hashing() -> None:
    panel = panel_of(a=[np.nan, 1.0])
    before = panel["close"].tobytes()
    version(panel)
    assert panel["close"].tobytes() == before
