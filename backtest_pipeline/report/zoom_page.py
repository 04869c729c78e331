"""The page on which a run's curves are zoomed into, and the files that it loads.

Plotly's own script draws it, from the installed package. A file is served under a name that holds a
hash of its content, so that a browser keeps it for good. The page needs neither inline styles nor
foreign hosts: the rules that the script would insert stand in `static/plotly_rules.css`.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from backtest_pipeline.report.rendering import render, template_text
from backtest_pipeline.report.run_report.contents import ReportedRun
from backtest_pipeline.report.run_report.table_markup import markup

ZOOM_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'"
)
"""The content security policy of the page."""
_SCRIPT, _STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
# The script asks for an element of this id before it inserts the styles of its maps.
_MAPS_ID = re.compile(rb'getElementById\("([0-9a-f]{64})"\)')


class PageFile(NamedTuple):
    """A file that the page loads: its media type, and its content gzipped."""

    media_type: str
    gzipped: bytes


def zoom_page(run: ReportedRun, files_at: str) -> str:
    """The curves of `run_figure` as a page, the same bytes for the same run.

    Args:
        run: the run; without its series the page says why they are missing.
        files_at: where `page_files` are served, as an address that ends with a slash.
    """
    from backtest_pipeline.report.run_figure import run_figure

    figure = run_figure(run).to_json()
    assert figure is not None  # noqa: S101  (Plotly writes no file here)
    found = _MAPS_ID.search(_plotly_script())
    return render(
        "zoom.html.j2",
        run=run,
        files=files_at,
        names=_names(),
        maps_id=found[1].decode() if found else "",
        # Nothing in a name can end the script element.
        figure=markup(figure.replace("<", "\\u003c")),
    )


@cache
def page_files() -> Mapping[str, PageFile]:
    """The files of the page by the names that they are served under."""
    names = _names()
    return {
        names[name]: PageFile(
            _SCRIPT if name.endswith(".js") else _STYLE, gzip.compress(content, 6, mtime=0)
        )
        for name, content in _contents().items()
    }


@cache
def _names() -> Mapping[str, str]:
    return {
        name: f"{hashlib.sha256(content).hexdigest()[:16]}-{name}"
        for name, content in _contents().items()
    }


def _contents() -> dict[str, bytes]:
    own = files("backtest_pipeline.report") / "static"
    return {
        "plotly.min.js": _plotly_script(),
        "run_report.css": template_text("run_report.css").encode(),
        **{name: (own / name).read_bytes() for name in ("plotly_rules.css", "zoom.js")},
    }


@cache
def _plotly_script() -> bytes:
    return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
