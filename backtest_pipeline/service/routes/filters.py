"""What routes are asked with besides questions: filters of lists, pages, and names."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from backtest_pipeline.storage.postgres.pages import MOST_ROWS

# The database takes no NUL, and nothing that people look for has control characters.
PLAIN = r"^[^\x00-\x1f\x7f]*$"
Word = Annotated[str | None, Field(None, max_length=100, pattern=PLAIN)]
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS, description="Rows of the page.")]
After = Annotated[
    str | None, Query(max_length=1000, pattern=PLAIN, description="`next` of the page before.")
]
ArtifactName = Annotated[
    str, Path(max_length=200, pattern=PLAIN, description="As the manifest of the run lists it.")
]


class ListQuery(BaseModel):
    """A page of a list about strategies on assets; what is not given is any."""

    model_config = ConfigDict(extra="forbid")

    strategy: Word
    symbol: Word
    timeframe: Word
    limit: int = Field(50, ge=1, le=MOST_ROWS, description="rows of the page")
    after: str | None = Field(
        None, max_length=1000, pattern=PLAIN, description="`next` of the page before"
    )


class JobQuery(ListQuery):
    """Which jobs are wanted; what is not given is any."""

    created_by: Word
    kind: Word
    status: Word
    created_from: date | None = Field(None, description="first UTC day on which they were asked")
    created_until: date | None = Field(None, description="UTC day after the last")
    text: Word


class BlockQuery(ListQuery):
    """Which blocked entries are counted, a run in each row; what is not given is any."""

    reason: Word


class RunQuery(ListQuery):
    """Which runs are wanted; what is not given is any."""

    requested_by: Word
    completed_from: date | None = Field(None, description="first UTC day on which they ended")
    completed_until: date | None = Field(None, description="UTC day after the last")
    status: Word
    text: Word
