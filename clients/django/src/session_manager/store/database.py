"""Calls of the extension's functions through the ORM's connection.

Everything that speaks SQL to the functions is here: names are qualified with the setting SCHEMA,
arguments are bound, results become dicts with jsonb decoded and times in UTC, and SQLSTATEs become
this package's exceptions.  Tokens come in as digest forms.

An expected error (a version conflict, a limit) inside the caller's transaction must not break that
transaction: there the call runs in a savepoint.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.db import (
    Error,
    InterfaceError,
    OperationalError,
    connections,
    transaction,
)

from .. import exceptions
from ..conf import settings
from .shards import Bucket, Retries, alias_of, all_aliases
from .transactions import in_block

logger = logging.getLogger("session_manager")

Row = dict[str, Any]
T = TypeVar("T")

# What the caller did wrong.  22: bad values; 54001: JSON nested too deeply for the server's stack.
_INVALID = ("22", "54001")
# What a server that stops, restarts or is not there leads to.
_UNAVAILABLE_QUIETLY = (OperationalError, InterfaceError)
_RETRY = ("40001", "40P01")
# The session of who is going to act as somebody else has just ended.
_ACTOR_ENDED = "SM006"
# The server does not have the bucket.  It has changed nothing.
_WRONG_SHARD = "SM005"
# The server is in recovery, or its administrator lets nobody write.
_READ_ONLY = "25006"
# The connection broke, or the server stops, starts or lets no more in.
_LOST = ("08", "57P", "53300")


# Seconds within which a shard's lost connection is replaced by another, and asked again.
QUICK = 1.0

# Levels of JSON.  Python's reader and writer give up where their stack ends, some ten times as
# deep, and by then what has been written could not be read back.
MAX_DEPTH = 100


def function(name: str) -> str:
    """The name of a function, or of another object, of the extension as SQL."""
    return f"{quote(settings.SCHEMA)}.{name}" if settings.SCHEMA else name


def quote(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of Django's wrapper of an error of psycopg 3 or psycopg2."""
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state if isinstance(state, str) else None


def _message(error: BaseException) -> str:
    diag = getattr(error.__cause__, "diag", None)
    return getattr(diag, "message_primary", None) or "the database refused the value"


def is_lost(error: BaseException) -> bool:
    """Whether an error of Django's says that there is no connection with PostgreSQL (any more)."""
    if not isinstance(error, _UNAVAILABLE_QUIETLY):
        return False
    state = sqlstate(error)
    if state is not None:
        return state.startswith(_LOST)
    # Without a SQLSTATE it is not the server's: libpq's, or the driver's own.
    driver: Any = connections[all_aliases()[0]].Database  # type: ignore[attr-defined]
    cause = error.__cause__
    return isinstance(cause, driver.OperationalError) or (
        isinstance(cause, driver.InterfaceError) and "connection already closed" in str(cause)
    )


def verdict(state: str, message: str) -> exceptions.SessionError | None:
    """This package's exception for a SQLSTATE; None if it tells nothing about the session."""
    if state == "SM001":
        return exceptions.VersionConflict(message)
    if state == "SM002":
        return exceptions.LimitReached(message)
    if state == "SM004":
        return exceptions.DataCorrupt(message)
    if state == _WRONG_SHARD:
        return exceptions.WrongShard(message)
    if state == "54000":
        return exceptions.TooLarge(message)
    if state.startswith(_INVALID) or state == _ACTOR_ENDED:
        return exceptions.InvalidArgument(message)
    return None


def translate(error: Error) -> exceptions.SessionError:
    """This package's exception for an error of Django's; what is no verdict is logged."""
    state = sqlstate(error) or ""
    found = verdict(state, _message(error))
    if found is not None:
        return found
    level = logging.WARNING if isinstance(error, _UNAVAILABLE_QUIETLY) else logging.ERROR
    logger.log(level, "session store: %s %s", state or type(error).__name__, _message(error))
    return exceptions.StoreUnavailable(f"the session store cannot answer ({state or 'no answer'})")


@contextmanager
def translating_errors() -> Iterator[None]:
    """A database that does not answer, or takes no writes, in the block, as StoreUnavailable."""
    try:
        yield
    except Error as error:
        if isinstance(error, _UNAVAILABLE_QUIETLY) or sqlstate(error) == _READ_ONLY:
            raise translate(error) from error
        raise


def json_argument(value: Any) -> str | None:
    """JSON text for a jsonb parameter; InvalidArgument for what JSON cannot say."""
    if value is None:
        return None
    if _too_deep(value):
        raise exceptions.InvalidArgument(f"JSON nested more deeply than {MAX_DEPTH} levels")
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise exceptions.InvalidArgument(f"not JSON: {type(error).__name__}") from error


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        containers = [v for v in level if isinstance(v, (dict, list, tuple))]
        if not containers:
            return False
        level = [v for c in containers for v in (c.values() if isinstance(c, dict) else c)]
    return True


