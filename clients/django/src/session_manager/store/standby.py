"""Reads from standbys: which one is asked, and whether its answer is believed.

A standby is behind its primary, so that what it does not have is no verdict: then the caller asks
the primary.  What it has may be stale, by no more than READ_MAX_LAG.

How far a standby is: from time to time a request asks the primary for the end of its WAL, and then
the standbys how far they have replayed.  A standby that has replayed what ended at a moment has all
that was committed before that moment.  It is asked only if that moment is recent.  (Its own clock,
and the time of the last transaction replayed, tell nothing while the primary is idle or cut off.)

A standby that fails once is left alone until a thread has got an answer from it: no request waits
for a standby that is known to be down, and one that is not known to be waits for READ_TIMEOUT.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from django.db import Error, connections, transaction

from ..conf import settings
from .database import Row, decode_rows, fetch, is_lost, rows_of, sqlstate
from .deadline import Deadline
from .transactions import in_block, written_within

logger = logging.getLogger("session_manager")

#: Seconds between two questions how far the primary is, at most; see _interval.
LOOK_SECONDS = 1.0
#: How often the log tells that a standby refuses a read.
WARNING_SECONDS = 60.0
#: What says nothing against the standby: bad values, a conflict with its replay, a statement that
#: an administrator or a limit has ended.
_PASSING = ("22", "40", "57014")
# When a server has started tells two servers of one cluster apart.
_STARTED = "pg_catalog.pg_postmaster_start_time()::text AS started"
_END_OF_WAL = f"SELECT pg_catalog.pg_current_wal_lsn()::text AS lsn, {_STARTED}"
_REPLAYED = f"SELECT pg_catalog.pg_last_wal_replay_lsn()::text AS lsn, {_STARTED}"


class _NoAnswerError(Exception):
    """A server cannot be reached, or takes too long."""


def _interval() -> float:
    """Seconds between two questions how far the primary is."""
    return min(LOOK_SECONDS, settings.READ_MAX_LAG / 4)


def _position(lsn: str) -> int:
    """An LSN as a number of bytes."""
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16)


def _fetch_within(alias: str, sql: str, params: Sequence[Any] = ()) -> list[Row]:
    """What a server answers within READ_TIMEOUT.

    Raises _NoAnswerError, or an error of Django's for one that the server has answered.

    In a transaction that the caller has open it waits as long as the transaction's other calls do.
    """
    connection = connections[alias]
    if in_block(connection):
        return fetch(connection, sql, params, rows_of)
    deadline = None
    try:
        connection.ensure_connection()
        with Deadline(connection, settings.READ_TIMEOUT) as deadline:
            return fetch(connection, sql, params, rows_of)
    except Error as error:
        if deadline is not None and deadline.passed:
            connection.close()
            raise _NoAnswerError(f"no answer within {settings.READ_TIMEOUT} s") from error
        if is_lost(error):
            connection.close()
            raise _NoAnswerError(str(error).strip()) from error
        raise


class Standby:
    """One alias, as this process knows it."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        #: All that was committed before this moment (monotonic clock) has been replayed.
        self._reached = -float("inf")
        self._down = False
        self._lock = threading.Lock()
        #: When (monotonic clock) the log may tell again that it refuses a read.
        self._warn_at = -float("inf")
        #: Whether the log knows that it is behind.
        self._is_late = False
        #: Whether the settings name it no longer.
        self.retired = False

    @property
    def is_down(self) -> bool:
        return self._down

    def is_recent(self, now: float) -> bool:
        return now - self._reached <= settings.READ_MAX_LAG

    def read(
        self, sql: str, params: Sequence[Any] = (), *, json_columns: Sequence[str] = ()
    ) -> list[Row] | None:
        """The rows of a statement as ``call`` has them; None if it does not answer.

        What it does not have is no verdict: then ask the primary.
        """
        try:
            return decode_rows(_fetch_within(self.alias, sql, params), json_columns)
        except _NoAnswerError as error:
            self._leave_alone(error)
        except Error as error:
            self._note_refusal(error)
        return None

    def look(self, ends: deque[tuple[float, int]], started: str) -> None:
        """Find out how far it is, by ends of the primary's WAL and when they were seen.

        started: when the primary has started.
        """
        found = self.read(_REPLAYED)
        if found is None:
            return
        now = time.monotonic()
        if found[0]["lsn"] is None:
            # Promoted, and now the primary itself: behind nobody.  Or another one: not believed.
            if found[0]["started"] == started:
                self._reached = now
        else:
            replayed = _position(found[0]["lsn"])
            reached = [seen for seen, end in ends if end <= replayed]
            if reached:
                self._reached = max(self._reached, *reached)
        is_late = not self.is_recent(now) and len(ends) > 1
        if is_late and not self._is_late:
            logger.warning(
                "the standby %r is more than %s s behind: sessions are read from the primary",
                self.alias,
                settings.READ_MAX_LAG,
            )
        self._is_late = is_late

    def _note_refusal(self, error: Error) -> None:
        """What concerns one statement; the primary is about to say whether more is wrong."""
        state = sqlstate(error) or ""
        now = time.monotonic()
        if not state.startswith(_PASSING) and now >= self._warn_at:
            self._warn_at = now + WARNING_SECONDS
            logger.warning(
                "the standby %r refuses a read; the primary is asked: %s %s",
                self.alias,
                state,
                str(error).strip(),
            )

    def _leave_alone(self, error: _NoAnswerError) -> None:
        with self._lock:
            if self._down:
                return
            self._down = True
        logger.warning(
            "the standby %r does not answer; sessions are read from the primary: %s",
            self.alias,
            error,
        )
        threading.Thread(
            target=self._wait_for_it, name=f"session_manager {self.alias}", daemon=True
        ).start()

    def _wait_for_it(self) -> None:
        while not self.retired:
            time.sleep(settings.BREAKER_SECONDS)
            try:
                _fetch_within(self.alias, _REPLAYED)
            except Exception:
                # Whatever it is: as long as this goes on, somebody will see the standby come back.
                logger.debug("the standby %r does not answer", self.alias, exc_info=True)
                continue
            finally:
                # This thread's own.
                connections[self.alias].close()
            self._down = False
            logger.warning("the standby %r answers again", self.alias)
            return


