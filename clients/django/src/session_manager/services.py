"""SessionService: a session's life in Python.

    from session_manager.services import session_service

    created = session_service.create("auth0|ada", {"plan": "free"}, ip="203.0.113.7")
    session = session_service.get(created.token)

Every method takes the token as the cookie has it and sends its digest form.  What is not a token is
answered without asking anybody.  "No such session" is None (or False, or the status ``ended``);
an exception (session_manager.exceptions) is no verdict about a session.

Each method has an asynchronous twin with an ``a`` before its name.
"""

from __future__ import annotations

import functools
import heapq
import ipaddress
import itertools
import json
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

from . import signals
from .conf import settings
from .exceptions import InvalidArgument, LimitReached, StoreUnavailable, WrongShard
from .store.cache import Lease, SessionCache, session_cache
from .store.database import (
    call,
    call_for_value,
    function,
    json_argument,
    text_argument,
    translating_errors,
    utc,
)
from .store.fan_out import each_shard
from .store.imported import use_up_all
from .store.live_session import session_of
from .store.request_data import parse, take_out
from .store.shards import (
    Bucket,
    alias_of,
    bucket_of_bytes,
    bucket_of_id,
    bucket_of_token,
    bucket_of_user,
)
from .store.standby import Standby, has_standbys, standby_of_session, standby_of_user
from .store.tokens import digest_form, digest_form_of, session_id_of, token_bytes
from .store.transactions import changed_any_here, changed_here, note_change
from .tracing import traced
from .types import (
    JSON,
    SESSION_TIMES,
    Activity,
    BoundDevice,
    CreatedSession,
    Device,
    Event,
    ListedSession,
    LiveSession,
    ProvedDevice,
    RefreshedSession,
    Session,
    UpdatedSession,
    take_own,
)

# Inside the class "list" is the method.
Listing = list

P = ParamSpec("P")
R = TypeVar("R")

_ENDED = RefreshedSession("ended", None, None, None, None, None, None)
_BOUND_NOTHING = BoundDevice("ended", None, None, None, None, None, None, None)
_PROVED_NOTHING = ProvedDevice("ended", None, None)
# Events that tell from where a session was used last; the extension's networks are /24 and /48.
_LOCATING = ("created", "refreshed", "rotated")
_PREFIX = {4: 24, 6: 48}


def _twin(
    method: Callable[Concatenate[SessionService, P], R],
) -> Callable[Concatenate[SessionService, P], Coroutine[Any, Any, R]]:
    """The asynchronous form of a method, in the thread of the ORM's connections."""

    @functools.wraps(method)
    async def wrapper(self: SessionService, *args: P.args, **kwargs: P.kwargs) -> R:
        return await sync_to_async(method)(self, *args, **kwargs)

    return wrapper  # type: ignore[return-value]


def _network(ip: str | None) -> Any:
    """The network of an address as client_binding compares it, or None."""
    if not ip:
        return None
    address = ipaddress.ip_interface(ip).ip
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return ipaddress.ip_network((address, _PREFIX[address.version]), strict=False)


def _event_columns() -> str:
    """The beginning of a statement that selects events."""
    return (
        "SELECT event_id AS id, session_id, user_id, tenant_id, event, "
        f"{function('session_event_severity')}(event) AS severity, host(ip) AS ip, "
        f"user_agent, detail, {utc('at')}"
    )


