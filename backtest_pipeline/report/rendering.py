"""HTML pages from the templates beside this file."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jinja2 import Environment


class Tile(NamedTuple):
    """One of the key figures at the top of a page: what it is, its value, and a small line."""

    title: str
    value: str
    below: str


def render(template: str, **values: Any) -> str:
    """A page as text, the same bytes for the same values.

    Args:
        template: a file of `report/templates`.
        values: by the names that the template reads, all of which have to be there. Text is
            escaped but where a template says `safe`, which is for figures alone.
    """
    return _environment().get_template(template).render(values)


def template_text(name: str) -> str:
    """A file of `report/templates` as it is, such as a style sheet."""
    environment = _environment()
    assert environment.loader is not None  # noqa: S101  (it has the one below)
    return environment.loader.get_source(environment, name)[0]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("backtest_pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
