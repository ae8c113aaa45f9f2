"""The transaction around a call, as Django knows it: what it has changed, and what becomes of it.

Only this module touches what Django keeps to itself: a connection's open blocks, whether the
outermost of them commits, and its list of hooks for the commit.  What depends on the commit is kept
in that list, so that it is forgotten with the transaction, or the savepoint, that it belongs to.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from django.core.signals import request_started
from django.db import connections, transaction

from ..conf import settings
from ..exceptions import WrongShard
from .shards import Bucket, Retries, alias_of, all_aliases, bucket_of_bytes, holding_map, home_of

R = TypeVar("R")

# libpq's PQTRANS_IDLE: connected, and no transaction is open.
_IDLE = 0
# Whatever session it is.
_ANY = (None,)


def in_block(connection: Any) -> bool:
    """Whether a block of transaction.atomic is open, so that an error breaks more than a call."""
    return bool(connection.in_atomic_block)


@contextmanager
def keeping_block() -> Iterator[None]:
    """Leave open blocks to who has opened them, whatever DRF's handler of errors makes of them."""
    before = [
        (connection, connection.needs_rollback)
        for connection in map(connections.__getitem__, all_aliases())
        if in_block(connection)
    ]
    try:
        yield
    finally:
        for connection, is_broken in before:
            if in_block(connection):
                connection.needs_rollback = is_broken


def _is_managed(connection: Any) -> bool:
    """Whether Django will commit what is done now, or roll it back, at the end of a block.

    Not so with autocommit off: there blocks are savepoints, and nobody tells of the commit.
    """
    return in_block(connection) and bool(connection.commit_on_exit)


@contextmanager
def together(*buckets: Bucket, first: str | None = None) -> Iterator[None]:
    """A transaction on the database that is named first, and each that has one of the buckets.

    Of several databases that of the last bucket commits first.  If it fails the others roll back;
    what has been committed stays, should the commit of another one fail.
    """
    given = [] if first is None else [first]
    with ExitStack() as stack:
        if given or buckets:
            # Not where nothing is opened: a shard that does not have the bucket any more is asked
            # again by a newer map.
            stack.enter_context(holding_map())
        for alias in dict.fromkeys([*given, *map(alias_of, buckets)]):
            stack.enter_context(transaction.atomic(using=alias))
        yield


def settled(work: Callable[[], R]) -> R:
    """Do what is done ``together``, and again where a bucket has moved to another shard meanwhile.

    Not inside of a transaction of the caller's, whose part has been refused with it.
    """
    retries = Retries()
    while True:
        try:
            return work()
        except WrongShard:
            if any(in_block(connections[alias]) for alias in all_aliases()) or not retries.again():
                raise


def when_committed(callback: Callable[[], None], bucket: Bucket) -> None:
    """Call it once what has been done is committed; at once if no block of Django's is open."""
    connection = connections[alias_of(bucket)]
    if _is_managed(connection):
        transaction.on_commit(callback, using=connection.alias, robust=True)
    else:
        callback()


class _Changes:
    """The sessions that the open transaction has changed; others, and the cache, have the old ones.

    A hook that does nothing, and holds ids; None is an unknown number of sessions.
    """

    def __init__(self) -> None:
        self.ids: set[uuid.UUID | None] = set()

    def __call__(self) -> None:
        pass


def _changes(connection: Any) -> _Changes | None:
    hooks = (hook[1] for hook in connection.run_on_commit)
    return next((hook for hook in hooks if isinstance(hook, _Changes)), None)


#: When (monotonic clock) this request, or task, has changed a session last.
_written_at: ContextVar[float | None] = ContextVar("session_manager_written", default=None)


def _forget_writing(**kwargs: Any) -> None:
    """Django's hook: the thread begins another request."""
    _written_at.set(None)


def written_within(seconds: float) -> bool:
    """Whether this request, or task, has changed a session in the last seconds."""
    written_at = _written_at.get()
    return written_at is not None and time.monotonic() - written_at < seconds


