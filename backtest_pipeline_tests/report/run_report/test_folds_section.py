"""The folds of a walk-forward in its report."""

from __future__ import annotations

from backtest_pipeline.report.run_report.run_document import run_document
from backtest_pipeline_tests.report.reported import HOSTILE, fold, reported


def test_a_walk_forward_shows_its_folds_and_what_was_chosen() -> None:
    undefined = fold(3, params=None, train_sharpe=None, test_sharpe=None)
    folds = [fold(0), fold(1), fold(2), undefined]
    told = "Walk-forward: overfit, efficiency 0.30."
    html = run_document(reported(folds=folds, walk_forward=told, assess="")).html
    assert told in html
    assert 'id="folds"' in html
    assert "fast: from 5 to 7." in html
    assert "in 0 the test was at least as good" in html
    assert 'data-metric="test_sharpe" data-value="0.3">0.30<' in html
    assert "Robustness is assessed of runs with fixed parameters alone." not in html  # it is stored


def test_any_other_run_has_no_folds() -> None:
    assert 'id="folds"' not in run_document(reported()).html


def test_folds_without_any_choice_are_drawn() -> None:
    nothing = fold(0, params=None, train_sharpe=None, test_sharpe=None)
    assert "All folds" in run_document(reported(folds=[nothing])).html


def test_parameters_of_any_name_and_text_stay_text() -> None:
    folds = [fold(number, params={HOSTILE: HOSTILE}) for number in range(100)]
    html = run_document(reported(folds=folds)).html
    assert "<script" not in html
    assert "The last 80 of 100." in html
