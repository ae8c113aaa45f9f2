"""Notifications that sessions have been ended, for whoever in this process holds one open.

PostgreSQL sends them on the channel session_revoked if session_manager.notify is on.  One thread
listens, on a connection of its own, while anybody wants to know.  It tells who is to look again, no
more: a notification can be made by anybody who is connected, and is lost while there is no
connection.  After each connecting everybody looks again.
"""

from __future__ import annotations

import enum
import json
import logging
import os
import selectors
import socket
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from django.db import connections
from django.db.utils import ConnectionHandler

from ..conf import settings
from .shards import bucket_of_id, home_of

logger = logging.getLogger("session_manager")

CHANNEL = "session_revoked"
#: Seconds after which a quiet connection is tried.
QUIET = 30.0
#: Seconds to the next try after the connection was lost.
RETRY = 2.0
#: Seconds that the connection is kept when nobody wants to know any more.
LINGER = 10.0

_WAKE, _QUIT = b"w", b"q"

Callback = Callable[[], object]


class _Woken(enum.Enum):
    """Why the thread does not wait any longer."""

    BY_NOTHING = enum.auto()
    BY_US = enum.auto()
    BY_THE_SERVER = enum.auto()
    TO_QUIT = enum.auto()


def _wait(selector: selectors.BaseSelector, woken: socket.socket, seconds: float) -> _Woken:
    readable = {key.fileobj for key, _ in selector.select(seconds)}
    if not readable:
        return _Woken.BY_NOTHING
    if woken in readable and _QUIT in woken.recv(4096):
        return _Woken.TO_QUIT
    return _Woken.BY_US if readable == {woken} else _Woken.BY_THE_SERVER


def _own_connection(alias: str) -> Any:
    """A connection that is in no pool, and in no thread's list."""
    listen = settings.LISTEN_DATABASE
    alias = (listen.get(alias) if isinstance(listen, Mapping) else listen) or alias
    given = connections[alias].settings_dict
    options = {name: value for name, value in given["OPTIONS"].items() if name != "pool"}
    config = {**given, "OPTIONS": options, "ATOMIC_REQUESTS": False, "AUTOCOMMIT": True}
    return ConnectionHandler({"default": config})["default"]


class Revocations:
    """Who wants to know of which session of a database; callbacks come from another thread."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._lock = threading.Lock()
        self._wanted: dict[uuid.UUID, list[Callback]] = defaultdict(list)
        self._thread: threading.Thread | None = None
        self._waker: socket.socket | None = None
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """In a forked process nobody wants anything yet, and no thread runs."""
        self.__dict__.update(
            _lock=threading.Lock(), _wanted=defaultdict(list), _thread=None, _waker=None
        )

    @contextmanager
    def watching(self, session_id: uuid.UUID, callback: Callback) -> Iterator[None]:
        """In the block, call back when the session may have ended.

        Look at it once after entering: what happened before is not told of.
        """
        with self._lock:
            self._wanted[session_id].append(callback)
            if self._thread is None:
                self._start()
        try:
            yield
        finally:
            with self._lock:
                callbacks = self._wanted[session_id]
                callbacks.remove(callback)
                if not callbacks:
                    del self._wanted[session_id]
                self._wake()

    def close(self) -> None:
        """Close the connection at once if nobody wants to know any more; for tests."""
        with self._lock:
            thread, waker, wanted = self._thread, self._waker, bool(self._wanted)
            if thread is None or waker is None or wanted:
                return
            waker.send(_QUIT)
        thread.join()

    def _start(self) -> None:
        waker, woken = socket.socketpair()
        waker.setblocking(False)
        woken.setblocking(False)
        self._waker = waker
        self._thread = threading.Thread(
            target=self._run, args=(waker, woken), name="session_manager-listen", daemon=True
        )
        self._thread.start()

    def _wake(self) -> None:
        if self._waker is not None:
            # Full of these, it wakes the thread as well.
            with suppress(BlockingIOError):
                self._waker.send(_WAKE)

    def _finish(self) -> bool:
        """Whether the thread may end, as nobody wants to know."""
        with self._lock:
            if self._wanted:
                return False
            self._thread = self._waker = None
            return True

    def _run(self, waker: socket.socket, woken: socket.socket) -> None:
        with waker, woken, selectors.DefaultSelector() as selector:
            selector.register(woken, selectors.EVENT_READ)
            while True:
                connection = None
                try:
                    connection = _own_connection(self._alias)
                    if self._listen(connection, selector, woken):
                        return
                except Exception as error:
                    # Of the driver's, Django's or the system's: whatever it is, try again.
                    logger.warning(
                        "Notifications of ended sessions do not arrive: %s", type(error).__name__
                    )
                finally:
                    if connection is not None:
                        connection.close()
                asked_to_quit = _wait(selector, woken, RETRY) is _Woken.TO_QUIT
                if (asked_to_quit or not self._wanted) and self._finish():
                    return

    def _listen(
        self, connection: Any, selector: selectors.BaseSelector, woken: socket.socket
    ) -> bool:
        """Until nobody wants to know any more (True)."""
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
            cursor.execute("SELECT current_setting('session_manager.notify', true)")
            if cursor.fetchone()[0] != "on":
                logger.warning("session_manager.notify is not on: ended sessions are noticed late.")
        payloads = _payloads_of(connection.connection)
        fd = connection.connection.fileno()
        selector.register(fd, selectors.EVENT_READ)
        try:
            self._tell(None)
            while True:
                why = _wait(selector, woken, QUIET if self._wanted else LINGER)
                unwanted = why is _Woken.BY_NOTHING and not self._wanted
                if (unwanted or why is _Woken.TO_QUIT) and self._finish():
                    return True
                if why is _Woken.BY_US:
                    continue
                # The answer brings what has been notified, and shows that somebody is there.
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
                for payload in payloads():
                    self._tell(payload)
        finally:
            selector.unregister(fd)

    def _tell(self, payload: str | None) -> None:
        """Call those back whom a notification concerns; with None all."""
        with self._lock:
            if payload is None:
                callbacks = [one for several in self._wanted.values() for one in several]
            else:
                callbacks = list(self._wanted.get(_session_id(payload), ()))  # type: ignore[arg-type]
        for callback in callbacks:
            try:
                callback()
            except RuntimeError:
                # Its event loop has been closed.
                continue


def _session_id(payload: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(json.loads(payload)["session_id"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _payloads_of(driver: Any) -> Callable[[], list[str]]:
    """A function that takes what has been notified on a connection of either psycopg."""
    if hasattr(driver, "add_notify_handler"):
        arrived: list[str] = []
        driver.add_notify_handler(lambda notify: arrived.append(notify.payload))
    else:
        arrived = driver.notifies

    def take() -> list[str]:
        taken = [getattr(one, "payload", one) for one in arrived]
        arrived.clear()
        return taken

    return take


_by_alias: dict[str, Revocations] = {}
_by_alias_lock = threading.Lock()


def revocations_of(session_id: uuid.UUID) -> Revocations:
    """Those of the database that has a session: one for each process."""
    alias = home_of(bucket_of_id(session_id))
    with _by_alias_lock:
        if alias not in _by_alias:
            _by_alias[alias] = Revocations(alias)
        return _by_alias[alias]