def note_change(session_id: uuid.UUID | None, bucket: Bucket) -> None:
    """Remember that the open transaction changes a session; None for an unknown number."""
    if settings.standbys:
        request_started.connect(_forget_writing, dispatch_uid=__name__)
        _written_at.set(time.monotonic())
    connection = connections[alias_of(bucket)]
    if not _is_managed(connection):
        return
    changes = _changes(connection)
    if changes is None:
        changes = _Changes()
        transaction.on_commit(changes, using=connection.alias)
    changes.ids.add(session_id)


def changed_here(raw: bytes) -> bool:
    """Whether the transaction that is open may have changed the session of a token's bytes.

    Where Django does not know of the transaction (autocommit off, BEGIN by hand) any session may
    have been changed.
    """
    changed = _changed(bucket_of_bytes(raw))
    return None in changed or (bool(changed) and uuid.UUID(bytes=raw[:16]) in changed)


def changed_any_here(bucket: Bucket) -> bool:
    """Whether it may have changed any session of the database that has a bucket."""
    return bool(_changed(bucket))


def _changed(bucket: Bucket) -> Collection[uuid.UUID | None]:
    """The sessions that the open transaction may have changed; None among them: any."""
    alias = alias_of(bucket)
    if alias != home_of(bucket):
        return _ANY
    connection = connections[alias]
    if _is_managed(connection):
        changes = _changes(connection)
        return () if changes is None else changes.ids
    driver: Any = connection.connection
    if driver is None:
        return ()
    # psycopg 3 makes a new object for info, which asks pgconn; psycopg2 has only info.
    libpq = getattr(driver, "pgconn", None) or driver.info
    return () if libpq.transaction_status == _IDLE else _ANY


class _Then:
    """A hook that an outcome's ``then`` has been given."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def __call__(self) -> None:
        self._callback()


class Outcome:
    """What becomes of the transaction, or savepoint, that is open when this is made.

    That of the database which has a bucket.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._connection = connections[alias_of(bucket)]
        self._committed = False
        when_committed(self, bucket)
        self._go_first()

    def __call__(self) -> None:
        """Django's hook: the transaction has committed.

        Or a test calls what would be called then (captureOnCommitCallbacks), and it is still open.
        """
        self._committed = not self.pending

    def _go_first(self) -> None:
        """Let the hook run before those of others: they may look at the session, or raise.

        A hook that raises makes Django drop those that come after it, though the transaction has
        committed.  In a TestCase nothing commits, and captureOnCommitCallbacks counts the hooks.
        """
        hooks = self._connection.run_on_commit
        if self._committed or any(map(_is_of_testcase, self._connection.atomic_blocks)):
            return
        ours = sum(isinstance(hook[1], Outcome) for hook in hooks[:-1])
        hooks.insert(ours, hooks.pop())

    @property
    def pending(self) -> bool:
        """Whether it is still open."""
        return any(hook[1] is self for hook in self._connection.run_on_commit)

    @property
    def rolled_back(self) -> bool:
        return not self._committed and not self.pending

    @property
    def committed(self) -> bool:
        """Whether it has committed; in a TestCase, which never does, whether it would have."""
        blocks = self._connection.atomic_blocks
        return self._committed or (
            self.pending and bool(blocks) and all(map(_is_of_testcase, blocks))
        )

    def then(self, callback: Callable[[], None]) -> None:
        """Call it when the transaction commits, if it is still open and does.

        Behind the hooks of all outcomes, so that it finds each of them known, and behind what was
        to be called before.
        """
        hooks = self._connection.run_on_commit
        ours = [at for at, hook in enumerate(hooks) if isinstance(hook[1], (Outcome, _Then))]
        then: Callable[[], None] = _Then(callback)
        for own in [hooks[at] for at in ours if hooks[at][1] is self]:
            hooks.insert(ours[-1] + 1, (own[0], then, *own[2:]))


def _is_of_testcase(block: Any) -> bool:
    return getattr(block, "_from_testcase", False)
