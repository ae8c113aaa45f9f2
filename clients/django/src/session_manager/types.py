"""What the service returns.  Times are aware, in UTC.  A repr never shows a token or data."""

from __future__ import annotations

import uuid
from dataclasses import astuple, dataclass, field
from datetime import datetime, timedelta, timezone
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
#: made for, whether the login is remembered, and whether a device has to be bound.
MARK = "_user"
REMEMBER = "_remember"
DEVICE = "_device"


@dataclass(frozen=True)
class DevicePolicy:
    """What was decided at the login about binding the session to a device."""

    #: "off", "offer" or "require".
    mode: str
    #: When; what is required is due DEVICE_REGISTRATION_SECONDS later.
    since: datetime

    def stored(self) -> JSON:
        return {"mode": self.mode, "since": round(self.since.timestamp(), 3)}


def with_policy(auth: JSON | None, policy: DevicePolicy | None) -> JSON | None:
    """``auth`` as it is stored."""
    return auth if policy is None else {**(auth or {}), DEVICE: policy.stored()}


def _device_policy(stored: Any) -> DevicePolicy | None:
    if not isinstance(stored, dict):
        return None
    mode, since = stored.get("mode"), stored.get("since")
    if not isinstance(mode, str) or not isinstance(since, (int, float)):
        return None
    try:
        return DevicePolicy(mode, datetime.fromtimestamp(since, timezone.utc))
    except (OverflowError, ValueError, OSError):
        return None


def take_own(
    auth: JSON | None,
) -> tuple[JSON | None, str | None, bool | None, DevicePolicy | None]:
    """A stored ``auth`` without the package's own members, and those.

    The mark, remember, and what was decided about a device.
    """
    if auth is None or not (MARK in auth or REMEMBER in auth or DEVICE in auth):
        return auth, None, None, None
    mark, remember = auth.pop(MARK, None), auth.pop(REMEMBER, None)
    return (
        auth or None,
        mark if isinstance(mark, str) else None,
        remember if isinstance(remember, bool) else None,
        _device_policy(auth.pop(DEVICE, None)),
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
    #: When the device that the session is bound to was last asked to prove itself, and did; None:
    #: it is bound to none.
    device_proved_at: datetime | None = None
    #: Whether the request has brought a proof of the device that holds.  A session that has just
    #: been bound works without one for a while.
    device_proved: bool = False
    #: What the login has decided about binding it, if that is known.
    device_policy: DevicePolicy | None = None

    exists = True

    @property
    def device_bound(self) -> bool:
        """Whether its token works with the proof of a device alone."""
        return self.device_proved_at is not None

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
    device_proved_at = None
    cached = device_bound = device_proved = False

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

    ``status`` is ``extended``, ``rotated``, ``already_rotated``, ``reused``, ``proof_required`` or
    ``ended``; ``token`` is set if it is ``rotated``, ``id`` and ``user_id`` unless it is ``ended``
    or ``proof_required``: the session lives, but the proof of its device is missing.  Leave the
    cookie alone also on ``reused`` and ``ended``: the answer may be late, and the browser may hold
    a newer one.
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
    #: Of the key of the device that it is bound to (RFC 7638), and since when; None: to none.
    device_thumbprint: str | None = None
    device_bound_at: datetime | None = None
    #: As of Session.
    device_proved_at: datetime | None = None

    @property
    def device_bound(self) -> bool:
        """Whether its token works with the proof of a device alone."""
        return self.device_bound_at is not None


@dataclass(frozen=True)
class Device:
    """The device that a live session is bound to."""

    session_id: uuid.UUID
    user_id: str
    #: What the browser knows the binding by.
    binding_id: uuid.UUID
    #: Its public key, a JSON Web Key.
    key: JSON
    #: Of the key, by RFC 7638.
    thumbprint: str
    bound_at: datetime
    #: When the challenge that it answered last was issued.
    proved_at: datetime


@dataclass(frozen=True)
class BoundDevice:
    """The verdict of a binding.

    ``status`` is ``bound``, and all else is set, or ``already_bound``, ``already_rotated``,
    ``bad_challenge`` or ``ended``.
    """

    status: str
    session_id: uuid.UUID | None
    user_id: str | None
    #: The session's new token; the one before has the grace of a rotation.
    token: str | None = field(repr=False)
    binding_id: uuid.UUID | None
    thumbprint: str | None
    proof: str | None = field(repr=False)
    proof_expires_at: datetime | None


@dataclass(frozen=True)
class ProvedDevice:
    """The verdict of an answer to a challenge.

    ``status`` is ``proved``, and all else is set, or ``bad_challenge`` (expired, used, or older
    than one that has been answered), ``not_bound`` or ``ended``.
    """

    status: str
    proof: str | None = field(repr=False)
    proof_expires_at: datetime | None


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
class Activity:
    """How many events of one type, and reason or cause, there were in an hour.

    ``until`` is the end of the hour, or the moment up to which they are counted.
    """

    hour: datetime
    until: datetime
    event: str
    reason: str | None
    events: int


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
