"""A stand-in for the extension: sessions in the memory of the process, for tests without it.

SESSION_MANAGER["IN_MEMORY"] lets it answer the statements that this package sends to PostgreSQL,
and only under a test runner.  Each public function here stands for the one of the extension that
has its name: docs/reference.md says what it does, and the tests of the service run on both.

What a transaction of Django's did is undone when that rolls back, also to a savepoint.  Until then
all threads see it: there is one state, and no isolation.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import itertools
import json
import re
import secrets
import threading
import uuid
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any
from weakref import WeakKeyDictionary

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from ..conf import settings
from ..exceptions import InvalidArgument, LimitReached, TooLarge, VersionConflict
from ..management.test_databases import under_test
from ..store.aliases import database_alias
from ..store.live_session import from_microseconds, microseconds
from ..store.tokens import digest_form
from ..store.transactions import Outcome
from ..types import JSON, SESSION_TIMES
from .statements import Row, UnknownStatement, read

#: The settings of the extension that count here, with their defaults.  Durations in seconds.
DEFAULTS: Mapping[str, Any] = {
    "ttl": 86400,
    "max_lifetime": 7 * 86400,
    "idle_timeout": 0,
    "rotation_grace": 30,
    "touch_interval": 60,
    "max_sessions_per_user": 0,
    "on_limit": "evict_oldest",
    "max_data_size": 65536,
    "client_binding": "off",
    "new_device_events": True,
    "device_proof_lifetime": 300,
}
SEVERITIES = {
    "invalidated": "notice",
    "evicted": "notice",
    "elevated": "notice",
    "impersonated": "notice",
    "device_bound": "notice",
    "device_proof_skipped": "notice",
    "erased": "notice",
    "rejected": "warning",
    "bind_failed": "warning",
    "client_changed": "warning",
    "new_device": "warning",
    "token_reused": "critical",
    "device_proof_failed": "critical",
}
#: Of assertions that this database binds: its own.
_AUDIENCE = "00000000-0000-4000-8000-000000000000"
LONGEST_NAME = 512
LONGEST_CAUSE = 64
LONGEST_REASON = 64
LONGEST_USER_AGENT = 512
MOST_ROWS = 10000
#: A refusal of one kind is recorded once in this time.
REFUSED_INTERVAL = timedelta(seconds=1)
#: How long a session that has just been bound to a device works without a proof at most.
MAX_UNPROVED = timedelta(minutes=5)
_NETWORKS = {4: 24, 6: 48}
_FAR = datetime.max.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Client:
    ip: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True)
class StoredSession:
    """A row of user_sessions, with digest forms in the place of verifiers."""

    session_id: uuid.UUID
    user_id: str
    tenant_id: str | None
    data: JSON
    auth: JSON | None
    version: int
    ttl: timedelta
    created_at: datetime
    authenticated_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    absolute_expires_at: datetime
    ip: str | None
    user_agent: str | None
    idle_timeout: timedelta | None
    #: The session of who acts as the user, and that person.
    actor_session_id: uuid.UUID | None
    actor_id: str | None
    digest: str
    previous_digest: str | None = None
    #: None after an elevation: the token that it replaced never works again.
    previous_valid_until: datetime | None = None
    rotated_at: datetime | None = None
    successor_used: bool = True
    revoked_at: datetime | None = None
    revoked_reason: str | None = None
    device: BoundKey | None = None


@dataclass(frozen=True)
class BoundKey:
    """The device that a session is bound to."""

    binding_id: uuid.UUID
    key: JSON
    bound_at: datetime
    #: When the challenge that it answered last was issued.
    proved_at: datetime


@dataclass(frozen=True)
class Renewal:
    status: str
    session: StoredSession | None = None
    token: str | None = None
    live: bool = True

    def row(self) -> Row:
        session = self.session
        return {
            "status": self.status,
            "session_id": session and session.session_id,
            "user_id": session and session.user_id,
            "session_token": self.token,
            "expires_at": session.expires_at if session and self.live else None,
            "absolute_expires_at": session and session.absolute_expires_at,
        }


#: Of a session that is bound, by a token without the proof of its device.
_PROOF_REQUIRED = Renewal("proof_required")


class InMemory:
    """The state of one process, and the functions over it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sessions: dict[uuid.UUID, StoredSession] = {}
        self._events: list[Row] = []
        self._event_ids = itertools.count(1)
        self._refusals: dict[tuple[str, str, uuid.UUID | None], tuple[datetime, int]] = {}
        #: By connection: what its open transaction has done, and how to undo it.
        self._done: WeakKeyDictionary[Any, list[tuple[Outcome, Callable[[], None]]]]
        self._done = WeakKeyDictionary()
        self._bound: WeakKeyDictionary[Any, StoredSession | None] = WeakKeyDictionary()
        self._outcome: Outcome | None = None

    def __call__(self, sql: str, params: Sequence[Any]) -> list[Row]:
        """The rows of a statement."""
        if not under_test():
            raise ImproperlyConfigured(
                'SESSION_MANAGER["IN_MEMORY"] is for tests: nothing would be kept, no other '
                "process would see it, and no test runner has set this process up."
            )
        try:
            statement = read(sql)
        except UnknownStatement:
            raise ImproperlyConfigured(
                'With SESSION_MANAGER["IN_MEMORY"] there is no answer to this statement, which '
                f"needs the extension: {sql}"
            ) from None
        with self._lock:
            self._settle()
            self._outcome = None
            return statement.run(params, self._call)

    def flush(self) -> None:
        """Forget everything."""
        with self._lock:
            self._sessions.clear()
            self._events.clear()
            self._refusals.clear()
            self._done.clear()
            self._bound.clear()

    def _call(self, name: str, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        function = getattr(self, name, None) if not name.startswith("_") else None
        if function is None:
            raise ImproperlyConfigured(
                f'With SESSION_MANAGER["IN_MEMORY"] there is no {name}(): it needs the extension.'
            )
        return function(*args, **named)

    # Transactions

    def _settle(self) -> None:
        """Undo what was done in transactions, and back to savepoints, that have rolled back."""
        for connection, done in list(self._done.items()):
            while done and done[-1][0].rolled_back:
                done.pop()[1]()
            if done and not done[-1][0].pending:
                # Committed, and all before it.
                done.clear()
                self._bound.pop(connection, None)

    def _undoable(self, undo: Callable[[], None]) -> bool:
        """Whether the transaction that is open will undo it if it rolls back."""
        if self._outcome is None:
            self._outcome = Outcome(None)
        if not self._outcome.pending:
            return False
        self._done.setdefault(connections[database_alias()], []).append((self._outcome, undo))
        return True

    def _store(self, session: StoredSession) -> None:
        before = self._sessions.get(session.session_id)
        self._sessions[session.session_id] = session

        def undo() -> None:
            if before is None:
                self._sessions.pop(session.session_id, None)
            else:
                self._sessions[session.session_id] = before

        self._undoable(undo)

    def _record(
        self,
        event: str,
        session: StoredSession | None,
        client: Client = Client(),
        unknown_id: uuid.UUID | None = None,
        **detail: Any,
    ) -> None:
        if session and session.actor_id is not None:
            detail["actor"] = session.actor_id
        row = {
            "event_id": next(self._event_ids),
            "at": _now(),
            "session_id": session.session_id if session else unknown_id,
            "user_id": session and session.user_id,
            "tenant_id": session and session.tenant_id,
            "event": event,
            "ip": client.ip,
            "user_agent": client.user_agent,
            "detail": json.dumps(detail) if detail else None,
        }
        self._events.append(row)
        self._undoable(lambda: self._events.remove(row) if row in self._events else None)

    # What the functions have in common

    def _life(self, session: StoredSession, now: datetime) -> str:
        if session.revoked_at is not None:
            return "revoked"
        if now >= session.expires_at:
            return "expired"
        if now >= self._deadline(session):
            return "idle"
        if session.actor_session_id is not None:
            actor = self._sessions.get(session.actor_session_id)
            if actor is None or self._life(actor, now) != "active":
                return "actor_ended"
        return "active"

    def _deadline(self, session: StoredSession) -> datetime:
        idle = _idle_timeout(session)
        return min(session.expires_at, session.last_seen_at + idle) if idle else session.expires_at

    def _ends_at(self, session: StoredSession) -> datetime:
        actor = session.actor_session_id and self._sessions.get(session.actor_session_id)
        return min(self._deadline(session), self._ends_at(actor) if actor else _FAR)

    def _live(self) -> Iterable[StoredSession]:
        now = _now()
        return [s for s in self._sessions.values() if self._life(s, now) == "active"]

    def _find(
        self, token: str | None, refused_as: str = "rejected", client: Client = Client()
    ) -> tuple[StoredSession, bool] | None:
        """The session of a token, live or not, and whether the token is the current one."""
        digest, _ = _parts(token)
        if digest is None:
            return None
        session_id = _session_id_of(digest)
        session = self._sessions.get(session_id)
        if session is None:
            self._refuse(refused_as, "unknown", session_id, None, client)
        elif digest == session.digest:
            return session, True
        elif digest == session.previous_digest:
            return session, False
        else:
            self._refuse(refused_as, "mismatch", session_id, session, client)
        return None

    def _find_live(
        self, token: str | None, refused_as: str = "rejected", client: Client = Client()
    ) -> tuple[StoredSession, bool] | None:
        """The live session of a token that works, and whether it is the current one."""
        found = self._find_unproved(token, refused_as, client)
        if found is not None and not self._proved(found[0], token, refused_as, client):
            return None
        return found

    def _find_unproved(
        self, token: str | None, refused_as: str = "rejected", client: Client = Client()
    ) -> tuple[StoredSession, bool] | None:
        """The same, whether the device that it is bound to has proved itself or not."""
        found = self._find(token, refused_as, client)
        if found is None or self._life(found[0], _now()) != "active":
            return None
        session, current = found
        if not current and not _previous_works(session):
            self._refuse(refused_as, "superseded", session.session_id, session, client)
            return None
        return found

    def _proved(
        self, session: StoredSession, token: str | None, refused_as: str, client: Client = Client()
    ) -> bool:
        """Whether what is behind the token proves the device; for a while nothing has to."""
        device, now = self._device_of(session), _now()
        lifetime = _duration("device_proof_lifetime")
        if device is None or now < device.bound_at + min(lifetime, MAX_UNPROVED):
            return True
        _, proof = _parts(token)
        until = None if proof is None else _stamp_time(_PROOF, device.binding_id, proof)
        if until is not None and now < until:
            return True
        if proof is None:
            cause = "proof_missing"
            excused = (digest_form(token) or token or "").endswith(".")
            proved_at = device.proved_at
            late = not excused and not proved_at + lifetime <= now < proved_at + 3 * lifetime
        elif until is None:
            cause, late = "proof_wrong", True
        else:
            cause, late = "proof_expired", now >= until + lifetime
        event = "device_proof_failed" if late else refused_as
        self._refuse(event, cause, session.session_id, session, client)
        return False

    def _device_of(self, session: StoredSession) -> BoundKey | None:
        """The device that has to prove itself: where somebody acts as the user, theirs."""
        actor = None
        if session.actor_session_id is not None:
            actor = self._sessions.get(session.actor_session_id)
        return session.device or (actor.device if actor is not None else None)

    def _holds(self, session: StoredSession, token: str | None) -> bool:
        """Whether a proof of the device's is behind a token."""
        device = self._device_of(session)
        _, proof = _parts(token)
        if device is None or proof is None:
            return False
        until = _stamp_time(_PROOF, device.binding_id, proof)
        return until is not None and _now() < until

    def _refuse(
        self,
        event: str,
        cause: str,
        session_id: uuid.UUID,
        session: StoredSession | None,
        client: Client,
    ) -> None:
        key = (event, cause, session_id if session else None)
        now = _now()
        last, suppressed = self._refusals.get(key, (None, 0))
        if last is not None and now - last < REFUSED_INTERVAL:
            self._refusals[key] = (last, suppressed + 1)
            return
        self._record(event, session, client, session_id, cause=cause, suppressed=suppressed)
        self._refusals[key] = (now, 0)

    def _admits(self, session: StoredSession, client: Client, may_move: bool) -> tuple[bool, bool]:
        """Whether client_binding lets a client use a session, and whether it has moved."""
        binding = _setting("client_binding")
        if binding == "off" or session.ip is None:
            return True, False
        if client.ip is not None and _network(client.ip) == _network(session.ip):
            return True, False
        if binding == "strict":
            self._refuse("client_changed", "refused", session.session_id, session, client)
            return False, False
        if client.ip is None or not may_move:
            return True, False
        self._record("client_changed", session, client, cause="moved")
        return True, True

    def _end(
        self, session: StoredSession, reason: str, event: str = "invalidated", **detail: Any
    ) -> None:
        self._record(event, session, reason=reason, **detail)
        self._store(replace(session, revoked_at=_now(), revoked_reason=reason))

    def _end_all(self, sessions: Iterable[StoredSession], reason: str) -> int:
        ended = list(sessions)
        for session in ended:
            self._end(session, reason)
        return len(ended)

    def _make(self, session: StoredSession, **detail: Any) -> str:
        token = _new_token(session.session_id)
        self._store(replace(session, digest=_digest(token)))
        self._record("created", session, Client(session.ip, session.user_agent), **detail)
        return token

    def _rotated(
        self, session: StoredSession, now: datetime, **changes: Any
    ) -> tuple[StoredSession, str]:
        """A session with a new token in the place of its current one."""
        token = _new_token(session.session_id)
        changes = {
            "previous_digest": session.digest,
            "previous_valid_until": now + _duration("rotation_grace"),
            **changes,
        }
        rotated = replace(
            session, digest=_digest(token), rotated_at=now, successor_used=False, **changes
        )
        return rotated, token

    # The life of one session

    def session_create(
        self,
        user_id: str | None,
        data: str | None = None,
        ttl: timedelta | None = None,
        ip: str | None = None,
        user_agent: str | None = None,
        tenant_id: str | None = None,
        auth: str | None = None,
        max_lifetime: timedelta | None = None,
        idle_timeout: timedelta | None = None,
        actor_token: str | None = None,
    ) -> list[Row]:
        user_id = _user_id(user_id)
        longest = _lifetime(max_lifetime, "max_lifetime") or _duration("max_lifetime")
        idle = _lifetime(
            idle_timeout,
            "idle_timeout",
            longest=_duration("idle_timeout") or _duration("max_lifetime"),
        )
        wanted = _lifetime(ttl, "ttl") or min(_duration("ttl"), longest)
        content = _object(data, "session data") or {}
        proof = _object(auth, "auth")
        client = Client(_address(ip), _cut(user_agent))
        tenant_id = _name(tenant_id, "tenant_id")
        now = _now()
        end = now + longest
        actor = None if actor_token is None else self._actor(actor_token, user_id, client)
        if actor is None:
            self._make_room(user_id)
        else:
            end = min(end, actor.absolute_expires_at)
        new_device = actor is None and self._is_new_device(user_id, client)
        session = StoredSession(
            session_id=_new_id(now, user_id),
            user_id=user_id,
            tenant_id=tenant_id,
            data=content,
            auth=proof,
            version=1,
            ttl=wanted,
            created_at=now,
            authenticated_at=now,
            last_seen_at=now,
            expires_at=min(now + wanted, end),
            absolute_expires_at=end,
            ip=client.ip,
            user_agent=client.user_agent,
            idle_timeout=idle,
            actor_session_id=actor.session_id if actor else None,
            actor_id=actor.user_id if actor else None,
            digest="",
        )
        token = self._make(session)
        if new_device:
            network = str(_network(client.ip)) if client.ip else None
            self._record("new_device", session, client, network=network)
        if actor is not None:
            self._record("impersonated", actor, client, session_id=str(session.session_id))
        return [
            {
                "session_id": session.session_id,
                "session_token": token,
                "created_at": session.created_at,
                "expires_at": session.expires_at,
                "absolute_expires_at": session.absolute_expires_at,
                "new_device": new_device,
            }
        ]

    def _actor(self, token: str, user_id: str, client: Client) -> StoredSession:
        found = self._find_live(token, client=client)
        if found is None or not self._admits(found[0], client, False)[0]:
            raise InvalidArgument("the session of the actor is not live")
        if found[0].actor_id is not None:
            raise InvalidArgument("the session of the actor is itself one with an actor")
        if found[0].user_id == user_id:
            raise InvalidArgument("the actor must not be the user")
        return found[0]

    def _is_new_device(self, user_id: str, client: Client) -> bool:
        """Whether the user has been seen, but neither in this network nor with such a device."""
        seen = [
            Client(s.ip, s.user_agent)
            for s in self._sessions.values()
            if s.user_id == user_id and s.actor_id is None
        ] + [
            Client(event["ip"], event["user_agent"])
            for event in self._events
            if event["user_id"] == user_id
            and event["event"] in ("created", "refreshed", "rotated")
            and '"actor"' not in (event["detail"] or "")
        ]
        return (
            _setting("new_device_events")
            and client.ip is not None
            and bool(seen)
            and all(
                (known.ip is None or _network(known.ip) != _network(client.ip))
                and _kind(known.user_agent) != _kind(client.user_agent)
                for known in seen
            )
        )

    def _make_room(self, user_id: str) -> None:
        limit = _setting("max_sessions_per_user")
        if not limit:
            return
        live = sorted(
            (s for s in self._live() if s.user_id == user_id and s.actor_id is None),
            key=lambda s: s.created_at,
        )
        if len(live) < limit:
            return
        if _setting("on_limit") == "deny":
            raise LimitReached("the user has reached the limit of sessions")
        for session in live[: len(live) - limit + 1]:
            self._end(session, "evicted", "evicted")

    def session_get_json(
        self,
        token: str | None,
        ip: str | None = None,
        user_agent: str | None = None,
        touch: bool | None = True,
    ) -> str | None:
        client = Client(_address(ip), _cut(user_agent))
        found = self._find_live(token, client=client)
        if found is None:
            return None
        session, current = found
        admitted, moved = self._admits(session, client, bool(touch))
        if not admitted:
            return None
        now = _now()
        first = current and not session.successor_used
        if touch and (moved or first or now - session.last_seen_at >= _touch_interval(session)):
            session = _used(session, current, now, client)
            self._store(session)
        return json.dumps(
            {
                "session_id": str(session.session_id),
                "user_id": session.user_id,
                "tenant_id": session.tenant_id,
                "data": session.data,
                "version": session.version,
                "auth": session.auth,
                **{name: microseconds(getattr(session, name)) for name in SESSION_TIMES},
                "cacheable": False,
                "cache_installation": None,
                "actor_id": session.actor_id,
                "device_proved_at": session.device and microseconds(session.device.proved_at),
                "device_proved": self._holds(session, token),
                "read_at": microseconds(now),
                "touch_due": False,
            }
        )

    def session_update(
        self,
        token: str | None,
        patch: str | None,
        expected_version: int | None = None,
        replace: bool | None = False,
    ) -> list[Row]:
        change = _object(patch, "patch")
        if change is None:
            raise InvalidArgument("patch must not be null")
        found = self._find_live(token)
        if found is None:
            return []
        session, current = found
        if expected_version is not None and expected_version != session.version:
            raise VersionConflict("session data was changed concurrently")
        data = change if replace else _merged(session.data, change)
        if _size(data) > _size(session.data):
            _check_size(data, "session data")
        session = self._patched(session, data, current)
        return [{"version": session.version, "data": json.dumps(session.data)}]

    def _patched(self, session: StoredSession, data: JSON, current: bool) -> StoredSession:
        now = _now()
        if _same(data, session.data):
            if current and not session.successor_used:
                session = _used(session, current, now)
                self._store(session)
            return session
        session = replace(_used(session, current, now), data=data, version=session.version + 1)
        self._store(session)
        self._record("updated", session, version=session.version)
        return session

    def session_refresh(
        self,
        token: str | None,
        rotate: bool | None = False,
        ttl: timedelta | None = None,
        ip: str | None = None,
        user_agent: str | None = None,
    ) -> list[Row]:
        wanted = _lifetime(ttl, "ttl", cut=True)
        client = Client(_address(ip), _cut(user_agent))
        return [self._refresh(token, bool(rotate), wanted, client).row()]

    def _refresh(
        self, token: str | None, rotate: bool, ttl: timedelta | None, client: Client
    ) -> Renewal:
        found = self._find(token, client=client)
        now = _now()
        if found is None or self._life(found[0], now) != "active":
            return Renewal("ended")
        session, current = found
        if not self._admits(session, client, True)[0]:
            return Renewal("ended")
        if not self._proved(session, token, "rejected", client):
            return _PROOF_REQUIRED
        if not current:
            refused = self._refuse_previous(session, client, now)
            if refused is not None:
                return refused
        # Only a caller that gives a ttl may shorten the session's life.
        expires_at = now + ttl if ttl else max(now + session.ttl, session.expires_at)
        session = replace(
            _used(session, current, now, client),
            expires_at=min(expires_at, session.absolute_expires_at),
        )
        renewal = Renewal("extended", session)
        if not current:
            # The answer with the successor was lost, which is forgotten.
            session, new = self._rotated(session, now, previous_digest=session.previous_digest)
            renewal = Renewal("rotated", session, new)
        elif rotate:
            session, new = self._rotated(session, now)
            renewal = Renewal("rotated", session, new)
        self._store(session)
        self._record("rotated" if renewal.token else "refreshed", session, client)
        return renewal

    def _refuse_previous(
        self, session: StoredSession, client: Client, now: datetime
    ) -> Renewal | None:
        """What a refresh by the previous token comes to, or None: its answer was lost."""
        elevated = session.previous_valid_until is None
        crossed = session.rotated_at is not None and now < session.rotated_at + _duration(
            "rotation_grace"
        )
        if _in_grace(session, now):
            return Renewal("already_rotated", session)
        if session.successor_used and not (elevated and crossed):
            self._record("token_reused", session, client)
            self._end(session, "token_reused")
            return Renewal("reused", replace(session), live=False)
        if elevated:
            self._refuse("rejected", "superseded", session.session_id, session, client)
            return Renewal("ended")
        return None

    def session_elevate(
        self, token: str | None, auth: str | None, data: str | None = None
    ) -> list[Row]:
        proof = _object(auth, "auth")
        content = _object(data, "session data")
        if proof is None:
            raise InvalidArgument("auth must not be null")
        found = self._find_unproved(token)
        if found is None:
            return [Renewal("ended").row()]
        session, current = found
        if not self._proved(session, token, "rejected"):
            return [_PROOF_REQUIRED.row()]
        if not current:
            return [Renewal("already_rotated", session).row()]
        now = _now()
        # Members of client packages stay.
        kept = {key: value for key, value in (session.auth or {}).items() if key[:1] == "_"}
        proof = {**kept, **proof}
        if content is not None:
            session = replace(session, data=content, version=session.version + 1)
        session, new = self._rotated(
            replace(session, auth=proof, authenticated_at=now, last_seen_at=now),
            now,
            previous_valid_until=None,
        )
        self._store(session)
        self._record("elevated", session)
        return [Renewal("rotated", session, new).row()]

    def session_switch_tenant(
        self, token: str | None, tenant_id: str | None, data: str | None = None
    ) -> list[Row]:
        tenant_id = _name(tenant_id, "tenant_id")
        content = _object(data, "session data")
        found = self._find_unproved(token)
        if found is None:
            return [Renewal("ended").row()]
        old, current = found
        if not self._proved(old, token, "rejected"):
            return [_PROOF_REQUIRED.row()]
        if not current:
            return [Renewal("already_rotated", old).row()]
        now = _now()
        session = replace(
            old,
            session_id=_new_id(now, old.user_id),
            tenant_id=tenant_id,
            data=content or {},
            version=1,
            created_at=now,
            last_seen_at=now,
            expires_at=min(max(now + old.ttl, old.expires_at), old.absolute_expires_at),
            previous_digest=None,
            previous_valid_until=None,
            rotated_at=None,
            successor_used=True,
        )
        self._end(old, "tenant_switched", successor=str(session.session_id))
        new = self._make(session, predecessor=str(old.session_id))
        if session.actor_session_id is not None:
            actor = self._sessions[session.actor_session_id]
            self._record("impersonated", actor, session_id=str(session.session_id))
        return [Renewal("rotated", session, new).row()]

    def session_invalidate(self, token: str | None, reason: str | None = "logout") -> str | None:
        reason = _reason(reason)
        found = self._find(token)
        if found is None or self._life(found[0], _now()) != "active":
            return None
        self._end(found[0], reason)
        return found[0].user_id

    def session_end_reason(self, token: str | None) -> str | None:
        found = self._find(token)
        if found is None:
            return None
        life = self._life(found[0], _now())
        return {"active": None, "revoked": found[0].revoked_reason}.get(life, life)

    # The device that a session is bound to

    def session_device_challenge(self, token: str | None) -> str | None:
        found = self._find_unproved(token)
        if found is None:
            return None
        return _stamp(*_challenged(found[0]), _now(), "sc1_")

    def _answered(self, session: StoredSession, challenge: str) -> datetime | None:
        """When a challenge that the device may answer now was issued."""
        issued = _stamp_time(*_challenged(session), challenge, "sc1_")
        if issued is None or _now() >= issued + 2 * _duration("device_proof_lifetime"):
            return None
        if session.device is not None and issued <= session.device.proved_at:
            return None
        return issued

    def session_bind_device(
        self,
        token: str | None,
        key: str | None,
        challenge: str | None,
        ip: str | None = None,
        user_agent: str | None = None,
    ) -> list[Row]:
        public = _public_key(_object(key, "key"))
        client = Client(_address(ip), _cut(user_agent))
        if challenge is None:
            raise InvalidArgument("challenge must not be null")
        names = ("session_id", "user_id", "session_token", "binding_id", "thumbprint", "proof")
        row: Row = dict.fromkeys((*names, "proof_expires_at"))
        found = self._find_unproved(token)
        if found is None:
            return [{**row, "status": "ended"}]
        session, current = found
        if session.device is not None:
            return [{**row, "status": "already_bound"}]
        if not current:
            return [{**row, "status": "already_rotated"}]
        issued = self._answered(session, challenge)
        if issued is None:
            return [{**row, "status": "bad_challenge"}]
        now = _now()
        device = BoundKey(uuid.uuid4(), public, now, issued)
        session, new = self._rotated(
            replace(session, device=device, last_seen_at=now, successor_used=True), now
        )
        self._store(session)
        thumbprint = _thumbprint(public)
        self._record("device_bound", session, client, thumbprint=thumbprint)
        return [
            {
                "status": "bound",
                "session_id": session.session_id,
                "user_id": session.user_id,
                "session_token": new,
                "binding_id": device.binding_id,
                "thumbprint": thumbprint,
                **_proof_of(device, now),
            }
        ]

    def session_prove_device(self, token: str | None, challenge: str | None) -> list[Row]:
        if challenge is None:
            raise InvalidArgument("challenge must not be null")
        row: Row = {"status": "ended", "proof": None, "proof_expires_at": None}
        found = self._find_unproved(token)
        if found is None:
            return [row]
        session, now = found[0], _now()
        if session.device is None:
            return [{**row, "status": "not_bound"}]
        issued = self._answered(session, challenge)
        if issued is None:
            return [{**row, "status": "bad_challenge"}]
        self._store(replace(session, device=replace(session.device, proved_at=issued)))
        return [{"status": "proved", **_proof_of(session.device, now)}]

    def session_device(self, token: str | None) -> list[Row]:
        found = self._find_unproved(token)
        if found is None or found[0].device is None:
            return []
        session, device = found[0], found[0].device
        return [
            {
                **vars(device),
                "session_id": session.session_id,
                "user_id": session.user_id,
                "thumbprint": _thumbprint(device.key),
            }
        ]

    def session_device_report(
        self,
        token: str | None,
        skipped: bool | None,
        cause: str | None,
        ip: str | None = None,
        user_agent: str | None = None,
    ) -> bool:
        cause = _name(cause, "cause", LONGEST_CAUSE)
        client = Client(_address(ip), _cut(user_agent))
        found = self._find_unproved(token)
        if found is None or found[0].device is None:
            return False
        event = "device_proof_skipped" if skipped else "device_proof_failed"
        self._record(event, found[0], client, cause=cause)
        return True

    # Sessions of a user

    def session_get_id(self, session_id: str, user_id: str | None) -> list[Row]:
        session = self._find_live_id(session_id, user_id)
        if session is None:
            return []
        return [{**vars(session), "ends_at": self._ends_at(session)}]

    def _find_live_id(self, session_id: str, user_id: str | None) -> StoredSession | None:
        user_id = _user_id(user_id)
        session = self._sessions.get(_uuid(session_id))
        if session is None or session.user_id != user_id:
            return None
        return session if self._life(session, _now()) == "active" else None

    def session_invalidate_id(
        self, session_id: str, user_id: str | None = None, reason: str | None = "admin"
    ) -> str | None:
        reason = _reason(reason)
        session = self._sessions.get(_uuid(session_id))
        if session is None or (user_id is not None and user_id != session.user_id):
            return None
        if self._life(session, _now()) != "active":
            return None
        self._end(session, reason)
        return session.user_id

    def session_invalidate_all(
        self,
        user_id: str | None,
        except_token: str | None = None,
        tenant_id: str | None = None,
        reason: str | None = "logout_all",
    ) -> int:
        user_id, reason = _user_id(user_id), _reason(reason)
        tenant_id = _name(tenant_id, "tenant_id")
        spared = self._find_live(except_token)
        return self._end_all(
            (
                session
                for session in self._live()
                if session.user_id == user_id
                and tenant_id in (None, session.tenant_id)
                and not (spared and spared[0].session_id == session.session_id)
            ),
            reason,
        )

    def session_invalidate_tenant(self, tenant_id: str | None, reason: str | None = "admin") -> int:
        reason = _reason(reason)
        if _name(tenant_id, "tenant_id") is None:
            raise InvalidArgument("tenant_id must not be null")
        return self._end_all((s for s in self._live() if s.tenant_id == tenant_id), reason)

    def session_invalidate_everything(self, reason: str | None = "admin") -> int:
        return self._end_all(self._live(), _reason(reason))

    def session_update_user(
        self, user_id: str | None, patch: str | None, tenant_id: str | None = None
    ) -> int:
        user_id = _user_id(user_id)
        change = _object(patch, "patch")
        tenant_id = _name(tenant_id, "tenant_id")
        if change is None:
            raise InvalidArgument("patch must not be null")
        sessions = [
            session
            for session in self._live()
            if session.user_id == user_id and tenant_id in (None, session.tenant_id)
        ]
        for session in sessions:
            data = _merged(session.data, change)
            # A caller without a token does not learn whether there was room.
            if _size(data) > max(_size(session.data), 2 * _setting("max_data_size")):
                data = session.data
            session = replace(session, data=data, version=session.version + 1)
            self._store(session)
            self._record("updated", session, version=session.version)
        return len(sessions)

    def session_list(
        self,
        user_id: str | None,
        current_token: str | None = None,
        include_ended: bool | None = False,
        after: str | None = None,
        max_rows: int | None = 100,
    ) -> list[Row]:
        user_id = _user_id(user_id)
        last = None if after is None else _uuid(after)
        most = _max_rows(max_rows)
        now = _now()
        current = self._find_live(current_token)
        sessions = [
            session
            for session in self._sessions.values()
            if session.user_id == user_id
            and (last is None or session.session_id < last)
            and (include_ended or self._life(session, now) == "active")
        ]
        sessions.sort(key=lambda session: session.session_id, reverse=True)
        is_current = current and current[0].session_id
        return [self._listed(session, is_current, now) for session in sessions[:most]]

    def _listed(self, session: StoredSession, current: uuid.UUID | None, now: datetime) -> Row:
        life = self._life(session, now)
        ended_at, reason = {
            "active": (None, None),
            "revoked": (session.revoked_at, session.revoked_reason),
            "expired": (session.expires_at, "expired"),
            "idle": (self._deadline(session), "idle"),
            "actor_ended": (None, "actor_ended"),
        }[life]
        return {
            "session_id": session.session_id,
            "tenant_id": session.tenant_id,
            "is_current": session.session_id == current,
            "created_at": session.created_at,
            "last_seen_at": session.last_seen_at,
            "expires_at": session.expires_at,
            "absolute_expires_at": session.absolute_expires_at,
            "ip": session.ip,
            "user_agent": session.user_agent,
            "auth": None if session.auth is None else json.dumps(session.auth),
            "ended_at": ended_at,
            "ended_reason": reason,
            "actor_id": session.actor_id,
            "idle_timeout": _idle_timeout(session),
            "device_thumbprint": session.device and _thumbprint(session.device.key),
            "device_bound_at": session.device and session.device.bound_at,
            "device_proved_at": session.device and session.device.proved_at,
        }

    def session_history(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        since: datetime | None = None,
        max_rows: int | None = 100,
    ) -> list[Row]:
        wanted = None if session_id is None else _uuid(session_id)
        found = [
            event
            for event in self._events
            if (wanted is None or event["session_id"] == wanted)
            and (user_id is None or event["user_id"] == user_id)
            and (since is None or event["at"] >= since)
        ]
        found.sort(key=lambda event: (event["at"], event["event_id"]), reverse=True)
        return found[: _max_rows(max_rows)]

    def session_critical_events(
        self, max_rows: int | None = 20, tenant_id: str | None = None
    ) -> list[Row]:
        tenant_id = _name(tenant_id, "tenant_id")
        found = [
            event
            for event in self._events
            if self.session_event_severity(event["event"]) == "critical"
            and tenant_id in (None, event["tenant_id"])
        ]
        found.sort(key=lambda event: (event["at"], event["event_id"]), reverse=True)
        return found[: _max_rows(max_rows)]

    def session_activity(
        self, since: datetime | None = None, tenant_id: str | None = None
    ) -> list[Row]:
        tenant_id = _name(tenant_id, "tenant_id")
        now = _now()
        first = _hour(now - timedelta(days=1) if since is None else since)
        counted: Counter[tuple[datetime, str, str]] = Counter()
        for event in self._events:
            if event["at"] < first or tenant_id not in (None, event["tenant_id"]):
                continue
            detail = json.loads(event["detail"] or "{}")
            reason = detail.get("reason") or detail.get("cause") or ""
            hour = _hour(event["at"])
            counted[hour, event["event"], reason] += 1 + detail.get("suppressed", 0)
        return [
            {
                "hour": hour,
                "until": min(hour + timedelta(hours=1), now),
                "event": event,
                "reason": reason or None,
                "events": number,
            }
            for (hour, event, reason), number in sorted(counted.items())
        ]

    def session_active_count(self, tenant_id: str | None = None, user_id: str | None = None) -> int:
        tenant_id, user_id = _name(tenant_id, "tenant_id"), _name(user_id, "user_id")
        return sum(
            tenant_id in (None, session.tenant_id) and user_id in (None, session.user_id)
            for session in self._live()
        )

    def session_active_estimate(self) -> int:
        return self.session_active_count()

    def session_cleanup(
        self, batch: int | None = None, max_batches: int | None = None
    ) -> list[Row]:
        now = _now()
        ended = [s for s in self._sessions.values() if self._life(s, now) != "active"]
        for session in ended:
            if session.revoked_at is None:
                self._record(self._life(session, now), session)
            self._forget(session)
        others = (
            "sessions_requeued",
            "events_dropped",
            "partitions_created",
            "partitions_dropped",
            "events_moved",
        )
        return [{"sessions_deleted": len(ended), **dict.fromkeys(others, 0)}]

    def session_erase(self, user_id: str | None) -> int:
        user_id = _user_id(user_id)
        erased = [s for s in self._sessions.values() if user_id in (s.user_id, s.actor_id)]
        events = [event for event in self._events if event["user_id"] == user_id]
        for session in erased:
            self._forget(session)
        for event in events:
            self._anonymize(event)
        if erased or events:
            self._record("erased", None, sessions=len(erased), events=len(events))
        return len(erased)

    def _forget(self, session: StoredSession) -> None:
        del self._sessions[session.session_id]

        def undo() -> None:
            self._sessions[session.session_id] = session

        self._undoable(undo)

    def _anonymize(self, event: Row) -> None:
        before = dict(event)
        event.update(user_id=None, tenant_id=None, ip=None, user_agent=None)
        self._undoable(lambda: event.update(before))

    # Identity

    def session_bind(self, token: str | None) -> bool:
        audience, _, asserted = (token or "").partition(".")
        if asserted and not audience.startswith("sd1_"):
            session_id, _, user_id = asserted.partition(".")
            wanted = audience == _AUDIENCE
            return self._bind(self._find_live_id(session_id, user_id) if wanted else None)
        found = self._find_live(token, "bind_failed")
        return self._bind(found and found[0])

    def session_assertion(self, token: str | None, audience: str) -> str | None:
        _name(audience, "audience")
        found = self._find_live(token, "rejected")
        return None if found is None else self._assertion(found[0], audience)

    def session_assertion_id(
        self, session_id: str, user_id: str | None, audience: str
    ) -> str | None:
        _name(audience, "audience")
        session = self._find_live_id(session_id, user_id)
        return None if session is None else self._assertion(session, audience)

    @staticmethod
    def _assertion(session: StoredSession, audience: str) -> str:
        return f"{audience}.{session.session_id}.{session.user_id}"

    def session_audience(self) -> str:
        return _AUDIENCE

    def session_bind_id(self, session_id: str, user_id: str | None) -> bool:
        return self._bind(self._find_live_id(session_id, user_id))

    def _bind(self, session: StoredSession | None) -> bool:
        connection = connections[database_alias()]
        before = self._bound.get(connection)

        def undo() -> None:
            self._bound[connection] = before

        # Outside of a transaction it would end with the statement.
        if self._undoable(undo):
            self._bound[connection] = session
        return session is not None

    def session_user_id(self) -> str | None:
        bound = self._bound.get(connections[database_alias()])
        return None if bound is None else bound.user_id

    def session_tenant_id(self) -> str | None:
        bound = self._bound.get(connections[database_alias()])
        return None if bound is None else bound.tenant_id

    def session_actor_id(self) -> str | None:
        bound = self._bound.get(connections[database_alias()])
        return None if bound is None else bound.actor_id

    def session_id(self) -> uuid.UUID | None:
        bound = self._bound.get(connections[database_alias()])
        return None if bound is None else bound.session_id

    # Of SQL

    def session_event_severity(self, event: str) -> str:
        return SEVERITIES.get(event, "info")

    def host(self, address: str | None) -> str | None:
        return address

    def coalesce(self, *values: Any) -> Any:
        return next((value for value in values if value is not None), None)

    def least(self, *values: Any) -> Any:
        return min(value for value in values if value is not None)

    def current_setting(self, name: str) -> Any:
        return _duration(name.removeprefix("session_manager."))

    def session_bucket(self, user_id: str) -> int:
        return _bucket(user_id)

    def clock_timestamp(self) -> datetime:
        return _now()


def _setting(name: str) -> Any:
    given = settings.IN_MEMORY or {}
    unknown = set(given) - set(DEFAULTS)
    if unknown:
        raise ImproperlyConfigured(
            f'SESSION_MANAGER["IN_MEMORY"] has unknown keys: {", ".join(sorted(unknown))}.'
        )
    return given.get(name, DEFAULTS[name])


def _duration(name: str) -> timedelta:
    value = _setting(name)
    return value if isinstance(value, timedelta) else timedelta(seconds=value)


def _idle_timeout(session: StoredSession) -> timedelta | None:
    """The shorter one of the session's own and of the setting."""
    timeouts = [_duration("idle_timeout") or None, session.idle_timeout]
    return min((timeout for timeout in timeouts if timeout is not None), default=None)


def _touch_interval(session: StoredSession) -> timedelta:
    idle = _idle_timeout(session)
    return min(_duration("touch_interval"), idle / 2) if idle else _duration("touch_interval")


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _in_grace(session: StoredSession, now: datetime) -> bool:
    return (
        session.previous_valid_until is not None
        and session.rotated_at is not None
        and now < session.previous_valid_until
        and now < session.rotated_at + _duration("rotation_grace")
    )


def _previous_works(session: StoredSession) -> bool:
    if session.previous_valid_until is None:
        return False
    return not session.successor_used or _in_grace(session, _now())


def _used(
    session: StoredSession, current: bool, now: datetime, client: Client = Client()
) -> StoredSession:
    """A session after a use by its holder."""
    return replace(
        session,
        last_seen_at=now,
        successor_used=session.successor_used or current,
        ip=client.ip or session.ip,
        user_agent=client.user_agent or session.user_agent,
    )


def _new_id(now: datetime, user_id: str) -> uuid.UUID:
    """A UUID of version 7: ids sort by the time of login."""
    milliseconds, rest = divmod(microseconds(now), 1000)
    return uuid.UUID(
        int=milliseconds << 80
        | 0x7 << 76
        | (rest * 4096 // 1000) << 64
        | 0b10 << 62
        | secrets.randbits(46) << 16
        | _bucket(user_id)
    )


def _bucket(user_id: str) -> int:
    """The same for all sessions of a user, though not the extension's."""
    return zlib.crc32(user_id.encode()) & 0xFFFF


def _new_token(session_id: uuid.UUID) -> str:
    return "sm1_" + urlsafe_b64encode(session_id.bytes + secrets.token_bytes(32)).decode()


def _digest(token: str) -> str:
    digest = digest_form(token)
    assert digest is not None
    return digest


def _session_id_of(form: str) -> uuid.UUID:
    """The id in a digest form."""
    return uuid.UUID(bytes=urlsafe_b64decode(form[4:])[:16])


def _parts(token: str | None) -> tuple[str | None, str | None]:
    """The digest form of a token, or of a digest form, and the proof behind it, if any."""
    form, _, proof = (digest_form(token) or token or "").partition(".")
    return form or None, proof or None


#: What a stamp is about: a proof, a challenge to a device that is bound, or to one that is to be.
_PROOF, _CHALLENGE, _REGISTRATION = b"P", b"C", b"R"
_STAMP_KEY = secrets.token_bytes(32)


def _challenged(session: StoredSession) -> tuple[bytes, uuid.UUID]:
    if session.device is None:
        return _REGISTRATION, session.session_id
    return _CHALLENGE, session.device.binding_id


def _proof_of(device: BoundKey, now: datetime) -> Row:
    until = now + _duration("device_proof_lifetime")
    return {
        "proof": _stamp(_PROOF, device.binding_id, until, "sp1_"),
        "proof_expires_at": until,
    }


def _stamp(kind: bytes, subject: uuid.UUID, at: datetime, prefix: str) -> str:
    """A time under a MAC, as the extension's proofs and challenges look."""
    stamp = b"\0\0\0\1" + microseconds(at).to_bytes(7, "big")
    mac = hmac.digest(_STAMP_KEY, kind + subject.bytes + stamp, "sha256")[:16]
    return prefix + urlsafe_b64encode(stamp + mac).decode()


def _stamp_time(
    kind: bytes, subject: uuid.UUID, text: str, prefix: str = "sp1_"
) -> datetime | None:
    """The time of a stamp about a subject; None if it is none."""
    if not re.fullmatch(rf"{prefix}[A-Za-z0-9_-]{{36}}", text):
        return None
    raw = urlsafe_b64decode(text[4:])
    mac = hmac.digest(_STAMP_KEY, kind + subject.bytes + raw[:11], "sha256")[:16]
    if not hmac.compare_digest(mac, raw[11:]):
        return None
    return from_microseconds(int.from_bytes(raw[4:11], "big"))


#: The members of a public key that its thumbprint covers (RFC 7638), with their lengths in bytes.
_KEYS: Mapping[Any, Mapping[str, Sequence[int]]] = {
    "EC": {"crv": (), "x": (32,), "y": (32,)},
    "RSA": {"e": range(1, 9), "n": range(256, 513)},
}


def _public_key(given: JSON | None) -> JSON:
    """The members of a key that make it one."""
    if given is None:
        raise InvalidArgument("key must not be null")
    names = _KEYS.get(given.get("kty"))
    if names is None or "d" in given or given.get("crv", "P-256") != "P-256":
        raise InvalidArgument("key is not one of a device")
    for name, sizes in names.items():
        value = given.get(name)
        if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", value):
            raise InvalidArgument("key is not one of a device")
        if sizes and len(urlsafe_b64decode(value + "==")) not in sizes:
            raise InvalidArgument("key is not one of a device")
    return {name: given[name] for name in sorted(("kty", *names))}


def _thumbprint(key: JSON) -> str:
    text = json.dumps(key, separators=(",", ":"), sort_keys=True)
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def _network(ip: str) -> Any:
    address = ipaddress.ip_address(ip)
    return ipaddress.ip_network((ip, _NETWORKS[address.version]), strict=False)


def _kind(user_agent: str | None) -> str:
    """What a user agent names, without versions: roughly what the extension goes by."""
    return re.sub(r"[\d._]+", "", user_agent or "")


# Arguments, refused as the extension refuses them


def _address(ip: str | None) -> str | None:
    if ip is None:
        return None
    try:
        address = ipaddress.ip_interface(ip).ip
    except ValueError:
        raise InvalidArgument("invalid input syntax for type inet") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address)


def _uuid(value: str) -> uuid.UUID:
    try:
        return uuid.UUID(str(value))
    except ValueError:
        raise InvalidArgument("invalid input syntax for type uuid") from None


def _hour(at: datetime) -> datetime:
    """When its hour began, in UTC."""
    return at.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0)


