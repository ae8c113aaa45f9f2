"""Taking over sessions of django.contrib.sessions without signing anybody out.

``manage.py import_django_sessions`` notes which Django sessions may be taken over: those that are
live and belong to a user who is known and active.  With IMPORT_DJANGO_SESSIONS on, the next request
that comes with such a session's cookie and none of ours gets a session of ours, once.

What makes a Django session good is checked again at that moment: it must be live in Django's store,
still belong to that user, and carry the hash of the user's present password.  Its key is not kept,
only its hash.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any, NamedTuple

from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.core import signing
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.module_loading import import_string

from ..conf import MEMBER, settings
from ..exceptions import InvalidArgument, LimitReached, TooLarge
from ..models import ImportedSession
from ..services import session_service
from ..store.database import call, function, json_argument
from ..store.imported import use_up
from ..store.request_data import encode_entry, entry_name, take_out
from ..store.shards import bucket_of_user
from ..store.users import is_current, is_proof, marked, user_id_of
from ..types import JSON, CreatedSession, Session, with_policy
from .addresses import client_ip, user_agent
from .device import policy_of_login
from .exact_cookies import cookie_of

logger = logging.getLogger("session_manager")

#: Of Django's stores, those whose sessions can be listed; the first one reads for both.
STORES = ("django.contrib.sessions.backends.db", "django.contrib.sessions.backends.cached_db")

# How long requests that were sent together with the one that was taken over are let through.
GRACE = timedelta(seconds=30)


def key_hash(session_key: str) -> bytes:
    return hashlib.sha256(session_key.encode()).digest()


def django_session(session_key: str | None) -> SessionBase:
    """The session in Django's store, whatever SESSION_ENGINE is, or was before this package's."""
    engine = import_module(STORES[0] if settings.IS_ENGINE else django_settings.SESSION_ENGINE)
    found: SessionBase = engine.SessionStore(session_key)
    return found


def decode_session_data(session_data: str) -> JSON | None:
    """The data of a row of Django's table, or None.

    Django itself takes what it cannot read for an empty session.
    """
    base = django_session(None)
    try:
        data = signing.loads(session_data, salt=base.key_salt, serializer=base.serializer)
    except Exception:  # Whatever a serializer raises, as Django's decode() does.
        return None
    return data if isinstance(data, dict) else None


class Login(NamedTuple):
    """Whose login a Django session holds, or why it cannot be taken over."""

    user: Any = None
    problem: str | None = None


NOBODY = "nobody is logged in"
EXPIRED = "it has expired"
UNREADABLE = "its data cannot be read"
UNKNOWN = "its user does not exist"
INACTIVE = "its user is not active"
OUTDATED = "its login is no longer valid"
WITHOUT_ID = "its user has no user id"
#: What happens to any session in time; all else should not be.
ORDINARY = (NOBODY, EXPIRED, INACTIVE, OUTDATED)


def _user_key(data: JSON) -> Any:
    """The primary key of the user who is logged in by a Django session's data, or None."""
    key = get_user_model()._meta.pk
    try:
        value = key.to_python(data[SESSION_KEY])
        # A number beyond the column's range would fail the query for all.
        key.run_validators(value)
    except (ValidationError, ValueError, TypeError):
        return None
    return value


def _problem(data: JSON, user: Any) -> str | None:
    """Why the login of a user in a Django session's data is not good, or None if it is."""
    if not user.is_active:
        return INACTIVE
    try:
        user_id_of(user)
    except ValueError:
        return WITHOUT_ID
    if data.get(BACKEND_SESSION_KEY) not in django_settings.AUTHENTICATION_BACKENDS:
        return OUTDATED
    return None if is_proof(user, str(data.get(HASH_SESSION_KEY, ""))) else OUTDATED