@traced
class SessionService:
    """Calls of the extension's functions that the bundle ``app`` allows."""

    def create(
        self,
        user_id: str,
        data: JSON | None = None,
        *,
        ttl: timedelta | None = None,
        ip: str | None = None,
        user_agent: str | None = None,
        tenant_id: str | None = None,
        auth: JSON | None = None,
        max_lifetime: timedelta | None = None,
        cut_ttl: bool = False,
        idle_timeout: timedelta | None = None,
        actor_token: str | None = None,
    ) -> CreatedSession:
        """Log a user in.

        data: what to keep, a JSON object.  ttl: lifetime unless refreshed; by default SESSION_TTL,
        else the extension's.  auth: how the user proved who they are; shown in the list of devices.
        max_lifetime: until the end that no refresh moves; by default, and at most, the extension's.
        cut_ttl: take what the extension allows in the place of a longer ttl, which it refuses.
        idle_timeout: how long it lives without being used; by default the extension's.
        actor_token: of the live session of somebody else, who will act as this user; the new
        session ends with that one.
        Raises LimitReached, TooLarge, InvalidArgument, StoreUnavailable.
        """
        bucket = bucket_of_user(user_id)
        if actor_token and alias_of(bucket_of_token(actor_token)) != alias_of(bucket):
            raise InvalidArgument("the session of the actor is on another shard than the user's")
        # Beyond max_sessions_per_user the oldest ones end.
        note_change(None, bucket)
        try:
            rows = call(
                "SELECT session_id, session_token, "
                + utc("created_at", "expires_at", "absolute_expires_at")
                + f", new_device FROM {function('session_create')}"
                f"(%s, %s::jsonb, {_ttl(cut_ttl)}, %s::inet, %s, %s, %s::jsonb, %s::interval,"
                " %s::interval, %s)",
                [
                    text_argument(user_id),
                    json_argument({} if data is None else data),
                    settings.TTL if ttl is None else ttl,
                    ip,
                    _storable(user_agent),
                    text_argument(tenant_id),
                    json_argument(auth),
                    max_lifetime,
                    idle_timeout,
                    digest_form(actor_token),
                ],
                bucket=bucket,
                savepoint=True,
            )
        except LimitReached as error:
            # Now, as the caller's transaction, which may have ended one, is going to roll back.
            error.sessions = self.list(user_id, fresh=True)
            raise
        row = rows[0]
        created = CreatedSession(
            row["session_id"],
            row["session_token"],
            row["created_at"],
            row["expires_at"],
            row["absolute_expires_at"],
            row["new_device"],
        )
        seen = {
            "session_id": created.id,
            "user_id": user_id,
            "tenant_id": tenant_id,
            "ip": ip,
            "user_agent": user_agent,
        }
        signals.send(signals.session_created, type(self), bucket, **seen)
        if created.new_device:
            at = created.created_at
            signals.send(signals.new_device, type(self), bucket, **seen, created_at=at)
        return created

    def get(
        self,
        token: str | None,
        *,
        ip: str | None = None,
        user_agent: str | None = None,
        touch: bool = True,
        fresh: bool = False,
    ) -> Session | None:
        """The live session of a token, or None.

        ip and user_agent are stored when a use is noted; touch=False notes none.  With REDIS_URL
        the answer may come from the cache, which never has a session that was revoked, but not
        after a change in the same transaction.  With READ_DATABASE a standby may answer, but None
        is always the primary's answer; with fresh=True every one is.
        """
        raw = token_bytes(token)
        if token is None or raw is None:
            return None
        bucket = bucket_of_bytes(raw)
        cache = session_cache(bucket)
        lease = stale = question = None
        if (cache is not None or has_standbys()) and not changed_here(raw):
            if cache is not None:
                session, lease, answered = cache.read(raw)
                if session is not None:
                    return session
                fresh = fresh or answered
            if not fresh and has_standbys():
                question = _question(raw, ip, user_agent, touch)
                stale = _read_standby(standby_of_session(alias_of(bucket), raw), *question)
                if stale is not None and not (touch and stale["touch_due"]):
                    return session_of(stale)
        question = question or _question(raw, ip, user_agent, touch)
        try:
            text: str | None = call_for_value(*question, bucket=bucket)
        except WrongShard:
            # The standby's primary does not have the session any more.
            raise
        except StoreUnavailable:
            if stale is None:
                raise
            # It lives, as far as anybody can tell.  Only its use is not recorded.
            return session_of(stale)
        if text is None:
            return None
        row = parse(text)
        session = session_of(row)
        if cache is not None and lease is not None and row["cacheable"]:
            self._fill(cache, bucket, raw, lease, row, text)
        return session

    def get_id(self, session_id: uuid.UUID | str, user_id: str) -> LiveSession | None:
        """What is known of a user's live session by its id, or None.  No use is noted.

        For work beside requests, which has no token.
        """
        rows = call(
            "SELECT tenant_id, actor_id, "
            + utc(*SESSION_TIMES, "ends_at")
            + f" FROM {function('session_get_id')}(%s::uuid, %s)",
            [str(session_id), text_argument(user_id)],
            bucket=bucket_of_id(session_id),
            idempotent=True,
        )
        if not rows:
            return None
        return LiveSession(uuid.UUID(str(session_id)), user_id, **rows[0])

    def update(
        self,
        token: str | None,
        patch: JSON,
        *,
        expected_version: int | None = None,
        replace: bool = False,
    ) -> UpdatedSession | None:
        """Change the data by JSON Merge Patch (RFC 7396), or replace it; None if not live.

        Raises VersionConflict if expected_version is not the current one, TooLarge,
        InvalidArgument, StoreUnavailable.
        """
        digest = digest_form(token)
        if token is None or digest is None:
            return None
        bucket = bucket_of_token(token)
        note_change(session_id_of(token), bucket)
        rows = call(
            f"SELECT version, data FROM {function('session_update')}"
            "(%s, %s::jsonb, %s::integer, %s)",
            [digest, json_argument(patch), expected_version, replace],
            bucket=bucket,
            json_columns=("data",),
            savepoint=True,
        )
        return UpdatedSession(rows[0]["version"], take_out(rows[0]["data"])[0]) if rows else None

    def update_user(self, user_id: str, patch: JSON, *, tenant_id: str | None = None) -> int:
        """Patch the data of all live sessions of a user; how many there are."""
        bucket = bucket_of_user(user_id)
        note_change(None, bucket)
        return self._count(
            "session_update_user",
            "%s, %s::jsonb, %s",
            [text_argument(user_id), json_argument(patch), text_argument(tenant_id)],
            bucket=bucket,
        )

    def refresh(
        self,
        token: str | None,
        *,
        rotate: bool = False,
        ttl: timedelta | None = None,
        ip: str | None = None,
        user_agent: str | None = None,
        with_session: bool = False,
    ) -> RefreshedSession:
        """Extend a session, and replace its token if told to.

        with_session: ``session`` is what get would return then, by the same statement.
        ``proof_required``: the session lives, but the proof of its device is missing.
        A replay ends the session and says ``reused``.  Let the transaction commit then: a rollback
        loses the revocation unless the library is preloaded.
        """
        digest = digest_form(token)
        if token is None or digest is None:
            return _ENDED
        session_id, bucket = session_id_of(token), bucket_of_token(token)
        note_change(session_id, bucket)
        watched = ip is not None and signals.client_changed.has_listeners(type(self))
        known = self._last_known(session_id) if watched else None
        refreshed = _renew(
            digest,
            "session_refresh(%s, %s, %s::interval, %s::inet, %s)",
            [digest, rotate, ttl, ip, _storable(user_agent)],
            bucket,
            client=(ip, _storable(user_agent)) if with_session else None,
        )
        if refreshed.status == "reused":
            signals.send(
                signals.token_reused,
                type(self),
                bucket,
                session_id=session_id,
                user_id=refreshed.user_id,
                ip=ip,
                user_agent=user_agent,
            )
        elif refreshed.live and known is not None:
            event, moved = known
            if moved or _network(event.ip) != _network(ip):
                signals.send(
                    signals.client_changed,
                    type(self),
                    bucket,
                    session_id=session_id,
                    user_id=event.user_id,
                    previous_ip=event.ip,
                    ip=ip,
                    previous_user_agent=event.user_agent,
                    user_agent=user_agent,
                )
        return refreshed

    def elevate(
        self,
        token: str | None,
        auth: JSON,
        data: JSON | None = None,
        *,
        ip: str | None = None,
        user_agent: str | None = None,
        with_session: bool = False,
    ) -> RefreshedSession:
        """Record that the user proved more: a new token, the old one void at once.

        with_session: ``session`` is what get would return then for ip and user_agent, by the same
        statement.
        """
        digest = digest_form(token)
        if token is None or digest is None:
            return _ENDED
        bucket = bucket_of_token(token)
        note_change(session_id_of(token), bucket)
        return _renew(
            digest,
            "session_elevate(%s, %s::jsonb, %s::jsonb)",
            [digest, json_argument(auth), json_argument(data)],
            bucket,
            client=(ip, _storable(user_agent)) if with_session else None,
            savepoint=True,
        )

    def switch_tenant(
        self,
        token: str | None,
        tenant_id: str | None,
        data: JSON | None = None,
        *,
        ip: str | None = None,
        user_agent: str | None = None,
        with_session: bool = False,
    ) -> RefreshedSession:
        """Go on in another tenant: a new session in the place of the token's, in one step.

        The new session keeps ``auth``, the time of authentication and the end of the login; of the
        data it has what is given.  ``rotated`` with the new session and its token, or no new
        session: ``ended``, and ``already_rotated`` for a replaced token.  with_session: as elevate.
        Raises TooLarge, InvalidArgument, StoreUnavailable.
        """
        digest = digest_form(token)
        if token is None or digest is None:
            return _ENDED
        session_id, bucket = session_id_of(token), bucket_of_token(token)
        note_change(session_id, bucket)
        switched = _renew(
            digest,
            "session_switch_tenant(%s, %s, %s::jsonb)",
            [digest, text_argument(tenant_id), json_argument(data)],
            bucket,
            client=(ip, _storable(user_agent)) if with_session else None,
            savepoint=True,
        )
        if switched.id is not None and switched.token is not None:
            self._send_invalidated(bucket, session_id, switched.user_id, None, "tenant_switched", 1)
            self._send_created(switched.id)
        return switched

    def invalidate(self, token: str | None, reason: str = "logout") -> bool:
        """Log out; whether a live session ended."""
        digest = digest_form(token)
        if token is None or digest is None:
            return False
        bucket = bucket_of_token(token)
        note_change(session_id_of(token), bucket)
        rows = call(
            f"SELECT {function('session_invalidate')}(%s, %s) AS user_id",
            [digest, text_argument(reason)],
            bucket=bucket,
            idempotent=True,
        )
        owner: str | None = rows[0]["user_id"]
        if owner is not None:
            self._send_invalidated(bucket, session_id_of(token), owner, None, reason, 1)
        return owner is not None

    def invalidate_id(
        self, session_id: uuid.UUID | str, user_id: str | None = None, reason: str = "admin"
    ) -> bool:
        """End a session by its id; give user_id whenever a user asks for it."""
        bucket = bucket_of_id(session_id)
        note_change(uuid.UUID(str(session_id)), bucket)
        rows = call(
            f"SELECT {function('session_invalidate_id')}(%s::uuid, %s, %s) AS user_id",
            [str(session_id), text_argument(user_id), text_argument(reason)],
            bucket=bucket,
            idempotent=True,
        )
        owner: str | None = rows[0]["user_id"]
        if owner is not None:
            self._send_invalidated(bucket, uuid.UUID(str(session_id)), owner, None, reason, 1)
        return owner is not None

    def invalidate_all(
        self,
        user_id: str,
        *,
        except_token: str | None = None,
        tenant_id: str | None = None,
        reason: str = "logout_all",
    ) -> int:
        """End all live sessions of a user, in one tenant if given; how many ended.

        except_token spares the session of that token if it is a live one of this user.
        """
        bucket = bucket_of_user(user_id)
        note_change(None, bucket)
        if settings.IMPORT_DJANGO_SESSIONS and tenant_id is None:
            with translating_errors():
                use_up_all(user_id)
        count = self._count(
            "session_invalidate_all",
            "%s, %s, %s, %s",
            [
                text_argument(user_id),
                # Another shard's is none of the user's.
                digest_form(except_token) if bucket_of_token(except_token) == bucket else None,
                text_argument(tenant_id),
                text_argument(reason),
            ],
            bucket=bucket,
        )
        if count:
            self._send_invalidated(bucket, None, user_id, tenant_id, reason, count)
        return count

    def end_reason(self, token: str | None) -> str | None:
        """Why the session of a token has ended: ``expired``, ``idle`` or the reason given.

        None if it lives, is unknown or the token is wrong.  It is whatever the caller of invalidate
        wrote there; the 401 answers tell it only where it looks like a code.
        """
        digest = digest_form(token)
        if digest is None:
            return None
        rows = call(
            f"SELECT {function('session_end_reason')}(%s) AS reason",
            [digest],
            bucket=bucket_of_token(token),
            savepoint=True,
            idempotent=True,
        )
        reason: str | None = rows[0]["reason"]
        return reason

    # Sessions that are bound to a device.  None of these needs a proof.

    def device_challenge(self, token: str | None) -> str | None:
        """What the device of a live session is to sign, to be bound or to prove itself.

        None if the session is not live.
        """
        digest = digest_form(token)
        if digest is None:
            return None
        rows = call(
            f"SELECT {function('session_device_challenge')}(%s) AS challenge",
            [digest],
            bucket=bucket_of_token(token),
            idempotent=True,
        )
        challenge: str | None = rows[0]["challenge"]
        return challenge

    def bind_device(
        self,
        token: str | None,
        key: JSON,
        challenge: str,
        *,
        ip: str | None = None,
        user_agent: str | None = None,
    ) -> BoundDevice:
        """Bind a session to the public key (a JSON Web Key) of a device, and replace its token.

        The caller has verified that the device has signed the challenge with that key.
        Raises InvalidArgument for what is no such key.
        """
        digest = digest_form(token)
        if token is None or digest is None:
            return _BOUND_NOTHING
        bucket = bucket_of_token(token)
        note_change(session_id_of(token), bucket)
        (row,) = call(
            "SELECT status, session_id, user_id, session_token AS token, binding_id, thumbprint, "
            f"proof, {utc('proof_expires_at')} FROM {function('session_bind_device')}"
            "(%s, %s::jsonb, %s, %s::inet, %s)",
            [digest, json_argument(key), text_argument(challenge), ip, _storable(user_agent)],
            bucket=bucket,
            savepoint=True,
        )
        return BoundDevice(**row)

    def device(self, token: str | None) -> Device | None:
        """The device that a live session is bound to; None if it is not live, or bound to none."""
        digest = digest_form(token)
        if digest is None:
            return None
        rows = call(
            "SELECT session_id, user_id, binding_id, key, thumbprint, "
            + utc("bound_at", "proved_at")
            + f" FROM {function('session_device')}(%s)",
            [digest],
            bucket=bucket_of_token(token),
            json_columns=("key",),
            idempotent=True,
        )
        return Device(**rows[0]) if rows else None

    def prove_device(self, token: str | None, challenge: str) -> ProvedDevice:
        """A new proof for a session whose device has signed a challenge.

        The caller has verified the signature by the key of ``device``.
        """
        digest = digest_form(token)
        if token is None or digest is None:
            return _PROVED_NOTHING
        bucket = bucket_of_token(token)
        note_change(session_id_of(token), bucket)
        (row,) = call(
            f"SELECT status, proof, {utc('proof_expires_at')}"
            f" FROM {function('session_prove_device')}(%s, %s)",
            [digest, text_argument(challenge)],
            bucket=bucket,
        )
        return ProvedDevice(**row)

    def report_device(
        self,
        token: str | None,
        skipped: bool,
        cause: str,
        *,
        ip: str | None = None,
        user_agent: str | None = None,
    ) -> bool:
        """Record why a browser has sent no proof (skipped), or that what it sent is none.

        Whether the session is live and bound; else nothing is recorded.
        """
        digest = digest_form(token)
        if digest is None:
            return False
        rows = call(
            f"SELECT {function('session_device_report')}(%s, %s, %s, %s::inet, %s) AS recorded",
            [digest, skipped, text_argument(cause), ip, _storable(user_agent)],
            bucket=bucket_of_token(token),
            savepoint=True,
        )
        return bool(rows[0]["recorded"])

    def list(
        self,
        user_id: str,
        *,
        current_token: str | None = None,
        include_ended: bool = False,
        after: uuid.UUID | str | None = None,
        max_rows: int = 100,
        fresh: bool = False,
    ) -> list[ListedSession]:
        """A user's sessions, newest first; for the next page give the last one's id as after.

        With READ_DATABASE a standby may answer, unless it has no session, or not that of
        current_token; with fresh=True it never does.
        """
        bucket = bucket_of_user(user_id)
        # Another user's is on no page of this one's.
        raw = token_bytes(current_token) if bucket_of_token(current_token) == bucket else None
        statement = (
            "SELECT session_id AS id, tenant_id, is_current, host(ip) AS ip, user_agent, auth, "
            "ended_reason, actor_id AS actor, idle_timeout, device_thumbprint, "
            + utc("created_at", "last_seen_at", "expires_at", "absolute_expires_at", "ended_at")
            + ", "
            + utc("device_bound_at", "device_proved_at")
            + f" FROM {function('session_list')}(%s, %s, %s, %s::uuid, %s)",
            [
                text_argument(user_id),
                None if raw is None else digest_form(current_token),
                include_ended,
                None if after is None else str(after),
                max_rows,
            ],
        )
        rows = None
        if not fresh and has_standbys() and not changed_any_here(bucket):
            alias = alias_of(bucket)
            standby = (
                standby_of_user(alias, user_id) if raw is None else standby_of_session(alias, raw)
            )
            if standby is not None:
                rows = standby.read(*statement, json_columns=("auth",))
            if rows is not None and raw is not None and not any(r["is_current"] for r in rows):
                rows = None
        if not rows:
            rows = call(*statement, bucket=bucket, json_columns=("auth",), idempotent=True)
        for row in rows:
            row["auth"], _, row["remember"], _ = take_own(row["auth"])
        return [ListedSession(**row) for row in rows]

    def activity(
        self, *, since: datetime | None = None, tenant_id: str | None = None
    ) -> Listing[Activity]:
        """Numbers of events by the hour, of the last day unless told otherwise.

        At the same cost for an audit trail of any length; a tenant's only, where one is given.
        """

        def count() -> Listing[Activity]:
            rows = call(
                f"SELECT event, reason, events, {utc('hour', 'until')}"
                f" FROM {function('session_activity')}(%s::timestamptz, %s)",
                [since, text_argument(tenant_id)],
                savepoint=tenant_id is not None,
                idempotent=True,
            )
            return [Activity(**row) for row in rows]

        total: dict[tuple[datetime, str, str | None], Activity] = {}
        for one in itertools.chain(*each_shard(count).values()):
            key = (one.hour, one.event, one.reason)
            if (known := total.get(key)) is not None:
                one = replace(
                    one, until=min(one.until, known.until), events=one.events + known.events
                )
            total[key] = one
        return sorted(total.values(), key=lambda a: (a.hour, a.event, a.reason or ""))

    def critical_events(
        self, *, max_rows: int = 20, tenant_id: str | None = None
    ) -> Listing[Event]:
        """The newest critical events of all, or of a tenant, newest first."""

        def find() -> Listing[Event]:
            rows = call(
                f"{_event_columns()} FROM {function('session_critical_events')}(%s, %s)",
                [max_rows, text_argument(tenant_id)],
                json_columns=("detail",),
                savepoint=True,
                idempotent=True,
            )
            return [Event(**row) for row in rows]

        found = each_shard(find).values()
        events = heapq.merge(*found, key=lambda event: event.at, reverse=True)
        return Listing(itertools.islice(events, max_rows))

    def history(
        self,
        *,
        session_id: uuid.UUID | str | None = None,
        user_id: str | None = None,
        since: datetime | None = None,
        max_rows: int = 100,
    ) -> Listing[Event]:
        """The audit trail of a session, of a user or of all, newest first."""
        if session_id is None and user_id is None:
            found = each_shard(lambda: self._history(None, None, since, max_rows, None)).values()
            events = heapq.merge(*found, key=lambda event: event.at, reverse=True)
            return Listing(itertools.islice(events, max_rows))
        bucket = bucket_of_user(user_id) if session_id is None else bucket_of_id(session_id)
        if user_id is not None and bucket_of_user(user_id) != bucket:
            return []
        return self._history(session_id, user_id, since, max_rows, bucket)

    def _history(
        self,
        session_id: uuid.UUID | str | None,
        user_id: str | None,
        since: datetime | None,
        max_rows: int,
        bucket: Bucket,
    ) -> Listing[Event]:
        rows = call(
            f"{_event_columns()}"
            f" FROM {function('session_history')}(%s::uuid, %s, %s::timestamptz, %s)",
            [
                None if session_id is None else str(session_id),
                text_argument(user_id),
                since,
                max_rows,
            ],
            bucket=bucket,
            json_columns=("detail",),
            idempotent=True,
        )
        return [Event(**row) for row in rows]

    def count_active(self, *, tenant_id: str | None = None, user_id: str | None = None) -> int:
        """The exact number of live sessions; without an argument it reads the whole table.

        With SHARDS, unless of a user, of all of them; ShardsUnreachable has those that answered.
        """
        params = [text_argument(tenant_id), text_argument(user_id)]

        def count(bucket: Bucket) -> int:
            return self._count(
                "session_active_count", "%s, %s", params, bucket=bucket, idempotent=True
            )

        if user_id is not None:
            return count(bucket_of_user(user_id))
        return sum(each_shard(lambda: count(None)).values())

    def estimate_active(self) -> int:
        """About how many sessions are live, at the same cost for a table of any size."""

        def estimate() -> int:
            return self._count("session_active_estimate", "", [], idempotent=True)

        return sum(each_shard(estimate).values())

    def bind(self, token: str | None) -> bool:
        """Bind a session's user and tenant to the current transaction, for row-level security.

        See identity.session_identity, which opens the transaction too.
        """
        rows = call(
            f"SELECT {function('session_bind')}(%s) AS bound",
            [digest_form(token)],
            bucket=bucket_of_token(token),
        )
        return bool(rows[0]["bound"])

    def bind_id(self, session_id: uuid.UUID | str, user_id: str) -> bool:
        """The same for a user's session by its id."""
        rows = call(
            f"SELECT {function('session_bind_id')}(%s::uuid, %s) AS bound",
            [str(session_id), text_argument(user_id)],
            bucket=bucket_of_id(session_id),
        )
        return bool(rows[0]["bound"])

    def bind_assertion(self, assertion: str) -> bool:
        """The same for a session of another database, by what that says in assertion()."""
        rows = call(f"SELECT {function('session_bind')}(%s) AS bound", [text_argument(assertion)])
        return bool(rows[0]["bound"])

    def assertion(self, token: str | None, audience: str) -> str | None:
        """A signed statement, for 30 seconds, of whose live session this is; None without one.

        A JSON Web Token for one audience: what session_audience() returns in the database that is
        to bind it, or the name of a service that checks it against session_assertion_keys().
        """
        rows = call(
            f"SELECT {function('session_assertion')}(%s, %s) AS assertion",
            [digest_form(token), text_argument(audience)],
            bucket=bucket_of_token(token),
            idempotent=True,
        )
        assertion: str | None = rows[0]["assertion"]
        return assertion

    def assertion_id(self, session_id: uuid.UUID | str, user_id: str, audience: str) -> str | None:
        """The same for a user's session by its id."""
        rows = call(
            f"SELECT {function('session_assertion_id')}(%s::uuid, %s, %s) AS assertion",
            [str(session_id), text_argument(user_id), text_argument(audience)],
            bucket=bucket_of_id(session_id),
            idempotent=True,
        )
        assertion: str | None = rows[0]["assertion"]
        return assertion

    def audience(self) -> str | None:
        """What an assertion must be made for to be bound in this database; None if none can be."""
        audience: str | None = call(f"SELECT {function('session_audience')}() AS audience")[0][
            "audience"
        ]
        return audience

    @staticmethod
    def _fill(
        cache: SessionCache, bucket: Bucket, raw: bytes, lease: Lease, row: JSON, text: str
    ) -> None:
        # A row that is another shard's by now would stay here when that one's is revoked.
        if session_cache(bucket) is cache:
            cache.fill(raw, lease, row, text)

    def _count(
        self,
        name: str,
        placeholders: str,
        params: Listing[Any],
        *,
        bucket: Bucket = None,
        idempotent: bool = False,
    ) -> int:
        rows = call(
            f"SELECT {function(name)}({placeholders}) AS n",
            params,
            bucket=bucket,
            idempotent=idempotent,
        )
        return int(rows[0]["n"])

    def _send_invalidated(
        self,
        bucket: Bucket,
        session_id: uuid.UUID | None,
        user_id: str | None,
        tenant_id: str | None,
        reason: str,
        count: int,
    ) -> None:
        if not signals.session_invalidated.has_listeners(type(self)):
            return
        signals.send(
            signals.session_invalidated,
            type(self),
            bucket,
            session_id=session_id,
            user_id=user_id,
            tenant_id=tenant_id,
            reason=reason,
            count=count,
        )

    def _send_created(self, session_id: uuid.UUID) -> None:
        """Of a session made by a switch of tenants, which is told from the audit trail."""
        if not signals.session_created.has_listeners(type(self)):
            return
        events = self.history(session_id=session_id, max_rows=10)
        for event in [event for event in events if event.event == "created"]:
            signals.send(
                signals.session_created,
                type(self),
                bucket_of_id(session_id),
                session_id=session_id,
                user_id=event.user_id,
                tenant_id=event.tenant_id,
                ip=event.ip,
                user_agent=event.user_agent,
            )

    def _last_known(self, session_id: uuid.UUID) -> tuple[Event, bool] | None:
        """The last event that tells where a session was, and whether it has moved since."""
        moved = False
        for event in self.history(session_id=session_id, max_rows=50):
            if event.event == "client_changed":
                moved = True
            elif event.event in _LOCATING and event.ip:
                return event, moved
        return None

    acreate = _twin(create)
    aget = _twin(get)
    aget_id = _twin(get_id)
    aupdate = _twin(update)
    aupdate_user = _twin(update_user)
    arefresh = _twin(refresh)
    aelevate = _twin(elevate)
    aswitch_tenant = _twin(switch_tenant)
    ainvalidate = _twin(invalidate)
    ainvalidate_id = _twin(invalidate_id)
    ainvalidate_all = _twin(invalidate_all)
    aend_reason = _twin(end_reason)
    adevice_challenge = _twin(device_challenge)
    abind_device = _twin(bind_device)
    adevice = _twin(device)
    aprove_device = _twin(prove_device)
    areport_device = _twin(report_device)
    alist = _twin(list)
    aactivity = _twin(activity)
    acritical_events = _twin(critical_events)
    ahistory = _twin(history)
    acount_active = _twin(count_active)
    aestimate_active = _twin(estimate_active)
    # By their older name.
    get_active_sessions_count = count_active
    aget_active_sessions_count = acount_active
    abind = _twin(bind)
    abind_id = _twin(bind_id)
    abind_assertion = _twin(bind_assertion)
    aassertion = _twin(assertion)
    aassertion_id = _twin(assertion_id)
    aaudience = _twin(audience)


