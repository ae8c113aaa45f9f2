"""The end of a wait for a PostgreSQL that does not answer.

Neither libpq nor its drivers give up waiting for the answer to a query, and a server that hangs
enforces no statement_timeout.  A thread shuts down the socket of a wait that is overdue; the query
fails then as if the server had closed the connection.  It works for psycopg 3 and psycopg2.

Cost: two system calls and two locks for each wait, some microseconds.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any


class Deadline:
    """In the block the connection's server has so many seconds to answer.

    The connection has to be open.  Close it if ``passed``.
    """

    __slots__ = ("_at", "_connection", "_descriptor", "_seconds", "passed")

    def __init__(self, connection: Any, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self.passed = False

    def __enter__(self) -> Deadline:
        # Of its own: libpq closes the connection's as soon as that is lost, and then the number may
        # be another file's.
        self._descriptor = os.dup(self._connection.connection.fileno())
        self._at = time.monotonic() + self._seconds
        _watch.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _watch.remove(self)
        os.close(self._descriptor)

    def seconds_left(self) -> float:
        return self._at - time.monotonic()

    def end(self) -> None:
        self.passed = True
        # It may have been lost meanwhile.
        with suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as same:
            same.shutdown(socket.SHUT_RDWR)


class _Watch:
    """The thread, and what it watches."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waits: set[Deadline] = set()
        self._thread: threading.Thread | None = None
        self._resting = False

    def add(self, wait: Deadline) -> None:
        with self._changed:
            self._waits.add(wait)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="session_manager deadlines", daemon=True
                )
                self._thread.start()
            elif self._resting:
                self._changed.notify()

    def remove(self, wait: Deadline) -> None:
        with self._changed:
            self._waits.remove(wait)

    def _run(self) -> None:
        # It does not rest before a deadline has gone by without waits: most waits begin and end
        # while it looks at an earlier one, and wake nobody.
        with self._changed:
            while True:
                left = min((w.seconds_left() for w in self._waits if not w.passed), default=None)
                if left is None or left > 0:
                    self._resting = left is None
                    self._changed.wait(left)
                for wait in self._waits:
                    if not wait.passed and wait.seconds_left() <= 0:
                        wait.end()


_watch = _Watch()
# A forked process has no such thread, and the lock may be held by it for ever.
os.register_at_fork(after_in_child=_watch.__init__)  # type: ignore[misc]
