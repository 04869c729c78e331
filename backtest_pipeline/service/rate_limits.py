"""How often somebody may ask, in a moving window of a minute.

Counted in this process: several replicas each grant the whole rate. What must hold over all of
them is a matter of the proxy before them.
"""

from __future__ import annotations

import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from backtest_pipeline.service.problems import Problem


class Rates:
    """Counts requests by user, and wrong keys by address."""

    def __init__(self, failures_per_minute: int) -> None:
        self._window = MovingWindowRateLimiter(MemoryStorage())
        self._failures = RateLimitItemPerMinute(failures_per_minute)

    def require_request(self, user: str, per_minute: int) -> dict[str, str]:
        """Count a request of a user.

        Returns:
            Headers that tell what is left.

        Raises:
            Problem: RATE_LIMITED where the user has had the rate.
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
                f"{per_minute} requests a minute are yours; the next in {wait} s",
                {**headers, "Retry-After": str(wait)},
            )
        return headers

    def require_few_failures(self, address: str) -> None:
        """Raise a Problem where an address has tried too many wrong keys."""
        if not self._window.test(self._failures, "address", address):
            reset, _ = self._window.get_window_stats(self._failures, "address", address)
            wait = max(1, math.ceil(reset - time.time()))
            raise Problem(
                "RATE_LIMITED",
                f"too many wrong keys came from this address; the next in {wait} s",
                {"Retry-After": str(wait)},
            )

    def failed(self, address: str) -> None:
        """Count a wrong key."""
        self._window.hit(self._failures, "address", address)
