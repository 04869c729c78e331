"""Columns of prices and volumes as floats; whatever is no number is named with its line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.sources.files.settings_file import SETTINGS_NAME

MISSING = ("nan", "null", "none", "n/a", "na", "#n/a", "-", "--", "<na>", "nat")


def numbers(
    column: pa.ChunkedArray, decimal: str | None, name: str, line: Callable[[int], str]
) -> np.ndarray:
    """A column as float64; NaN where nothing stands.

    Args:
        column: numbers, or text in plain `string`.
        decimal: the sign before decimals, where it is stated.
        name: of the column in the file.
        line: the place of a row, for messages.

    Raises:
        BarsError: for text that is no number, with its line.
    """
    if not pa.types.is_string(column.type):
        try:
            # Not safely: an integer beyond 2^53 is rounded, as in any reader of floats.
            return column.cast(pa.float64(), safe=False).to_numpy()
        except pa.ArrowException as reason:
            raise BarsError(
                f"{line(0)}: column {name!r} holds something that is no number: {reason}"
            ) from reason
    missing = pc.call_function("is_in", [pc.call_function("utf8_lower", [column])], _set(MISSING))
    text = pc.call_function("if_else", [missing, pa.scalar(None, pa.string()), column])
    if decimal == ",":
        text = _replaced(_replaced(text, ".", ""), ",", ".")
    elif decimal == ".":
        text = _replaced(text, ",", "")
    try:
        return text.cast(pa.float64()).to_numpy()
    except pa.ArrowException:
        raise BarsError(_not_a_number(text, name, line)) from None


def _set(values: tuple[str, ...]) -> pc.SetLookupOptions:
    return pc.SetLookupOptions(value_set=pa.array(values))


def _replaced(text: pa.ChunkedArray, sign: str, by: str) -> pa.ChunkedArray:
    options = pc.ReplaceSubstringOptions(pattern=sign, replacement=by)
    return pc.call_function("replace_substring", [text], options)


def _not_a_number(text: pa.ChunkedArray, name: str, line: Callable[[int], str]) -> str:
    for row, value in enumerate(text.to_pylist()):
        try:
            float(value or 0)
        except ValueError:
            said = f"{line(row)}: column {name!r}: invalid value {value!r}"
            bare = value.replace(",", "").replace(".", "")
            if "," in value and bare.lstrip("+-").isdigit():
                german = value.replace(".", "").replace(",", ".")
                return (
                    f"{said}, which may be {german} (decimal comma) or {value.replace(',', '')} "
                    f"(commas between thousands); say which in {SETTINGS_NAME} beside the file: "
                    "decimal = ',' or decimal = '.'"
                )
            return f"{said} is no number; fix it, or leave the cell empty"
    return f"{line(0)}: column {name!r} holds something that is no number"