class _Group:
    """The standbys of one primary."""

    def __init__(self, primary: str, aliases: Sequence[str]) -> None:
        self._primary = primary
        self.standbys = [Standby(alias) for alias in aliases]
        #: Ends of the primary's WAL, and just before when (monotonic clock) they were asked for.
        self._ends: deque[tuple[float, int]] = deque()
        self._look_at = 0.0
        self._lock = threading.Lock()
        #: The primary does not tell: whether it is down or not, nobody here can end a session.
        self._blind = False

    def choose(self, key: int) -> Standby | None:
        """The standby for a key: always the same, so that its reads do not go back in time."""
        now = time.monotonic()
        if now >= self._look_at and self._lock.acquire(blocking=False):
            # One looks, and nobody waits.
            try:
                if now >= self._look_at:
                    self._look(now)
            finally:
                self._lock.release()
        count = len(self.standbys)
        for i in range(count):
            standby = self.standbys[(key + i) % count]
            if not standby.is_down and (self._blind or standby.is_recent(now)):
                # An error there would break the caller's transaction.
                return None if in_block(connections[standby.alias]) else standby
        return None

    def _look(self, now: float) -> None:
        is_broken = in_block(connections[self._primary]) and transaction.get_rollback(self._primary)
        if is_broken:
            return
        self._look_at = now + _interval()
        while self._ends and now - self._ends[0][0] > settings.READ_MAX_LAG:
            self._ends.popleft()
        try:
            (end,) = _fetch_within(self._primary, _END_OF_WAL)
        except (Error, _NoAnswerError) as error:
            if not self._blind:
                logger.warning("the primary does not tell how far it is: %s", error)
            self._blind = True
            return
        self._blind = False
        self._ends.append((now, _position(end["lsn"])))
        for standby in self.standbys:
            if not standby.is_down and not in_block(connections[standby.alias]):
                standby.look(self._ends, end["started"])


class _Groups:
    """By the primary's alias, as the settings have them."""

    def __init__(self) -> None:
        self._source: Any = None
        self._groups: dict[str, _Group] = {}

    def of(self, primary: str) -> _Group | None:
        source = settings.standbys
        if self._source is not source:
            for group in self._groups.values():
                for standby in group.standbys:
                    standby.retired = True
            self._groups = {alias: _Group(alias, names) for alias, names in source.items()}
            self._source = source
        return self._groups.get(primary)


_groups = _Groups()
# Locks may be held by threads that a forked process does not have.
os.register_at_fork(after_in_child=_groups.__init__)  # type: ignore[misc]


def has_standbys() -> bool:
    """Whether READ_DATABASE names any."""
    return bool(settings.standbys)


def standby_of_session(primary: str, session_id: bytes) -> Standby | None:
    """The standby to ask for a session before its primary; None: ask the primary alone.

    So it is while the session is young, and after this request, or task, has written.  The time is
    that in the id: whoever makes one up is sent to the primary, or there after the standby.
    """
    created_at = int.from_bytes(session_id[:6], "big") / 1000
    if time.time() - created_at < settings.READ_MAX_LAG:
        return None
    # The bucket, so that all sessions of a user are read from one.
    return _choose(primary, int.from_bytes(session_id[14:16], "big"))


def standby_of_user(primary: str, user_id: str) -> Standby | None:
    """The same for what concerns a user, of whom no session is at hand."""
    return _choose(primary, crc32(user_id.encode(errors="replace")))


def _choose(primary: str, key: int) -> Standby | None:
    group = _groups.of(primary)
    if group is None or written_within(settings.READ_MAX_LAG):
        return None
    return group.choose(key)
