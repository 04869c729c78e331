"""Query and path parameters that routes share: filters, pages and names."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from backtest_pipeline.market.field_problems import PLAIN
from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.market.timeframes import canonical
from backtest_pipeline.storage.postgres.pages import MOST_ROWS

Word = Annotated[str | None, Field(None, max_length=100, pattern=PLAIN)]
SymbolWord = Annotated[Word, AfterValidator(lambda symbol: symbol and key_of(symbol))]
TimeframeWord = Annotated[Word, AfterValidator(lambda name: name and canonical(name))]
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS, description="Rows per page.")]
After = Annotated[
    str | None, Query(max_length=1000, pattern=PLAIN, description="`next` of the previous page.")
]
ArtifactName = Annotated[
    str, Path(max_length=200, pattern=PLAIN, description="File name from the run's manifest.")
]


class ListQuery(BaseModel):
    """A page of a list about strategies on assets; a filter that is not given matches all."""

    model_config = ConfigDict(extra="forbid")

    strategy: Word
    symbol: SymbolWord
    timeframe: TimeframeWord
    limit: int = Field(50, ge=1, le=MOST_ROWS, description="rows per page")
    after: str | None = Field(
        None, max_length=1000, pattern=PLAIN, description="`next` of the previous page"
    )


class JobQuery(ListQuery):
    """Filters of jobs; a filter that is not given matches all."""

    created_by: Word
    kind: Word
    status: Word
    created_from: date | None = Field(None, description="submitted on this UTC day or later")
    created_until: date | None = Field(None, description="submitted before this UTC day")
    text: Word


class BlockQuery(ListQuery):
    """Filters of blocked entries and exits by run; a filter that is not given matches all."""

    reason: Word


class RunQuery(ListQuery):
    """Filters of runs; a filter that is not given matches all."""

    requested_by: Word
    completed_from: date | None = Field(None, description="ended on this UTC day or later")
    completed_until: date | None = Field(None, description="ended before this UTC day")
    status: Word
    text: Word
