"""What the user's own tables are called, as it is configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_MOST_PARTS = 2


@dataclass(frozen=True)
class ExternalNames:
    """Configured names, each as its parts (schema, table) or (table,).

    Attributes:
        features: the table of features.
        emas: the table of EMAs beside it, None where there is none.
        assets: the table that names assets, None where there is none.
        filters: the values that count, by column.
    """

    features: tuple[str, ...]
    emas: tuple[str, ...] | None
    assets: tuple[str, ...] | None
    filters: Mapping[str, tuple[str, ...]]

    @property
    def table(self) -> str:
        """The table of features, for messages."""
        return ".".join(self.features)


def parts_of(name: str) -> tuple[str, ...]:
    """`table` or `schema.table`, each part as Postgres stores it; raises ValueError."""
    parts = tuple(part.strip() for part in name.split("."))
    if len(parts) > _MOST_PARTS or not all(parts):
        raise ValueError(f"must be table or schema.table, not {name!r}")
    return parts


def filters_of(text: str) -> dict[str, tuple[str, ...]]:
    """`column=value,column=value|value` as values by column; raises ValueError."""
    found: dict[str, tuple[str, ...]] = {}
    for pair in filter(None, (piece.strip() for piece in text.split(","))):
        column, equals, values = (part.strip() for part in pair.partition("="))
        chosen = tuple(value.strip() for value in values.split("|"))
        if not column or not equals or not all(chosen):
            raise ValueError(
                f"must be column=value pairs such as alignment_source=multi_tf,venue_id=1;"
                f" {pair!r} is none"
            )
        if column in found:
            raise ValueError(f"names {column} twice; put | between the values of one column")
        found[column] = chosen
    return found
