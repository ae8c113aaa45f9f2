"""SESSION_ENGINE = "session_manager.backends.sessions": request.session over the extension.

``session_key`` is the session's token.  A session of somebody who has not signed in belongs to a
guest, a user id of its own; with Django's login it is followed by a session of the user, with a new
token, and ends.

A save writes what has changed since the load, key by key, as a merge patch: of two requests that
change different keys both win.  What cycle_key asks for is done by the save, in one transaction, so
that a login that fails leaves the older session alone; flush and delete end a session at once.

Used outside of a request the store has no address and no cookie; RequestSessionMiddleware gives it
the request.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.core.exceptions import ImproperlyConfigured
from django.middleware.csrf import CSRF_SESSION_KEY

from ..administration import cleanup
from ..conf import MEMBER, settings
from ..services import session_service
from ..store.database import translating_errors
from ..store.request_data import (
    Entries,
    decode_entries,
    decode_entry,
    encode_entry,
    entry_name,
)
from ..store.shards import Bucket, bucket_of_token, bucket_of_user
from ..store.tokens import is_token, session_id_of
from ..store.transactions import Outcome, settled, together
from ..store.users import (
    is_current,
    is_guest,
    load_user,
    login_of,
    mark_of_login,
    new_guest_id,
    user_id_of_login,
    with_mark,
)
from ..types import JSON, CreatedSession, DevicePolicy, RefreshedSession, Session, with_policy

__all__ = ["SessionStore", "is_guest"]

logger = logging.getLogger("session_manager")

EXPIRY = "_session_expiry"
#: What of a session's age may pass before a save extends it.
SLACK = 1 / 100
MOMENT = timedelta(microseconds=1)
# What goes along where a session goes on in another tenant: the login, and the CSRF token.
LASTING = ("_auth_user_id", "_auth_user_backend", "_auth_user_hash", "_csrftoken")

Client = tuple[str | None, str | None]
Issued = CreatedSession | RefreshedSession


class Holder(Protocol):
    """The request that a store is for."""

    @property
    def client(self) -> Client:
        """Address and user agent."""
        ...

    @property
    def user(self) -> Any:
        """The user, if Django's login has just set it."""
        ...

    def find(self, token: str) -> tuple[str, Session | None]:
        """The session of a token, whoever its user is, and the token it has by now."""
        ...

    def proved(self, token: str) -> str:
        """A token with the proof of the browser's device, if there is one."""
        ...

    def device_policy(self, user_id: str) -> DevicePolicy | None:
        """What is to be kept with a user's new session about binding it to a device."""
        ...

    def expects_token(self) -> None:
        """The request's session, or its new user's, is about to get a new token; may refuse."""
        ...

    def signs_in(self) -> None:
        """A user is about to get a session."""
        ...

    def renewed(self, issued: Issued, session: Session) -> None:
        """The request has a session of a new token."""
        ...

    def ended(self, token: str | None) -> None:
        """The request's session has been ended."""
        ...


class NoRequest:
    """The holder of a store outside of a request."""

    client: Client = (None, None)
    user = None

    def find(self, token: str) -> tuple[str, Session | None]:
        return token, session_service.get(token, fresh=True)

    def proved(self, token: str) -> str:
        return token

    def device_policy(self, user_id: str) -> DevicePolicy | None:
        return None

    def expects_token(self) -> None:
        pass

    def signs_in(self) -> None:
        pass

    def renewed(self, issued: Issued, session: Session) -> None:
        pass

    def ended(self, token: str | None) -> None:
        pass


_NO_REQUEST = NoRequest()


class _Known(NamedTuple):
    """What is known of the row."""

    row: Session | None = None
    #: What it has of the keys in memory, by the names of its members.
    entries: dict[str, str] | None = None
    #: Whom Django's login had signed in.
    login: Any = None
    expiry: Any = None
    #: The token that the next save replaces.
    replaced: str | None = None


_NOTHING = _Known()


@dataclass(frozen=True)
class _Before:
    """What was known before something that a rollback takes back."""

    outcome: Outcome
    token: str | None
    known: _Known
    #: What was in memory; else that is kept, to be saved again.
    data: dict[Any, Any] | None = None
    #: Nothing was: it is to be read again.
    was_unread: bool = False
    #: Whether it was to be saved.
    was_modified: bool = False
    #: Whether what was saved was a login of Django's.
    had_login: bool = False


