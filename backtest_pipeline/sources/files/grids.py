"""What a format's reader gives: a header, and columns by their position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

Load = Callable[[Sequence[int]], dict[int, pa.ChunkedArray]]


@dataclass(frozen=True)
class Grid:
    """Rows and columns of a file, as far as the format tells.

    Attributes:
        header: names of the columns as written, which may repeat; empty where the file has none.
        n_columns: how many columns there are.
        load: columns by position; text in plain `string`, a missing value null.
        first_line: number of the line of the first row; None where the format has no lines.
        levels: further lines of the header (yfinance writes the ticker in a line of its own).
    """

    header: tuple[str, ...]
    n_columns: int
    load: Load
    first_line: int | None = None
    levels: tuple[tuple[str, ...], ...] = ()


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with text as `string`, whatever its writer chose, and dictionaries decoded."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    is_text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return column.cast(pa.string()) if is_text or is_bytes else column
