"""The environment of a computation: interpreter, machine type and packages that affect numbers."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from backtest_pipeline.storage.postgres import copy

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

_PACKAGES = ("llvmlite", "numba", "numpy", "optuna", "pandas", "pyarrow")


@cache
def environment() -> Mapping[str, Any]:
    """`python`, `machine` and package `versions` as JSON values, without paths or host names."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in _PACKAGES},
    }


@cache
def environment_hash() -> str:
    """Hash of the environment."""
    text_of = json.dumps(environment(), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text_of.encode(), digest_size=16).hexdigest()


def record_environment(cursor: Cursor) -> None:
    """Record this environment under its hash, in the cursor's transaction."""
    known = environment()
    copy.run(
        cursor,
        "INSERT INTO environments (environment_hash, python, machine, versions)"
        " VALUES ($1, $2, $3, $4::jsonb) ON CONFLICT DO NOTHING",
        environment_hash(),
        known["python"],
        known["machine"],
        json.dumps(known["versions"]),
    )


def recorded_environments(
    connection: Connection, hashes: Iterable[str]
) -> dict[str, Mapping[str, Any]]:
    """The recorded environments, as `environment` returns them, by hash."""
    rows = connection.execute(
        text(
            "SELECT environment_hash, python, machine, versions FROM environments"
            " WHERE environment_hash = ANY(:hashes)"
        ),
        {"hashes": sorted(set(hashes))},
    )
    return {
        row.environment_hash: {
            "python": row.python,
            "machine": row.machine,
            "versions": row.versions,
        }
        for row in rows
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs between two environments, such as `numba 0.66.0 -> 0.67.1`."""
    flat = [{"python": e["python"], "machine": e["machine"], **e["versions"]} for e in (one, other)]
    return [
        f"{name} {flat[0].get(name, 'absent')} -> {flat[1].get(name, 'absent')}"
        for name in sorted({*flat[0], *flat[1]})
        if flat[0].get(name) != flat[1].get(name)
    ]