def text_argument(value: str | None) -> str | None:
    """Text for a text parameter; InvalidArgument for what PostgreSQL cannot store."""
    if value is None:
        return None
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise exceptions.InvalidArgument("text that is not Unicode") from error
    if "\0" in value:
        raise exceptions.InvalidArgument("text with a NUL character")
    return value


def decode(value: Any) -> Any:
    """A jsonb value of a row."""
    # Django hands jsonb over as text, whichever psycopg it is.
    return json.loads(value) if isinstance(value, (str, bytes)) else value


def call(
    sql: str,
    params: Sequence[Any] = (),
    *,
    bucket: Bucket = None,
    json_columns: Sequence[str] = (),
    savepoint: bool = False,
    idempotent: bool = False,
) -> list[Row]:
    """Run a statement and return its rows.

    bucket: of the user whom the statement concerns, see shards.alias_of.
    savepoint: an expected error leaves the caller's transaction usable.
    idempotent: may be sent again when it turns out that a kept connection had been closed by the
    server, or after a deadlock.
    """
    rows: list[Row]
    if settings.stand_in is not None:
        rows = settings.stand_in(sql, params)
    else:
        rows = _answer(sql, params, rows_of, bucket, savepoint=savepoint, idempotent=idempotent)
    return decode_rows(rows, json_columns)


def decode_rows(rows: list[Row], json_columns: Sequence[str]) -> list[Row]:
    """The rows, with jsonb decoded and times in UTC."""
    for row in rows:
        for name, value in row.items():
            if isinstance(value, datetime):
                # "AT TIME ZONE 'UTC'" in the statement: right whatever USE_TZ says.
                row[name] = value.replace(tzinfo=timezone.utc)
            elif name in json_columns:
                row[name] = decode(value)
    return rows


def call_for_value(sql: str, params: Sequence[Any], *, bucket: Bucket) -> Any:
    """The only value of a statement's only row, as it comes; may be sent again as idempotent."""
    if settings.stand_in is not None:
        ((value,),) = (row.values() for row in settings.stand_in(sql, params))
        return value
    return _answer(sql, params, _value, bucket, savepoint=False, idempotent=True)


def rows_of(cursor: Any) -> list[Row]:
    """The rows as the driver has them, by the names of their columns."""
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _value(cursor: Any) -> Any:
    return cursor.fetchone()[0]


def fetch(connection: Any, sql: str, params: Sequence[Any], read: Callable[[Any], T]) -> T:
    """What ``read`` finds at the cursor of a statement; raises Django's errors."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return read(cursor)


def _answer(
    sql: str,
    params: Sequence[Any],
    read: Callable[[Any], T],
    bucket: Bucket,
    *,
    savepoint: bool,
    idempotent: bool,
) -> T:
    """What PostgreSQL answers, as it is read from the cursor."""
    attempts = 3
    retries: Retries | None = None
    # Behind a pooler a frozen shard breaks the connection after a time limit.  A connection that
    # had been closed before says so at once.
    patient_until = None if bucket is None else time.monotonic() + QUICK
    while True:
        connection = connections[alias_of(bucket)]
        if connection.vendor != "postgresql":
            raise ImproperlyConfigured(
                f"session_manager needs PostgreSQL, and the database {connection.alias!r} is "
                f"{connection.display_name}: no session can be created or read."
            )
        attempts -= 1
        try:
            if savepoint and (in_block(connection) or not connection.get_autocommit()):
                with transaction.atomic(using=connection.alias):
                    return fetch(connection, sql, params, read)
            return fetch(connection, sql, params, read)
        except Error as error:
            if sqlstate(error) == _WRONG_SHARD and _may_move(connection):
                retries = retries or Retries()
                if retries.again():
                    attempts += 1
                    continue
            retry = sqlstate(error) in _RETRY
            if isinstance(error, _UNAVAILABLE_QUIETLY) and not in_block(connection):
                # Without this a connection that died stays until the end of the request.
                lost = connection.connection is not None and not connection.is_usable()
                if lost:
                    connection.close()
                in_time = patient_until is None or time.monotonic() < patient_until
                retry = retry or (lost and idempotent and in_time)
            if retry and attempts > 0 and not in_block(connection):
                continue
            raise translate(error) from error


def _may_move(connection: Any) -> bool:
    """Whether what a wrong shard has refused may be asked of another one.

    In a transaction it belongs to what was done there before, which would have to move as well:
    whoever opened it does it all again.
    """
    return not in_block(connection) and bool(connection.get_autocommit())


def utc(*columns: str, table: str = "") -> str:
    """Select list of timestamptz columns, or of calls, as times in UTC, each under its name."""
    return ", ".join(
        f"{table}{column} AT TIME ZONE 'UTC' AS {column.removesuffix('()')}" for column in columns
    )
