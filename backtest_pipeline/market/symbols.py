"""Characters that a key may contain, and the key of a symbol that cannot be one itself."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from backtest_pipeline.market.errors import ConfigurationError

# "|" separates the dimensions of a Dagster key; "," and "[...]" are its syntax for lists of keys.
SYMBOL_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._\-]{0,31}"
KEYS_VARIABLE = "BACKTEST_SYMBOL_KEYS"
"""Names a TOML file of `"symbol" = "key"`, which goes before the mapping."""
LONGEST_SYMBOL = 128
_LONGEST_KEY = 32
_HASH = 8


def key_of(symbol: str) -> str:
    """The key of a symbol in partitions, paths and addresses: always the same one.

    A symbol that can be a key is its own. Else `/` becomes `--` and `:` becomes `__`. Where other
    signs are left, or more than 32, those are replaced by `-` or cut off, and a dash and eight hex
    digits of the symbol's SHA-256 follow. The file that BACKTEST_SYMBOL_KEYS names goes before.

    Examples:
        >>> key_of("BTCUSDT"), key_of("BTC/USDT:USDT"), key_of("BINANCE:BTCUSDT.P")
        ('BTCUSDT', 'BTC--USDT__USDT', 'BINANCE__BTCUSDT.P')
        >>> key_of("^GSPC")
        'GSPC-df302d10'
    """
    own = symbol_keys().get(symbol)
    if own is not None:
        return own
    if re.fullmatch(SYMBOL_PATTERN, symbol):
        return symbol
    spelled = symbol.replace("/", "--").replace(":", "__")
    if re.fullmatch(SYMBOL_PATTERN, spelled):
        return spelled
    digest = hashlib.sha256(unicodedata.normalize("NFC", symbol).encode()).hexdigest()[:_HASH]
    legible = re.sub(r"[^A-Za-z0-9._\-]+", "-", spelled).strip("-._")
    legible = legible[: _LONGEST_KEY - _HASH - 1].rstrip("-._")
    return f"{legible}-{digest}" if legible else f"S-{digest}"


def symbol_keys() -> Mapping[str, str]:
    """The keys that the user has chosen, by symbol.

    Raises:
        ConfigurationError: where the file cannot be read, or a key of it cannot be one.
    """
    path = os.environ.get(KEYS_VARIABLE, "")
    if not path:
        return {}
    try:
        changed = Path(path).expanduser().stat().st_mtime_ns
    except OSError as reason:
        raise ConfigurationError(f"{KEYS_VARIABLE}={path}: {reason}; check the path") from reason
    return _read(path, changed)


@lru_cache(maxsize=4)
def _read(path: str, changed: int) -> Mapping[str, str]:
    try:
        table = tomllib.loads(Path(path).expanduser().read_text("utf-8"))
    except (OSError, ValueError) as reason:
        raise ConfigurationError(
            f'{path}: cannot be read as TOML ({reason}); write lines such as "BTC/USDT" = "BTCUSDT"'
        ) from reason
    chosen: dict[str, str] = {}
    for symbol, key in table.items():
        if not isinstance(key, str) or not re.fullmatch(SYMBOL_PATTERN, key):
            raise ConfigurationError(
                f"{path}: the key {key!r} of {symbol!r} is not 1 to 32 letters, digits, '.', '_' "
                "or '-', beginning with a letter or digit; choose another"
            )
        if key in chosen.values():
            raise ConfigurationError(f"{path}: two symbols have the key {key!r}; choose another")
        chosen[symbol] = key
    return chosen