def find_logins(decoded: Sequence[JSON | None]) -> list[Login]:
    """Who is logged in, for the data of each Django session; None is what cannot be read."""
    keys = [_user_key(data) if data and SESSION_KEY in data else None for data in decoded]
    users = get_user_model()._default_manager.in_bulk({key for key in keys if key is not None})

    def login(data: JSON | None, key: Any) -> Login:
        if data is None:
            return Login(problem=UNREADABLE)
        if SESSION_KEY not in data:
            return Login(problem=NOBODY)
        user = users.get(key)
        if user is None:
            return Login(problem=UNKNOWN)
        problem = _problem(data, user)
        return Login(problem=problem) if problem else Login(user)

    return [login(data, key) for data, key in zip(decoded, keys, strict=True)]


def check_data(kept: Sequence[tuple[Any, JSON]]) -> list[str | None]:
    """For users and the data of their Django sessions: why what goes along could not be stored."""
    if not settings.IMPORT_DATA and not settings.IS_ENGINE:
        return [None] * len(kept)
    problems: list[str | None] = [None] * len(kept)
    texts: dict[int, str] = {}
    for n, (user, data) in enumerate(kept):
        try:
            texts[n] = json_argument(_kept(user, data)) or "null"
        except Exception as error:  # The application's function.
            problems[n] = f"IMPORT_DATA fails: {type(error).__name__}"
    for n, problem in _refused(texts).items():
        problems[n] = problem
    return problems


def _refused(texts: dict[int, str]) -> dict[int, str]:
    """What of some JSON texts PostgreSQL, or the extension, would not store."""
    if not texts:
        return {}
    # Every shard can say it.
    anybody = bucket_of_user("")
    try:
        # Calling one of its functions makes the extension's settings known.
        call(f"SELECT {function('session_user_id')}()", bucket=anybody)
        rows = call(
            "SELECT n, jsonb_typeof(data) = 'object' AS object FROM"
            " (SELECT n, text::jsonb AS data FROM unnest(%s::int[], %s::text[]) AS t (n, text)"
            "  OFFSET 0) AS t"
            " WHERE jsonb_typeof(data) <> 'object' OR pg_column_size(data) >"
            " (SELECT setting::int FROM pg_settings WHERE name = 'session_manager.max_data_size')",
            [list(texts), list(texts.values())],
            savepoint=True,
            bucket=anybody,
        )
    except InvalidArgument as error:
        # One of them; which, is found one by one.
        if len(texts) == 1:
            return dict.fromkeys(
                texts, f"the data that IMPORT_DATA keeps cannot be stored: {error}"
            )
        return {n: why for one in texts for n, why in _refused({one: texts[one]}).items()}
    return {
        row["n"]: "the data that IMPORT_DATA keeps is too large"
        if row["object"]
        else "the data that IMPORT_DATA keeps is not a JSON object"
        for row in rows
    }


def mark_importable(found: Sequence[tuple[str, Any, datetime]], *, dry_run: bool = False) -> int:
    """Remember Django sessions (key, user, end), all or none; how many were not known yet."""
    noted = [
        ImportedSession(key_hash=key_hash(key), user_id=user_id_of(user), expires_at=expires_at)
        for key, user, expires_at in found
    ]
    objects = ImportedSession.objects.using(settings.DATABASE)
    with transaction.atomic(using=settings.DATABASE):
        known = objects.filter(pk__in=[one.pk for one in noted]).count()
        if not dry_run:
            objects.bulk_create(noted, ignore_conflicts=True)
    return len(noted) - known