def _question(
    raw: bytes, ip: str | None, user_agent: str | None, touch: bool
) -> tuple[str, list[Any]]:
    """What asks PostgreSQL for the session of a token's bytes."""
    return (
        f"SELECT {function('session_get_json')}(%s, %s::inet, %s, %s)::text AS session",
        [digest_form_of(raw), ip, _storable(user_agent), touch],
    )


def _read_standby(standby: Standby | None, sql: str, params: list[Any]) -> JSON | None:
    """What a standby has of a live session; None is no verdict."""
    found = None if standby is None else standby.read(sql, params)
    if not found or found[0]["session"] is None:
        return None
    row: JSON = json.loads(found[0]["session"])
    return row


def _renew(
    digest: str,
    called: str,
    params: list[Any],
    bucket: Bucket,
    *,
    client: tuple[str | None, str | None] | None,
    savepoint: bool = False,
) -> RefreshedSession:
    """What a function that may give a session a new token says.

    client: the address and user agent for which the session is read by the same statement; None
    reads none.  No use is noted: the first use of a new token is the browser's, or an answer that
    gets lost would look like a replay.
    """
    columns = "r.status, r.session_id, r.user_id, r.session_token, "
    columns += utc("expires_at", "absolute_expires_at", table="r.")
    if client is not None:
        columns += (
            f", {function('session_get_json')}"
            "(CASE WHEN r.expires_at IS NOT NULL THEN coalesce(r.session_token || %s, %s) END,"
            " %s::inet, %s, false)::text AS session"
        )
        # A proof goes on to hold for the new token.
        _, dot, proof = digest.partition(".")
        params = [dot + proof, digest, *client, *params]
    (row,) = call(
        f"SELECT {columns} FROM {function(called)} AS r", params, bucket=bucket, savepoint=savepoint
    )
    text: str | None = row.get("session")
    return RefreshedSession(
        row["status"],
        row["session_id"],
        row["user_id"],
        row["session_token"],
        row["expires_at"],
        row["absolute_expires_at"],
        None if text is None else session_of(json.loads(text)),
    )


def _ttl(cut: bool) -> str:
    """A parameter of session_create; cut to the longest that it takes.

    The setting is known once a function of the extension has been called.
    """
    if not cut:
        return "%s::interval"
    return (
        f"least(%s::interval, CASE WHEN {function('session_bucket')}(''::text) IS NOT NULL"
        " THEN current_setting('session_manager.max_lifetime')::interval END)"
    )


def _storable(user_agent: str | None) -> str | None:
    """A header as PostgreSQL can store it; the extension cuts it to 512 bytes."""
    if user_agent is None:
        return None
    return user_agent.replace("\0", "").encode("utf-8", "replace").decode("utf-8")[:512]


session_service = SessionService()
