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
from datetime import timedelta
from importlib import import_module
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from .addresses import client_ip, user_agent
from .conf import settings
from .exceptions import LimitReached
from .models import ImportedSession
from .services import session_service
from .types import JSON, CreatedSession, Session
from .users import user_id_of

logger = logging.getLogger("session_manager")

# How long requests that were sent together with the one that was taken over are let through.
GRACE = timedelta(seconds=30)


def key_hash(session_key: str) -> bytes:
    return hashlib.sha256(session_key.encode()).digest()


def store(session_key: str | None) -> SessionBase:
    """The session in Django's store, whatever SESSION_ENGINE is."""
    engine = import_module(django_settings.SESSION_ENGINE)
    found: SessionBase = engine.SessionStore(session_key)
    return found


def user_key(data: JSON) -> Any:
    """The primary key of the user who is logged in by a Django session's data, or None."""
    try:
        return get_user_model()._meta.pk.to_python(data[SESSION_KEY])
    except (KeyError, ValidationError, ValueError, TypeError):
        return None


def login_holds(data: JSON, user: Any) -> bool:
    """Whether the login in a Django session's data is still good for its user."""
    if not user.is_active:
        return False
    if data.get(BACKEND_SESSION_KEY) not in django_settings.AUTHENTICATION_BACKENDS:
        return False
    proof = str(data.get(HASH_SESSION_KEY, ""))
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return any(constant_time_compare(proof, good) for good in hashes)


def owners(decoded: list[JSON]) -> list[Any]:
    """For each Django session's data the user whose login in it holds, or None."""
    keys = [user_key(data) for data in decoded]
    users = get_user_model()._default_manager.in_bulk({key for key in keys if key is not None})
    found = [users.get(key) for key in keys]
    return [
        user if user is not None and login_holds(data, user) else None
        for data, user in zip(decoded, found, strict=True)
    ]


def note(session_key: str, user: Any, expires_at: Any) -> bool:
    """Remember a Django session; whether it was not known yet."""
    _, made = ImportedSession.objects.using(settings.DATABASE).get_or_create(
        key_hash=key_hash(session_key),
        defaults={"user_id": user_id_of(user), "expires_at": expires_at},
    )
    return made


def adopt(request: HttpRequest) -> tuple[Session | None, CreatedSession | None] | None:
    """A session for a request that comes with a noted Django session, or None.

    A request sent at the same moment as the one that was taken over gets the same session without
    a cookie: its browser has been sent one already.
    """
    session_key = request.COOKIES.get(django_settings.SESSION_COOKIE_NAME)
    if not session_key or len(session_key) > 64:
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
        data = store(session_key).load()
        (user,) = owners([data])
        if user is None or user_id_of(user) != noted.user_id:
            return None
        if noted.adopted_at is not None:
            if noted.adopted_at < now - GRACE:
                return None
            return _shared(noted, _kept(user, data)), None
        try:
            created = session_service.create(
                noted.user_id,
                _kept(user, data),
                ip=client_ip(request),
                user_agent=user_agent(request),
                auth={"method": "import"},
            )
        except LimitReached:
            # They will be told when they sign in; here whatever they look at would be refused.
            return None
        noted.adopted_at, noted.session_id = now, created.id
        noted.save(update_fields=["adopted_at", "session_id"])
    session = session_service.get(
        created.token, ip=client_ip(request), user_agent=user_agent(request), touch=False
    )
    return session, created


def _kept(user: Any, data: JSON) -> JSON:
    """What of a Django session's data goes along."""
    kept: JSON = settings.load(settings.IMPORT_DATA)(user, data) if settings.IMPORT_DATA else {}
    return kept


def _shared(noted: ImportedSession, data: JSON) -> Session | None:
    """The session that a Django session became, as far as it can be told without its token."""
    for listed in session_service.list(noted.user_id):
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
            )
    return None