@cache
def _require_app() -> None:
    if not apps.is_installed("session_manager"):
        raise ImproperlyConfigured(
            'SESSION_ENGINE is session_manager\'s, but "session_manager" is not in INSTALLED_APPS.'
        )


class SessionStore(SessionBase):
    """A session of the extension's as Django's request.session."""

    if TYPE_CHECKING:
        # Django's, of which the stubs do not know.
        _session: dict[Any, Any]

        def _get_session(self, no_load: bool = False) -> dict[Any, Any]: ...

    def __init__(self, session_key: str | None = None) -> None:
        _require_app()
        super().__init__(session_key)
        self._holder: Holder = _NO_REQUEST
        self._known = _NOTHING
        #: What was loaded: the row's texts, by their names, and what each of them says.
        self._loaded: tuple[Entries, list[dict[Any, Any]]] = ({}, [])
        self._before: list[_Before] = []
        self._flushed: list[tuple[str, Outcome]] = []
        #: Whether Django's login has signed somebody in since the last save.
        self._has_login = False
        #: Whether a save has moved the end, or changed the kind of cookie, of the token presented.
        self.cookie_is_due = False

    def hold(self, holder: Holder) -> None:
        """Let it be the session of a request."""
        self._holder = holder

    def __setitem__(self, key: Any, value: Any) -> None:
        self._has_login = self._has_login or key == SESSION_KEY
        super().__setitem__(key, value)

    async def aset(self, key: Any, value: Any) -> None:
        self._has_login = self._has_login or key == SESSION_KEY
        await super().aset(key, value)

    # Reading.

    def load(self) -> dict[Any, Any]:
        key = token = self.session_key
        row = None
        if key is not None:
            token, row = self._holder.find(key)
        if row is None:
            # Not the key of a session that is not live: the next save makes one.
            token = None
        if token != key:
            self._session_key = token
        return self._take(row)

    def _take(self, row: Session | None) -> dict[Any, Any]:
        data: dict[Any, Any] = {}
        texts = row.request_data if row is not None else {}
        found = decode_entries(self.serializer, texts)
        for entry in found:
            data.update(entry)
        self._loaded = texts, found
        if not all(found):
            # What cannot be read stays as it is.
            texts = {
                name: text
                for (name, text), entry in zip(texts.items(), found, strict=True)
                if entry
            }
        self._known = _Known(row, texts, data.get(SESSION_KEY), data.get(EXPIRY))
        return data

    def _names(self) -> dict[Any, str]:
        """Names of members for keys that were loaded."""
        return {key: name for name, entry in zip(*self._loaded, strict=True) for key in entry}

    def exists(self, session_key: str | None) -> bool:
        if session_key is None or session_key == self._known.replaced:
            return False
        return session_service.get(self._proved(session_key), touch=False) is not None

    def _proved(self, token: str | None) -> str | None:
        """A token as the extension wants it: session_key is what the cookie has."""
        return None if token is None else self._holder.proved(token)

    def is_empty(self) -> bool:
        return self._known.replaced is None and super().is_empty()

    # Writing.

    def create(self) -> None:
        """A session with what is in memory."""
        self.undo_what_was_rolled_back()
        self._make(self._owner(self._get_session(no_load=True)))
        self.modified = True

    def save(self, must_create: bool = False) -> None:
        self.undo_what_was_rolled_back()
        if must_create or (self.session_key is None and self._known.replaced is None):
            self.create()
            return
        data = self._get_session()
        if self._known.row is None and self.session_key is not None:
            # After clear(), which does not read what it takes away.
            self.load()
        row = self._known.row
        if row is None:
            raise UpdateError
        owner = self._owner(data)
        if not is_token(self._known.replaced or self.session_key):
            # Another request has taken a Django session over, and only its answer has the token.
            self._known = self._known._replace(replaced=None)
            self._make(owner, row.data if owner == row.user_id else {})
            return
        # By a login of their own a user is no longer the one as whom somebody else acts.
        if owner != row.user_id or (self._has_login and row.actor is not None):
            self._known = self._known._replace(replaced=self._known.replaced or self.session_key)
            self._make(owner)
        elif self._known.replaced is not None or self._is_remarked(data):
            self._elevate()
        else:
            self._update()

    def _entries(self) -> Entries:
        """What is in memory as the row is to have it."""
        serializer, names = self.serializer(), self._names()
        return {
            names.get(key) or entry_name(key): encode_entry(serializer, key, value)
            for key, value in self._session.items()
        }

    def _patch(self, entries: Entries) -> JSON:
        """The merge patch that makes the row's entries these."""
        known = self._known.entries or {}
        changed: JSON = {
            name: text
            for name, text in entries.items()
            if name not in known or not self._same(known[name], text)
        }
        changed.update(dict.fromkeys(known.keys() - entries.keys()))
        return {MEMBER: changed} if changed else {}

    def _same(self, known: str, text: str) -> bool:
        """Whether a text of the row says what another one says.

        A serializer that is not JSON may write a value in two ways, but not once it has been read.
        """
        if known == text:
            return True
        if known.startswith("{"):
            return False
        serializer = self.serializer()
        found = decode_entry(serializer, known)
        if len(found) != 1:
            return False
        ((key, value),) = found.items()
        return encode_entry(serializer, key, value) == text

    def _owner(self, data: dict[Any, Any]) -> str:
        """The user id that the row for the data belongs to."""
        known, login = self._known, data.get(SESSION_KEY)
        if known.row is not None and login == known.login:
            return known.row.user_id
        if login is None:
            return new_guest_id()
        user = self._holder.user
        if user is not None and str(user.pk) != str(login):
            user = None
        return user_id_of_login(login, user) or new_guest_id()

    def _is_remarked(self, data: dict[Any, Any]) -> bool:
        """Whether the password of Django's login is another one than the row's."""
        known, mark = self._known.row, mark_of_login(data)
        return known is not None and None not in (known.mark, mark) and known.mark != mark

    def _age(self) -> timedelta:
        """The lifetime; one that is over is the shortest there is."""
        return max(timedelta(seconds=self.get_expiry_age()), MOMENT)

    def _make(self, user_id: str, carried: JSON | None = None) -> None:
        """A new row, in the place of the one that the session had, if any.

        carried: the data of session_info; None: a guest's, if that is what it was.
        """
        known = self._known
        old = known.row if known.replaced is not None else None
        if old is not None or not is_guest(user_id):
            self._holder.expects_token()
        if old is not None and not is_guest(user_id) and not is_guest(old.user_id):
            self._forget_what_was_stored()
        data, entries = self._session, self._entries()
        if carried is None:
            carried = old.data if old is not None and is_guest(old.user_id) else {}
        ending = [token for token, outcome in self._flushed if not outcome.committed]
        if known.replaced is not None:
            ending.append(known.replaced)
        ip, user_agent = self._holder.client
        backend = data.get(BACKEND_SESSION_KEY)
        auth = {"backend": backend} if isinstance(backend, str) else None
        mark = mark_of_login(data)
        policy = None if is_guest(user_id) else self._holder.device_policy(user_id)
        bucket = bucket_of_user(user_id)
        # The new session's last: it may be there in vain, but no older one must be gone so.
        buckets = [*map(bucket_of_token, ending), bucket] if ending else []

        def write() -> CreatedSession:
            with together(*buckets):
                for token in ending:
                    session_service.invalidate(token, "replaced")
                if not is_guest(user_id):
                    self._holder.signs_in()
                return session_service.create(
                    user_id,
                    {**carried, MEMBER: entries},
                    ttl=self._age(),
                    cut_ttl=True,
                    ip=ip,
                    user_agent=user_agent,
                    auth=with_policy(with_mark(auth, mark), policy),
                )

        with self._writing(bucket):
            created = settled(write)
        row = Session(
            id=created.id,
            user_id=user_id,
            tenant_id=None,
            data=carried,
            version=1,
            auth=auth,
            created_at=created.created_at,
            authenticated_at=created.created_at,
            last_seen_at=created.created_at,
            expires_at=created.expires_at,
            absolute_expires_at=created.absolute_expires_at,
            request_data=entries,
            mark=mark,
            device_policy=policy,
        )
        if settings.LAZY_USER and not is_guest(user_id) and not is_current(user_id, row):
            session_service.invalidate(created.token, "user_changed")
            raise UpdateError
        self._session_key = created.token
        self._written(entries, row)
        self._holder.renewed(created, row)

    def _forget_what_was_stored(self) -> None:
        """Leave to another user only what this request has set.

        Django's login flushes a session that it made for somebody else; one of log_in's, or of the
        endpoints', it takes for a guest's.
        """
        known, serializer, names = self._known.entries or {}, self.serializer(), self._names()
        for key, value in list(self._session.items()):
            name = names.get(key) or entry_name(key)
            if self._has_login and key in LASTING:
                continue
            if name in known and self._same(known[name], encode_entry(serializer, key, value)):
                del self._session[key]

    def _elevate(self) -> None:
        """A new token for the same row."""
        self._holder.expects_token()
        entries, token = self._entries(), self._known.replaced or self.session_key
        patch, row = self._patch(entries), self._known.row
        ip, user_agent = self._holder.client
        bucket = bucket_of_token(token)
        buckets = [bucket] if patch or self._is_due() else []

        def write() -> RefreshedSession:
            with together(*buckets):
                if patch and session_service.update(self._proved(token), patch) is None:
                    raise UpdateError
                return session_service.elevate(
                    self._proved(self._extend(token, is_used=bool(patch))),
                    with_mark(row.auth if row else None, mark_of_login(self._session)) or {},
                    ip=ip,
                    user_agent=user_agent,
                    with_session=True,
                )

        with self._writing(bucket):
            renewed = settled(write)
            if renewed.token is None or renewed.session is None:
                raise UpdateError
        self._session_key = renewed.token
        self._written(entries, renewed.session)
        self._holder.renewed(renewed, renewed.session)

    def _update(self) -> None:
        entries = self._entries()
        patch = self._patch(entries)
        token = self._proved(self.session_key)
        with self._writing(bucket_of_token(token)):
            is_used = bool(patch) or self.modified
            if is_used and session_service.update(token, patch) is None:
                raise UpdateError
            self._session_key = self._extend(self.session_key, is_used=is_used)
        self._written(entries, self._known.row)

    def _is_due(self) -> bool:
        """Whether the row's end has to be moved to where the session's is, or nearly is."""
        row, age = self._known.row, self._age()
        if row is None or self._session.get(EXPIRY) != self._known.expiry:
            return True
        end = min(datetime.now(timezone.utc) + age, row.absolute_expires_at)
        return end - row.expires_at > age * SLACK

    def _extend(self, token: str | None, *, is_used: bool) -> str | None:
        """Move the row's end if it is due; the token to go on by.

        is_used: the token works, as a write by it has shown.
        """
        row = self._known.row
        if row is None or not self._is_due():
            return token
        ip, user_agent = self._holder.client
        if not is_used:
            # Of a token that was replaced while a slow request was served, past the grace, the
            # refresh would believe that it was stolen.
            proved = self._proved(token)
            if not session_service.get(
                proved, ip=ip, user_agent=user_agent, touch=False, fresh=True
            ):
                raise UpdateError
        # A session that was not made here may be shorter: without an expiry of its own it stays so.
        own = self._session.get(EXPIRY) is not None or self._known.expiry is not None
        refreshed = session_service.refresh(
            self._proved(token), ttl=self._age() if own else None, ip=ip, user_agent=user_agent
        )
        if not refreshed.live:
            raise UpdateError
        # A token that has been replaced must not come back into the browser, which has a newer one.
        if refreshed.status != "already_rotated" and (
            refreshed.status in ("extended", "rotated")
            or self._session.get(EXPIRY) != self._known.expiry
        ):
            self.cookie_is_due = True
        if refreshed.expires_at is not None:
            row = replace(row, expires_at=refreshed.expires_at)
            self._known = self._known._replace(row=row)
        if refreshed.token is None:
            return token
        # The answer with the last new token had got lost.
        self._holder.renewed(refreshed, row)
        return refreshed.token

    @contextmanager
    def _writing(self, bucket: Bucket) -> Iterator[None]:
        """A write of a session, and what was known before it, should it be rolled back."""
        token, known = self.session_key, self._known
        with translating_errors():
            yield
        self._remember(_Before(Outcome(bucket), token, known, had_login=self._has_login))

    def _remember(self, before: _Before) -> None:
        if not before.outcome.committed:
            self._before.append(before)

    def _written(self, entries: Entries, row: Session | None) -> None:
        data = self._session
        self._known = _Known(row, entries, data.get(SESSION_KEY), data.get(EXPIRY))
        self._has_login = False

    def undo_what_was_rolled_back(self) -> None:
        """Be what the session was before what a rollback has taken back."""
        while self._before and self._before[-1].outcome.rolled_back:
            before = self._before.pop()
            self._session_key, self._known = before.token, before.known
            if before.data is not None:
                self._session_cache = before.data
            elif before.was_unread:
                self.__dict__.pop("_session_cache", None)
            self.modified = self.modified or before.was_modified
            self._has_login = self._has_login or before.had_login

    def cookie_age(self) -> int | None:
        """Seconds that the browser keeps the cookie; None: until it is closed.

        What log_in's remember has said holds unless set_expiry() says otherwise.
        """
        row = self._known.row
        if row is not None and row.remember is not None and self.get(EXPIRY) is None:
            left = row.absolute_expires_at - datetime.now(timezone.utc)
            return max(int(left.total_seconds()), 0) if row.remember else None
        return None if self.get_expire_at_browser_close() else self.get_expiry_age()

    # Ending.

    def delete(self, session_key: str | None = None) -> None:
        session_service.invalidate(self.session_key if session_key is None else session_key)

    def flush(self) -> None:
        if self.session_key is not None and not is_token(self.session_key):
            # A Django session's key, which may have a session of the extension's by now.
            self._get_session()
        token, row = self._known.replaced or self.session_key, self._known.row
        self.clear()
        if is_token(token):
            self.delete(token)
            self._flushed.append((token, Outcome(bucket_of_token(token))))
        elif row is not None:
            session_service.invalidate_id(row.id, row.user_id, "logout")
        self._session_key = None
        self._known = _NOTHING
        self._holder.ended(token)

    def cycle_key(self) -> None:
        """Have the next save replace the token; the old one works until then."""
        self._get_session()
        if self.session_key is not None:
            self._known = self._known._replace(replaced=self.session_key)
            self._session_key = None
        self.modified = True

    async def aflush(self) -> None:
        await sync_to_async(self.flush)()

    async def acycle_key(self) -> None:
        await sync_to_async(self.cycle_key)()

    @classmethod
    def clear_expired(cls) -> None:
        """Delete ended sessions.  The extension's workers do, where the library is preloaded."""
        while True:
            done = cleanup(max_batches=1)
            if not (
                done.sessions_deleted
                or done.sessions_requeued
                or done.events_dropped
                or done.events_moved
            ):
                return

    # Beside session_manager.login, and the endpoints.

    def entries_of_login(self, user: Any, csrf_secret: str | None) -> Entries:
        """What Django's login of a user would leave: a guest's data is kept, another user's not.

        The CSRF secret is among it where CSRF_USE_SESSIONS says so.
        """
        if isinstance(user, str):
            user = load_user(user)
        login, kept = login_of(user), self._get_session()
        row = self._known.row
        if SESSION_KEY in kept:
            keep = kept[SESSION_KEY] == login.get(SESSION_KEY)
        else:
            keep = row is None or is_guest(row.user_id)
        if not keep:
            kept = {}
        if csrf_secret is not None and django_settings.CSRF_USE_SESSIONS:
            login = {**login, CSRF_SESSION_KEY: csrf_secret}
        serializer = self.serializer()
        return {
            entry_name(key): encode_entry(serializer, key, value)
            for key, value in {**kept, **login}.items()
        }

    def lasting_entries(self) -> Entries:
        """What goes along where the session goes on in another tenant."""
        self._get_session()
        return {name: text for name, text in (self._known.entries or {}).items() if name in LASTING}

    def follow(self, token: str | None, row: Session | None) -> None:
        """Be the session that the request has been given, or (None) none."""
        data: dict[Any, Any] | None = self.__dict__.get("_session_cache")
        outcome = Outcome(bucket_of_token(token or self.session_key))
        before = _Before(outcome, self.session_key, self._known, data, data is None, self.modified)
        self._session_key = token
        self._session_cache = self._take(row)
        self.modified = False
        self._remember(before)

    def go_on(self, token: str, row: Session, user: Any = None) -> None:
        """Be the same session with a new token, and with the user's new password, if given."""
        before = _Before(Outcome(bucket_of_token(token)), self.session_key, self._known)
        login = {} if user is None else login_of(user)
        if self.get(SESSION_KEY) is not None and self.get(SESSION_KEY) == login.get(SESSION_KEY):
            self[HASH_SESSION_KEY] = login[HASH_SESSION_KEY]
        self._session_key, self._known = token, self._known._replace(row=row, replaced=None)
        self._remember(before)

    def take_token(self, token: str) -> None:
        """Go on by the newer token of the same session."""
        current = self.session_key
        if is_token(current) and is_token(token) and session_id_of(token) == session_id_of(current):
            self._session_key = token