def _name(value: str | None, name: str, longest: int = LONGEST_NAME) -> str | None:
    if value is None:
        return None
    if not value:
        raise InvalidArgument(f"{name} must not be empty")
    if len(value.encode()) > longest:
        raise InvalidArgument(f"{name} must not be longer than {longest} bytes")
    return value


def _user_id(value: str | None) -> str:
    user_id = _name(value, "user_id")
    if user_id is None:
        raise InvalidArgument("user_id must not be null")
    return user_id


def _reason(value: str | None) -> str:
    reason = _name(value, "reason", LONGEST_REASON)
    if reason is None:
        raise InvalidArgument("reason must not be null")
    return reason


def _cut(user_agent: str | None) -> str | None:
    if user_agent is None:
        return None
    return user_agent.encode()[:LONGEST_USER_AGENT].decode(errors="ignore")


def _max_rows(value: int | None) -> int:
    if value is None or not 1 <= value <= MOST_ROWS:
        raise InvalidArgument(f"max_rows must be between 1 and {MOST_ROWS}")
    return value


def _lifetime(
    value: timedelta | None, name: str, *, longest: timedelta | None = None, cut: bool = False
) -> timedelta | None:
    if value is None:
        return None
    longest = longest or _duration("max_lifetime")
    if value <= timedelta(0):
        raise InvalidArgument(f"{name} must be greater than zero")
    if value > longest and not cut:
        raise InvalidArgument(f"{name} must not be longer than {longest}")
    return min(value, longest)


def _object(text: str | None, name: str) -> JSON | None:
    if text is None:
        return None
    value = json.loads(text)
    if not isinstance(value, dict):
        raise InvalidArgument(f"{name} must be a JSON object")
    _refuse_text(value)
    _check_size(value, name)
    return value


def _refuse_text(value: Any) -> None:
    """As jsonb refuses what PostgreSQL's text cannot hold."""
    if isinstance(value, dict):
        for key, member in value.items():
            _refuse_text(key)
            _refuse_text(member)
    elif isinstance(value, list):
        for member in value:
            _refuse_text(member)
    elif isinstance(value, str):
        if "\0" in value:
            raise InvalidArgument("unsupported Unicode escape sequence")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidArgument("invalid input syntax for type json") from None


def _size(value: JSON) -> int:
    """As JSON, which is close to what jsonb takes."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _check_size(value: JSON, name: str) -> None:
    if _size(value) > _setting("max_data_size"):
        raise TooLarge(f"{name} is too large")


def _merged(target: Any, patch: JSON) -> JSON:
    """JSON Merge Patch, RFC 7396."""
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _merged(result.get(key), value)
        else:
            result[key] = value
    return result


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; 1 is not true, as it is in Python."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


#: The sessions of this process.
memory = InMemory()
