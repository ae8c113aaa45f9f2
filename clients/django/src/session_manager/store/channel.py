"""Commands to Redis, of many threads, and answers that are late.

A command has a time limit.  An answer that comes later is of no use to its read, but it shows that
Redis is alive and only busy, or that this machine is: the connection is kept until then, and the
answer dropped.  To close it at once would cost a new connection, with more answers to wait for.
Then answers are waited for longer, for a while: to give up early would leave all the work to
PostgreSQL when there is too much of it.

Connections are kept in a list, not in redis-py's pool: to take one from there and to put it back
costs as much as all else that is done here for a command.
"""

from __future__ import annotations

import inspect
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

#: After a late answer the time limit is so many times as long, for so many seconds.
PATIENCE = 5
PATIENT_SECONDS = 1.0


# So that a new connection does not tell Redis the name and version of this library.
_NAMELESS: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)


class LateError(RedisTimeoutError):
    """An answer has not come in time."""


@dataclass(frozen=True)
class _Owed:
    """A connection on which one answer is still to come."""

    connection: Any
    since: float
    process: int


class Channel:
    """One per process and Redis.  Answers that are late are waited for as many seconds."""

    def __init__(self, url: str, db: int, timeout: float, seconds: float) -> None:
        self._timeout = timeout
        self._seconds = seconds
        # Makes connections of the URL's kind, and keeps none.
        self._pool = redis.ConnectionPool.from_url(
            url,
            db=db,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # Once and no more: what fails is a miss.
            retry=Retry(NoBackoff(), 0),
            retry_on_timeout=False,
            health_check_interval=0,
            # To connect takes no more answers than it must.
            protocol=2,
            **_NAMELESS,
        )
        #: Connections that nobody uses, and the process that has made them.
        self._idle: list[Any] = []
        self._process = os.getpid()
        self._owed: list[_Owed] = []
        self._patient_until = 0.0
        self._lock = threading.Lock()

    def _take(self) -> Any:
        """A connection with nothing to read: no answer of before, nor has Redis closed it."""
        if self._process != os.getpid():
            # Those are the parent's.
            self._idle = []
            self._process = os.getpid()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            try:
                if not connection.can_read(0):
                    return connection
            except RedisError:
                pass
            connection.disconnect()
        connection = self._pool.connection_class(**self._pool.connection_kwargs)
        connection.connect()
        return connection

    def command(self, *words: Any) -> Any:
        """The answer to a command.  Raises LateError, or what redis-py does."""
        connection = self._take()
        began = time.monotonic()
        try:
            connection.send_command(*words)
            if began >= self._patient_until or connection.can_read(PATIENCE * self._timeout):
                with suppress(RedisTimeoutError):
                    answer = connection.read_response(disconnect_on_error=False)
                    if time.monotonic() - began > self._timeout:
                        self._be_patient()
                    self._idle.append(connection)
                    return answer
        except ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:
            # What is still on its way must not answer the next command.
            connection.disconnect()
            raise
        with self._lock:
            self._owed.append(_Owed(connection, time.monotonic(), os.getpid()))
        raise LateError("no answer in time")

    def _be_patient(self) -> None:
        self._patient_until = time.monotonic() + PATIENT_SECONDS

    @property
    def owes(self) -> bool:
        """Whether there are answers to collect()."""
        return bool(self._owed)

    def collect(self) -> bool | None:
        """Drop late answers that have come; close connections on which none comes.

        True when one has come, else False when a connection was given up, else None.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            # Others are for the process that this one was forked from.
            owed = [owed for owed in self._owed if owed.process == os.getpid()]
            answered = [self._settle(one) for one in owed]
            self._owed = [one for one, has in zip(owed, answered, strict=True) if has is None]
        finally:
            self._lock.release()
        if True in answered:
            return True
        return False if False in answered else None

    def _settle(self, owed: _Owed) -> bool | None:
        """Whether the answer has come; None while it may still."""
        connection = owed.connection
        answered = None
        try:
            if connection.can_read(0):
                with suppress(ResponseError):
                    connection.read_response()
                self._be_patient()
                self._idle.append(connection)
                answered = True
            elif time.monotonic() - owed.since >= self._seconds:
                connection.disconnect()
                answered = False
        except RedisError:
            connection.disconnect()
            answered = False
        return answered
