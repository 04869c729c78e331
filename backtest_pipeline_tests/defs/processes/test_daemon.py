"""What the daemon says while the code server is started again."""

from __future__ import annotations

import logging
import warnings

import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError

from backtest_pipeline.defs.processes.daemon import WaitsForCodeServer, ignore_unreachable_locations

NOBODY = "Could not reach user code server. gRPC Error code: UNAVAILABLE"


def logged(logger: logging.Logger, cause: str, what: str = "Sensor tick caught an error") -> None:
    """Log an error as Dagster's sensors do."""
    try:
        try:
            raise DagsterUserCodeUnreachableError(cause)
        except DagsterUserCodeUnreachableError as error:
            raise DagsterUserCodeUnreachableError("Unable to reach the server") from error
    except DagsterUserCodeUnreachableError:
        logger.exception(what)


def test_a_code_server_that_is_not_there_is_told_in_one_line_and_all_else_in_full(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("test_daemon")
    logger.addFilter(WaitsForCodeServer())
    for _ in range(3):
        logged(logger, NOBODY)
    (line,) = caplog.records
    assert (line.levelname, line.exc_info) == ("WARNING", None)
    assert line.getMessage() == (
        "the code server is not there; what needs it waits until it is started again"
    )
    caplog.clear()
    logged(logger, "User code server request timed out due to taking longer than 60 seconds")
    logged(logger, NOBODY, "Run 1 created successfully but failed to launch")
    logger.error("a tick caught an error")
    shown = [(record.getMessage(), bool(record.exc_info)) for record in caplog.records]
    assert shown == [
        ("Sensor tick caught an error", True),
        ("Run 1 created successfully but failed to launch", True),
        ("a tick caught an error", False),
    ]


def test_a_location_that_nobody_serves_is_no_warning_and_one_that_cannot_be_loaded_is() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        ignore_unreachable_locations()
        for why in (f"\n{NOBODY}", "SyntaxError"):
            warnings.warn(f"Error loading repository location backtest:{why}", stacklevel=1)
    (warning,) = shown
    assert "SyntaxError" in str(warning.message)
