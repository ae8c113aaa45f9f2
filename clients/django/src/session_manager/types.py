"""What the service returns.  Times are aware, in UTC.  A repr never shows a token or data."""

from __future__ import annotations

import uuid
from dataclasses import astuple, dataclass, field
from datetime import datetime, timedelta
from operator import add
from typing import Any

JSON = dict[str, Any]

#: The times of a session, which are columns of the table and members of Session.
SESSION_TIMES = (
    "created_at",
    "authenticated_at",
    "last_seen_at",
    "expires_at",
    "absolute_expires_at",
)

#: Members of a stored ``auth`` that are this package's own, and not shown: whom the session was
#: made for, and whether the login is remembered.
MARK = "_user"
REMEMBER = "_remember"


def take_own(auth: JSON | None) -> tuple[JSON | None, str | None, bool | None]:
    """A stored ``auth`` without the package's own members, and those: the mark, and remember."""
    if auth is None or not (MARK in auth or REMEMBER in auth):
        return auth, None, None
    mark, remember = auth.pop(MARK, None), auth.pop(REMEMBER, None)
    return (
        auth or None,
        mark if isinstance(mark, str) else None,
        remember if isinstance(remember, bool) else None,
    )


@dataclass(frozen=True)
class Session:
    """A live session, as session_get returned it (or the cache, ``cached``)."""

    id: uuid.UUID
    user_id: str
    tenant_id: str | None
    data: JSON = field(repr=False)
    version: int
    auth: JSON | None = field(repr=False)
    created_at: datetime
    authenticated_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    absolute_expires_at: datetime
    #: The user id of who acts as this user, see login.log_in; None: the user.
    actor: str | None = None
    cached: bool = False
    #: What request.session holds, where SESSION_ENGINE is this package's: store/request_data.py.
    request_data: dict[str, str] = field(default_factory=dict, repr=False)
    #: Whom the session was made for, see store/users.py; None if that is not known.
    mark: str | None = field(default=None, repr=False)
    #: As the login has said, see login.log_in.
    remember: bool | None = None

    exists = True

    @property
    def persistent(self) -> bool:
        """Whether its cookie outlives the browser."""
        return self.remember is not False

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True)
class LiveSession:
    """What is known of a live session by its id: for work beside requests, which has no token."""

    id: uuid.UUID
    user_id: str
    tenant_id: str | None
    #: Who acts as the user, or None.
    actor_id: str | None
    created_at: datetime
    authenticated_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    absolute_expires_at: datetime
    #: When it ends unless it is used or refreshed until then.
    ends_at: datetime


class NoSession:
    """Stands for "no live session" in ``request.session_info``: false, and empty in all else."""

    exists = False
    id = user_id = tenant_id = auth = version = actor = None
    created_at = authenticated_at = last_seen_at = expires_at = absolute_expires_at = None
    cached = False

    @property
    def data(self) -> JSON:
        return {}

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "<NoSession>"


@dataclass(frozen=True)
class CreatedSession:
    """A new session and its token, which is returned exactly once."""

    id: uuid.UUID
    token: str = field(repr=False)
    created_at: datetime
    expires_at: datetime
    absolute_expires_at: datetime
    #: The user has not been seen with such a device in such a network before.
    new_device: bool = False


@dataclass(frozen=True)
class RefreshedSession:
    """The verdict of a refresh or an elevation.

    ``status`` is ``extended``, ``rotated``, ``already_rotated``, ``reused`` or ``ended``; ``token``
    is set if it is ``rotated``, ``id`` and ``user_id`` unless it is ``ended``.  Leave the cookie
    alone also on ``reused`` and ``ended``: the answer may be late, and the browser may hold a newer
    one.
    """

    status: str
    id: uuid.UUID | None
    user_id: str | None
    token: str | None = field(repr=False)
    expires_at: datetime | None
    absolute_expires_at: datetime | None
    #: The session as it is then, where with_session asked for it and it is live.
    session: Session | None

    @property
    def live(self) -> bool:
        return self.status in ("extended", "rotated", "already_rotated")


@dataclass(frozen=True)
class UpdatedSession:
    """The new version and the whole data after an update."""

    version: int
    data: JSON = field(repr=False)


@dataclass(frozen=True)
class ListedSession:
    """A session in a user's list of devices."""

    id: uuid.UUID
    tenant_id: str | None
    is_current: bool
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    absolute_expires_at: datetime
    ip: str | None
    user_agent: str | None
    auth: JSON | None
    ended_at: datetime | None
    ended_reason: str | None
    #: As of Session.
    actor: str | None
    remember: bool | None
    #: Of the session's own; None: the extension's setting.
    idle_timeout: timedelta | None


@dataclass(frozen=True)
class Event:
    """An entry of the audit trail."""

    id: int
    at: datetime
    session_id: uuid.UUID | None
    user_id: str | None
    tenant_id: str | None
    event: str
    severity: str | None
    ip: str | None
    user_agent: str | None
    detail: JSON | None


@dataclass(frozen=True)
class Cleanup:
    """What one call of session_cleanup did."""

    sessions_deleted: int
    sessions_requeued: int
    events_dropped: int
    partitions_created: int
    partitions_dropped: int
    events_moved: int

    def __add__(self, other: Cleanup) -> Cleanup:
        """What two did."""
        return Cleanup(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Key:
    """What is known of a key; never the key."""

    id: int
    state: str
    available: bool
    created_at: datetime
    activated_at: datetime | None
    retired_at: datetime | None
    revoked_at: datetime | None
