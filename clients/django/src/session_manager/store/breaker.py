"""A circuit breaker: after some failures in a row, leave the other side alone for a while."""

from __future__ import annotations

import threading
import time


class Breaker:
    """Closed: everything is tried.  Open: nothing, until seconds have passed; then one is."""

    def __init__(self, failures: int, seconds: float) -> None:
        self.failures = failures
        self.seconds = seconds
        self._count = 0
        self._open_until = 0.0
        self._lock = threading.Lock()

    @property
    def has_failed(self) -> bool:
        """Whether there have been failures since the last success."""
        return self._count > 0

    @property
    def is_open(self) -> bool:
        return self._count >= self.failures

    def allows(self) -> bool:
        """Whether to try.  Of many who ask an open breaker whose time is up, one may."""
        if self._count < self.failures:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._open_until:
                return False
            self._open_until = now + self.seconds
            return True

    def succeeded(self) -> None:
        if self._count:
            with self._lock:
                self._count = 0

    def failed(self) -> None:
        with self._lock:
            self._count += 1
            if self._count >= self.failures:
                self._open_until = time.monotonic() + self.seconds

    def open(self) -> None:
        with self._lock:
            self._count = max(self._count, self.failures)
            self._open_until = time.monotonic() + self.seconds
