"""The pages of `docs/reference` say what the code says."""

from __future__ import annotations

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.docs.reference import FOLDER, pages


def test_the_reference_is_what_the_code_gives(database: Database) -> None:
    generated = pages(database)
    assert {path.name for path in FOLDER.iterdir()} == set(generated)
    stale = [name for name, text in generated.items() if (FOLDER / name).read_text() != text]
    assert stale == [], "run `make reference`"
