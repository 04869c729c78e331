"""Panel: the columns of many assets at one timeframe, stacked one asset after another.

Every stage works on panels, so nothing loops over assets in Python. The rows of an asset have
unique, ascending `ts`; `offsets[i]:offsets[i + 1]` are the rows of `assets[i]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.timeframes import Timeframe

OHLCV = ("open", "high", "low", "close", "volume")
BAR_COLUMNS = (*OHLCV, "gap_bars")


@dataclass(frozen=True)
class Panel:
    """Rows of many assets at one timeframe.

    Attributes:
        timeframe: timeframe of all rows.
        assets: symbols, one per segment.
        offsets: int64 `(n_assets + 1,)`, first row of each segment, then the number of rows.
        ts: int64 `(n_rows,)`, close stamps in microseconds since 1970 UTC.
        columns: arrays `(n_rows,)` by name.
    """

    timeframe: Timeframe
    assets: tuple[str, ...]
    offsets: np.ndarray
    ts: np.ndarray
    columns: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.assets) + 1 or self.offsets[-1] != len(self.ts):
            raise InvalidInput(
                f"panel: offsets {len(self.offsets)} long, last {self.offsets[-1]}, do not match "
                f"{len(self.assets)} assets and {len(self.ts)} rows"
            )
        for name, column in self.columns.items():
            if len(column) != len(self.ts):
                raise InvalidInput(
                    f"panel column {name!r} has {len(column)} rows, but ts has {len(self.ts)}"
                )

    def __len__(self) -> int:
        return len(self.ts)

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column]

    @property
    def lengths(self) -> np.ndarray:
        """Number of rows of each asset, int64 `(n_assets,)`."""
        return np.diff(self.offsets)

    @property
    def segment_of_row(self) -> np.ndarray:
        """Position in `assets` of each row's asset, int64 `(n_rows,)`."""
        return np.repeat(np.arange(len(self.assets)), self.lengths)

    def rows_of(self, asset: str) -> slice:
        """The rows of one asset; raises UnknownName if it is not in the panel."""
        try:
            i = self.assets.index(asset)
        except ValueError:
            raise UnknownName("asset", asset, self.assets) from None
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def take(self, keep: np.ndarray) -> Panel:
        """The rows where `keep`, bool `(n_rows,)`, is True; all assets stay, some may be empty."""
        kept = np.concatenate(([0], np.cumsum(keep)))
        columns = {name: column[keep] for name, column in self.columns.items()}
        return Panel(self.timeframe, self.assets, kept[self.offsets], self.ts[keep], columns)

    def select(self, assets: Sequence[str]) -> Panel:
        """The named assets, in the given order; the panel itself if nothing changes."""
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
        """A panel with one segment per window of rows of one asset; asset names may repeat."""
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
        """The panel with these columns added or replaced."""
        return Panel(
            self.timeframe, self.assets, self.offsets, self.ts, {**self.columns, **columns}
        )

    def frame(self, asset: str) -> pd.DataFrame:
        """One asset as a data frame, indexed by `ts` (tz-aware, UTC)."""
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
        """The named assets of all panels as one panel, in the given order.

        An asset in none of the panels gets an empty segment; the rows of an asset in several
        panels follow the order of the panels.
        """
        if len(panels) == 1 and panels[0].assets == tuple(assets):
            return panels[0]
        segments: dict[str, list[tuple[Panel, slice]]] = {asset: [] for asset in assets}
        for panel in panels:
            for asset, start, stop in zip(
                panel.assets, panel.offsets, panel.offsets[1:], strict=False
            ):
                if asset in segments:
                    segments[asset].append((panel, slice(int(start), int(stop))))
        pieces = [piece for asset in assets for piece in segments[asset]]
        lengths = [sum(rows.stop - rows.start for _, rows in segments[asset]) for asset in assets]
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
        """A panel of one data frame per asset, each indexed by ascending tz-aware timestamps.

        Raises:
            InvalidInput: if an index has no time zone or is not strictly increasing, or a column
                holds something else than numbers and flags.
        """
        stamps = [stamps_us(frame.index, asset) for asset, frame in frames.items()]
        for asset, ts in zip(frames, stamps, strict=True):
            if len(ts) > 1 and not np.all(ts[1:] > ts[:-1]):
                raise InvalidInput(
                    f"{asset}: timestamps not strictly increasing; sort them and drop duplicates"
                )
        offsets = np.concatenate(([0], np.cumsum([len(ts) for ts in stamps]))).astype(np.int64)
        stacked = {
            name: np.concatenate([_numbers(f, name, asset) for asset, f in frames.items()])
            if frames
            else np.empty(0)
            for name in columns
        }
        ts = np.concatenate(stamps) if stamps else np.empty(0, np.int64)
        return Panel(timeframe, tuple(frames), offsets, ts, stacked)


def _numbers(frame: pd.DataFrame, name: str, asset: str) -> np.ndarray:
    try:
        return frame[name].to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"{asset}: column {name!r} holds something else than numbers: {error}; convert it, or "
            "leave it out"
        ) from error


def utc_index(ts_us: np.ndarray) -> pd.DatetimeIndex:
    """Microseconds since 1970 UTC as a tz-aware index named `ts`."""
    return pd.DatetimeIndex(ts_us.view("M8[us]"), name="ts").tz_localize("UTC")


def stamps_us(index: pd.Index, where: str) -> np.ndarray:
    """A tz-aware index as int64 microseconds since 1970 UTC.

    The only place where timestamps of pandas objects enter the project.

    Raises:
        InvalidInput: naming `where`, if the index has no timestamps, no time zone, or NaT.
    """
    if not isinstance(index, pd.DatetimeIndex):
        raise InvalidInput(f"{where}: the index must hold timestamps, not {index.dtype}")
    if index.tz is None:
        raise InvalidInput(
            f"{where}: the timestamps have no time zone; set it, as with .tz_localize('UTC')"
        )
    if index.hasnans:
        raise InvalidInput(f"{where}: some timestamps are missing (NaT); drop those rows")
    return index.tz_convert("UTC").tz_localize(None).to_numpy("M8[us]").astype(np.int64)
