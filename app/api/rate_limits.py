"""How many requests or events a second a key allows."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from app.api.problems import RateExceeded

MAX_BUCKETS = 10_000
"""Keys whose buckets are kept."""


class Rates:
    """A token bucket for each key, which holds one second's worth, and no less than `at_least`."""

    def __init__(self, at_least: int = 1) -> None:
        self._at_least = at_least
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, id_: str, rate: float, count: int = 1) -> None:
        """Count requests or events. Raises RateExceeded with the seconds to wait."""
        most, now = max(float(self._at_least), rate), time.monotonic()
        with self._lock:
            left, at = self._buckets.pop(id_, (most, now))
            left = min(most, left + (now - at) * rate)
            allowed = left >= count
            self._buckets[id_] = (left - count * allowed, now)
            while len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        if not allowed:
            wait_s = int((count - left) / rate) + 1
            raise RateExceeded(
                f"The key allows {rate:g} {'requests' if self._at_least == 1 else 'events'} a "
                f"second; wait {wait_s} s.",
                headers={"Retry-After": str(wait_s)},
            )
