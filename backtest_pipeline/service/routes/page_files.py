"""Scripts and styles that pages load, under names that change with their content."""

from __future__ import annotations

import gzip
from typing import Annotated

from fastapi import APIRouter, Header, Response

from backtest_pipeline.report.zoom_page import page_files
from backtest_pipeline.service.problems import Problem, documented

router = APIRouter(tags=["pages"])
_A_YEAR = "public, max-age=31536000, immutable"


@router.get("/page-files/{name}", responses=documented("NOT_FOUND"), response_class=Response)
def page_file(name: str, accept_encoding: Annotated[str, Header()] = "") -> Response:
    """Download a script or style of a page, which holds nothing of the store and needs no key."""
    found = page_files().get(name)
    if found is None:
        raise Problem("NOT_FOUND", "no page loads a file of this name")
    content, headers = found.gzipped, {"Cache-Control": _A_YEAR, "Vary": "Accept-Encoding"}
    if "gzip" in accept_encoding:
        headers["Content-Encoding"] = "gzip"
    else:
        content = gzip.decompress(content)
    return Response(content, media_type=found.media_type, headers=headers)
