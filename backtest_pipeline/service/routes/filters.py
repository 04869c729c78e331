"""What routes are asked with besides questions: filters of lists, pages, and names."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.storage.postgres.pages import MOST_ROWS

# The database takes no NUL, and nothing that people look for has control characters.
PLAIN = r"^[^\x00-\x1f\x7f]*$"
Word = Annotated[str | None, Field(None, max_length=100, pattern=PLAIN)]
SymbolWord = Annotated[Word, AfterValidator(lambda symbol: symbol and key_of(symbol))]
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS, description="Rows of the page.")]
After = Annotated[
    str | None, Query(max_length=1000, pattern=PLAIN, description="`next` of the page before.")
]
ArtifactName = Annotated[
    str, Path(max_length=200, pattern=PLAIN, description="As the manifest of the run lists it.")
]


class JobQuery(BaseModel):
    """Which jobs are wanted; what is not given is any."""

    model_config = ConfigDict(extra="forbid")

    created_by: Word
    kind: Word
    strategy: Word
    symbol: SymbolWord
    timeframe: Word
    status: Word
    created_from: date | None = Field(None, description="first UTC day on which they were asked")
    created_until: date | None = Field(None, description="UTC day after the last")
    text: Word
    limit: int = Field(50, ge=1, le=MOST_ROWS, description="rows of the page")
    after: str | None = Field(
        None, max_length=1000, pattern=PLAIN, description="`next` of the page before"
    )


class BlockQuery(BaseModel):
    """Which blocked entries are counted; what is not given is any."""

    model_config = ConfigDict(extra="forbid")

    strategy: Word
    symbol: SymbolWord
    timeframe: Word
    reason: Word
    limit: int = Field(50, ge=1, le=MOST_ROWS, description="runs of the page")
    after: str | None = Field(
        None, max_length=1000, pattern=PLAIN, description="`next` of the page before"
    )


class RunQuery(BaseModel):
    """Which runs are wanted; what is not given is any."""

    model_config = ConfigDict(extra="forbid")

    requested_by: Word
    strategy: Word
    symbol: SymbolWord
    timeframe: Word
    completed_from: date | None = Field(None, description="first UTC day on which they ended")
    completed_until: date | None = Field(None, description="UTC day after the last")
    status: Word
    text: Word
    limit: int = Field(50, ge=1, le=MOST_ROWS, description="rows of the page")
    after: str | None = Field(
        None, max_length=1000, pattern=PLAIN, description="`next` of the page before"
    )