def adopt_django_session(
    request: HttpRequest,
) -> tuple[Session | None, CreatedSession | None] | None:
    """A session for a request that comes with a noted Django session, or None.

    A request sent at the same moment as the one that was taken over gets the same session without
    a cookie: its browser has been sent one already.
    """
    session_key = django_session_key(request)
    if session_key is None:
        return None
    now = timezone.now()
    with transaction.atomic(using=settings.DATABASE):
        noted = (
            ImportedSession.objects.using(settings.DATABASE)
            .select_for_update()
            .filter(key_hash=key_hash(session_key), expires_at__gt=now)
            .first()
        )
        if noted is None:
            return None
        data = django_session(session_key).load()
        ((user, _),) = find_logins([data])
        if user is None or user_id_of(user) != noted.user_id:
            return None
        if noted.adopted_at is not None:
            if noted.adopted_at < now - GRACE:
                return None
            return _shared(noted, _kept(user, data)), None
        policy = policy_of_login(request, noted.user_id)
        try:
            created = session_service.create(
                noted.user_id,
                _kept(user, data),
                ip=client_ip(request),
                user_agent=user_agent(request),
                auth=with_policy(marked({"method": "import"}, user), policy),
                **_lifetime(noted, now),
            )
        except LimitReached:
            # They will be told when they sign in; here whatever they look at would be refused.
            return None
        except (TooLarge, InvalidArgument) as error:
            # Likewise, and nobody could do anything about it.  The command has named it.
            logger.warning("session_manager: a Django session cannot be imported: %s", error)
            return None
        session = session_service.get(
            created.token, ip=client_ip(request), user_agent=user_agent(request), touch=False
        )
        if session and settings.LAZY_USER and not is_current(session.user_id, session):
            # Deactivated, say, since the user was looked at, and before there was a session to
            # end.  Who does so from now on waits for this transaction, and ends it.
            transaction.set_rollback(True, using=settings.DATABASE)
            return None
        noted.adopted_at, noted.session_id = now, created.id
        noted.save(using=settings.DATABASE, update_fields=["adopted_at", "session_id"])
    return session, created


def django_session_key(request: HttpRequest) -> str | None:
    """The key of the Django session that a request presents, or what may be one."""
    session_key = cookie_of(request, django_settings.SESSION_COOKIE_NAME)
    return session_key if session_key and len(session_key) <= 64 else None


def forget_django_session(request: HttpRequest) -> None:
    """Take the Django session that a request presents over for nobody: somebody signs in."""
    session_key = django_session_key(request)
    if session_key is not None:
        use_up(key_hash(session_key))


def end_django_session(request: HttpRequest, reason: str) -> None:
    """End the Django session that a request presents, and what it has just become: a sign-out."""
    session_key = django_session_key(request)
    if session_key is None:
        return
    noted = use_up(key_hash(session_key))
    if noted is not None and noted.session_id and noted.adopted_at > timezone.now() - GRACE:
        session_service.invalidate_id(noted.session_id, noted.user_id, reason)
    session = getattr(request, "session", None)
    if session is not None and session.session_key == session_key:
        session.flush()
    else:
        django_session(session_key).delete(session_key)


def _kept(user: Any, data: JSON) -> JSON:
    """What of a Django session's data goes along."""
    kept: JSON = settings.load(settings.IMPORT_DATA)(user, data) if settings.IMPORT_DATA else {}
    if settings.IS_ENGINE:
        # request.session goes on as it was.
        serializer = import_string(django_settings.SESSION_SERIALIZER)()
        entries = {entry_name(key): encode_entry(serializer, key, data[key]) for key in data}
        kept = {**kept, MEMBER: entries}
    return kept


def _lifetime(noted: ImportedSession, now: datetime) -> JSON:
    """Arguments of create: request.session ends when it would have ended."""
    return {"ttl": noted.expires_at - now, "cut_ttl": True} if settings.IS_ENGINE else {}


def _shared(noted: ImportedSession, data: JSON) -> Session | None:
    """The session that a Django session became, as far as it can be told without its token."""
    data, request_data = take_out(data)
    for listed in session_service.list(noted.user_id, fresh=True):
        if listed.id == noted.session_id:
            return Session(
                id=listed.id,
                user_id=noted.user_id,
                tenant_id=listed.tenant_id,
                data=data,
                version=1,
                auth=listed.auth,
                created_at=listed.created_at,
                authenticated_at=listed.created_at,
                last_seen_at=listed.last_seen_at,
                expires_at=listed.expires_at,
                absolute_expires_at=listed.absolute_expires_at,
                request_data=request_data,
            )
    return None
