"""The batch: columns of many assets at one timeframe, stacked asset after asset.

Every stage works on panels, so that nothing loops over assets in Python. Within an asset the
rows are sorted by `ts`, unique; `offsets[i]:offsets[i + 1]` are the rows of `assets[i]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.timeframes import Timeframe

OHLCV = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Panel:
    """Rows of many assets at one timeframe.

    Attributes:
        timeframe: the timeframe that all rows share.
        assets: symbols, one for each segment.
        offsets: int64, `len(assets) + 1`; segment bounds.
        ts: int64, close stamps in microseconds since 1970 UTC.
        columns: arrays as long as `ts`.
    """

    timeframe: Timeframe
    assets: tuple[str, ...]
    offsets: np.ndarray
    ts: np.ndarray
    columns: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.assets) + 1 or self.offsets[-1] != len(self.ts):
            raise InvalidInput("panel offsets do not fit its assets and rows")
        for name, column in self.columns.items():
            if len(column) != len(self.ts):
                raise InvalidInput(f"panel column {name!r} is not as long as ts")

    def __len__(self) -> int:
        return len(self.ts)

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column]

    @property
    def lengths(self) -> np.ndarray:
        """Rows of each asset."""
        return np.diff(self.offsets)

    @property
    def segment_of_row(self) -> np.ndarray:
        """For each row the position of its asset in `assets`."""
        return np.repeat(np.arange(len(self.assets)), self.lengths)

    def rows_of(self, asset: str) -> slice:
        """The rows of one asset; raises UnknownName where it is not in the panel."""
        try:
            i = self.assets.index(asset)
        except ValueError:
            raise UnknownName("asset", asset, self.assets) from None
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def take(self, keep: np.ndarray) -> Panel:
        """The rows where the boolean array `keep` holds; all assets stay, some maybe empty."""
        kept = np.concatenate(([0], np.cumsum(keep)))
        columns = {name: column[keep] for name, column in self.columns.items()}
        return Panel(self.timeframe, self.assets, kept[self.offsets], self.ts[keep], columns)

    def select(self, assets: Sequence[str]) -> Panel:
        """The named assets, in the given order; the panel itself where these are its own."""
        if tuple(assets) == self.assets:
            return self
        slices = [self.rows_of(asset) for asset in assets]
        offsets = np.concatenate(([0], np.cumsum([s.stop - s.start for s in slices])))

        def pick(column: np.ndarray) -> np.ndarray:
            return np.concatenate([column[s] for s in slices]) if slices else column[:0]

        columns = {name: pick(column) for name, column in self.columns.items()}
        return Panel(
            self.timeframe, tuple(assets), offsets.astype(np.int64), pick(self.ts), columns
        )

    def windows(self, windows: Sequence[slice]) -> Panel:
        """Each of these rows, all of one asset, as a segment of its own; names may repeat."""
        lengths = [window.stop - window.start for window in windows]
        rows = np.concatenate([np.arange(w.start, w.stop) for w in windows] or [[]]).astype(int)
        at = np.searchsorted(self.offsets, [w.start for w in windows], side="right") - 1
        return Panel(
            self.timeframe,
            tuple(self.assets[i] for i in at.tolist()),
            np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
            self.ts[rows],
            {name: column[rows] for name, column in self.columns.items()},
        )

    def with_columns(self, columns: Mapping[str, np.ndarray]) -> Panel:
        """The same rows with these columns added or replaced."""
        return Panel(
            self.timeframe, self.assets, self.offsets, self.ts, {**self.columns, **columns}
        )

    def frame(self, asset: str) -> pd.DataFrame:
        """One asset as a data frame indexed by `ts` (tz-aware UTC)."""
        rows = self.rows_of(asset)
        data = {name: column[rows] for name, column in self.columns.items()}
        return pd.DataFrame(data, index=utc_index(self.ts[rows]))

    @staticmethod
    def join(
        timeframe: Timeframe,
        assets: Sequence[str],
        panels: Sequence[Panel],
        columns: Sequence[str],
    ) -> Panel:
        """The named assets from all panels, in the given order.

        An asset that is in none of the panels gets a segment without rows; one that is in several
        has its rows in the order of the panels.
        """
        if len(panels) == 1 and panels[0].assets == tuple(assets):
            return panels[0]
        found: dict[str, list[tuple[Panel, slice]]] = {asset: [] for asset in assets}
        for panel in panels:
            for asset, start, stop in zip(
                panel.assets, panel.offsets, panel.offsets[1:], strict=False
            ):
                if asset in found:
                    found[asset].append((panel, slice(int(start), int(stop))))
        pieces = [piece for asset in assets for piece in found[asset]]
        lengths = [sum(rows.stop - rows.start for _, rows in found[asset]) for asset in assets]
        nothing = np.empty(0)

        def joined(parts: list[np.ndarray]) -> np.ndarray:
            return np.concatenate(parts) if parts else nothing

        return Panel(
            timeframe,
            tuple(assets),
            np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
            joined([panel.ts[rows] for panel, rows in pieces]).astype(np.int64),
            {name: joined([panel[name][rows] for panel, rows in pieces]) for name in columns},
        )

    @staticmethod
    def stack(
        timeframe: Timeframe,
        frames: Mapping[str, pd.DataFrame],
        columns: Iterable[str] = OHLCV,
    ) -> Panel:
        """A panel from one data frame per asset, each indexed by sorted tz-aware stamps.

        Raises:
            InvalidInput: for a naive index or one that is not strictly increasing.
        """
        stamps = [stamps_us(frame.index, asset) for asset, frame in frames.items()]
        for asset, ts in zip(frames, stamps, strict=True):
            if len(ts) > 1 and not np.all(ts[1:] > ts[:-1]):
                raise InvalidInput(
                    f"{asset}: stamps are not strictly increasing; sort them and drop duplicates"
                )
        offsets = np.concatenate(([0], np.cumsum([len(ts) for ts in stamps]))).astype(np.int64)
        stacked = {
            name: np.concatenate(
                [f[name].to_numpy(np.float64, na_value=np.nan) for f in frames.values()]
            )
            if frames
            else np.empty(0)
            for name in columns
        }
        ts = np.concatenate(stamps) if stamps else np.empty(0, np.int64)
        return Panel(timeframe, tuple(frames), offsets, ts, stacked)


def utc_index(ts_us: np.ndarray) -> pd.DatetimeIndex:
    """Microseconds since 1970 UTC as a tz-aware index called `ts`."""
    return pd.DatetimeIndex(ts_us.view("M8[us]"), name="ts").tz_localize("UTC")


def stamps_us(index: pd.Index, where: str) -> np.ndarray:
    """A tz-aware index as int64 microseconds since 1970 UTC.

    This is the one place where stamps of pandas objects enter the project.

    Raises:
        InvalidInput: naming `where`, for an index without stamps, without a zone or with NaT.
    """
    if not isinstance(index, pd.DatetimeIndex):
        raise InvalidInput(f"{where}: the index must hold timestamps, not {index.dtype}")
    if index.tz is None:
        raise InvalidInput(f"{where}: stamps without a time zone; use .tz_localize('UTC')")
    if index.hasnans:
        raise InvalidInput(f"{where}: a stamp is missing (NaT); drop such rows")
    return index.tz_convert("UTC").tz_localize(None).to_numpy("M8[us]").astype(np.int64)
