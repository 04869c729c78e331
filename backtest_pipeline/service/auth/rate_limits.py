"""Rate limits over a moving window of a minute.

Counted per process: each replica grants the whole rate. A limit over all replicas is up to the
proxy in front of them.
"""

from __future__ import annotations

import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from backtest_pipeline.service.problems import Problem


class RateLimiter:
    """Counts requests by user, and wrong keys by address."""

    def __init__(self, failures_per_minute: int) -> None:
        self._window = MovingWindowRateLimiter(MemoryStorage())
        self._failures = RateLimitItemPerMinute(failures_per_minute)

    def count_request(self, user: str, per_minute: int) -> dict[str, str]:
        """Count a request of a user.

        Returns:
            The RateLimit headers of the response.

        Raises:
            Problem: RATE_LIMITED above the rate.
        """
        limit = RateLimitItemPerMinute(per_minute)
        granted = self._window.hit(limit, "user", user)
        reset, remaining = self._window.get_window_stats(limit, "user", user)
        wait = max(1, math.ceil(reset - time.time()))
        headers = {
            "RateLimit-Policy": f'"minute";q={per_minute};w=60',
            "RateLimit": f'"minute";r={remaining};t={wait}',
        }
        if not granted:
            raise Problem(
                "RATE_LIMITED",
                f"more than {per_minute} requests in a minute; try again in {wait} s",
                {**headers, "Retry-After": str(wait)},
            )
        return headers

    def check_failures(self, address: str) -> None:
        """Raise a Problem if too many wrong keys came from an address."""
        if not self._window.test(self._failures, "address", address):
            reset, _ = self._window.get_window_stats(self._failures, "address", address)
            wait = max(1, math.ceil(reset - time.time()))
            raise Problem(
                "RATE_LIMITED",
                f"too many wrong keys from this address; try again in {wait} s",
                {"Retry-After": str(wait)},
            )

    def count_failure(self, address: str) -> None:
        """Count a wrong key."""
        self._window.hit(self._failures, "address", address)
