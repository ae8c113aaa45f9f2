"""A live session as session_get_json wrote it: what PostgreSQL sends, and what Redis keeps."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from operator import itemgetter
from typing import Any

from ..types import JSON, SESSION_TIMES, Session, take_own
from .request_data import take_out

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_LAST = datetime.max.replace(tzinfo=timezone.utc)
_FIRST = datetime.min.replace(tzinfo=timezone.utc)


def microseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - EPOCH) // _MICROSECOND


def from_microseconds(stamp: int) -> datetime:
    """A time since 1970; what is beyond Python's is the last, or the first, that it has."""
    try:
        return EPOCH + stamp * _MICROSECOND
    except OverflowError:
        return _LAST if stamp > 0 else _FIRST


class _Later:
    """A member of a session that is made when it is first read: most requests read few of them."""

    def __init__(self, name: str, column: str, make: Callable[[Any], Any]) -> None:
        self._name, self._column, self._make = name, column, make

    def __get__(self, session: Session | None, owner: type | None = None) -> Any:
        if session is None:
            raise AttributeError(self._name)
        members = vars(session)
        # From now on found without coming here.
        value = members[self._name] = self._make(members["_row"][self._column])
        return value


class _LaterIfAny(_Later):
    """The same of what may be null, or not there: a value in the cache may be an older one."""

    def __get__(self, session: Session | None, owner: type | None = None) -> Any:
        if session is not None and vars(session)["_row"].get(self._column) is None:
            vars(session)[self._name] = None
            return None
        return super().__get__(session, owner)


Session.id = _Later("id", "session_id", uuid.UUID)  # type: ignore[assignment]
Session.device_proved_at = _LaterIfAny(  # type: ignore[assignment]
    "device_proved_at", "device_proved_at", from_microseconds
)
for _time in SESSION_TIMES:
    setattr(Session, _time, _Later(_time, _time, from_microseconds))

_times_of = itemgetter(*SESSION_TIMES)
_INTEGERS = {int}


def session_of(row: JSON, *, cached: bool = False) -> Session:
    """The session of the JSON.

    Raises KeyError, TypeError or ValueError for what session_get_json has not written.
    """
    if not (
        isinstance(row["data"], dict)
        and isinstance(row["user_id"], str)
        and isinstance(row["session_id"], str)
        and {*map(type, _times_of(row))} == _INTEGERS
    ):
        raise TypeError("not a session")
    data, request_data = take_out(row["data"])
    auth, mark, remember, device_policy = take_own(row["auth"])
    # At once: its own __init__, as it is frozen, would call a function for each of the members.
    session = object.__new__(Session)
    vars(session).update(
        _row=row,
        user_id=row["user_id"],
        tenant_id=row["tenant_id"],
        data=data,
        version=row["version"],
        auth=auth,
        # Not in the cache: nobody who acts as somebody else is kept there.
        actor=row.get("actor_id"),
        cached=cached,
        request_data=request_data,
        mark=mark,
        remember=remember,
        device_proved=row.get("device_proved") is True,
        device_policy=device_policy,
    )
    return session
