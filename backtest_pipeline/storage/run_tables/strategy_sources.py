"""The table `strategy_sources`: users' own strategies, as they were when runs used them."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

from backtest_pipeline.storage.artifacts.code_archive import CodeArchive, zipped


def keep_strategy(
    connection: Connection, strategy: str, code_hash: str, origin: str, files: Mapping[str, bytes]
) -> None:
    """Store the files of a strategy, unless files of the same code are stored.

    Args:
        connection: its transaction makes the row appear.
        strategy: its name.
        code_hash: hash of its code.
        origin: where the files were read.
        files: content by path.
    """
    connection.execute(
        text("""
            INSERT INTO strategy_sources (strategy, code_hash, origin, archive)
            VALUES (:strategy, :code_hash, :origin, :archive) ON CONFLICT DO NOTHING
        """),
        {
            "strategy": strategy,
            "code_hash": code_hash,
            "origin": origin,
            "archive": zipped(files),
        },
    )


def files_in(archive: bytes | None) -> dict[str, bytes]:
    """The files of a column `archive`, by path; none where nothing was archived."""
    return CodeArchive(bytes(archive)).files() if archive is not None else {}


def files_of_strategies(archives: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of several strategies, by name of the strategy and path: `dip/dip.toml`."""
    return {
        f"{strategy}/{path}": data
        for strategy, archive in archives.items()
        for path, data in files_in(archive).items()
    }


def files_by_strategy(files: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """What `files_of_strategies` has put together, by name of the strategy.

    Examples:
        >>> files_by_strategy({"dip/dip.toml": b"", "surf/surf.py": b""})
        {'dip': {'dip.toml': b''}, 'surf': {'surf.py': b''}}
    """
    found: dict[str, dict[str, bytes]] = {}
    for name, data in files.items():
        strategy, _, path = name.partition("/")
        found.setdefault(strategy, {})[path] = data
    return found
