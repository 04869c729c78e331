"""Configured names of the external tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_MOST_PARTS = 2


@dataclass(frozen=True)
class ExternalNames:
    """Configured names, each as its parts (schema, table) or (table,).

    Attributes:
        features: the feature table.
        emas: the EMA table, None without one.
        assets: the table with the symbols of assets, None without one.
        filters: the accepted values, by column.
    """

    features: tuple[str, ...]
    emas: tuple[str, ...] | None
    assets: tuple[str, ...] | None
    filters: Mapping[str, tuple[str, ...]]

    @property
    def table(self) -> str:
        """Name of the feature table, for messages."""
        return ".".join(self.features)


def parts_of(name: str) -> tuple[str, ...]:
    """Split `table` or `schema.table` into its parts; raises ValueError."""
    parts = tuple(part.strip() for part in name.split("."))
    if len(parts) > _MOST_PARTS or not all(parts):
        raise ValueError(f"must be table or schema.table, not {name!r}")
    return parts


def filters_of(text: str) -> dict[str, tuple[str, ...]]:
    """Parse `column=value,column=value|value` into values by column; raises ValueError."""
    filters: dict[str, tuple[str, ...]] = {}
    for pair in filter(None, (piece.strip() for piece in text.split(","))):
        column, equals, values = (part.strip() for part in pair.partition("="))
        chosen = tuple(value.strip() for value in values.split("|"))
        if not column or not equals or not all(chosen):
            raise ValueError(
                f"must be column=value pairs such as alignment_source=multi_tf,venue_id=1;"
                f" {pair!r} is not such a pair"
            )
        if column in filters:
            raise ValueError(f"names {column} twice; separate the values of one column by |")
        filters[column] = chosen
    return filters
