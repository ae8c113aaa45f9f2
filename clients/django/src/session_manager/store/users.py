"""From the session's user id to the application's user, and back.

USER_ID_FIELD names the field of the user model whose text is the user id; USER_LOADER does it by
code.  With neither, SessionUser stands in: it needs no table and is authenticated.

A session is marked with whom it was made for: the user's key, and a digest of what Django calls the
session auth hash, which changes with the password.  So neither a user whose password has changed
nor another one with the same user id gets in with it.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping
from hmac import compare_digest
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.core.exceptions import (
    MultipleObjectsReturned,
    ObjectDoesNotExist,
    ValidationError,
)
from django.db import router
from django.db.models import IntegerField, QuerySet
from django.utils.crypto import constant_time_compare
from django.utils.module_loading import import_string

from ..conf import settings
from ..types import JSON, MARK, Session
from .database import translating_errors
from .request_data import entry_value

GUEST = "guest:"
# A user who has nothing in USER_ID_FIELD.
BY_KEY = "pk:"

logger = logging.getLogger("session_manager")

_CONTEXT = b"session_manager user v1"
# Bytes of a digest, and the letters that they become.
_DIGEST_SIZE = 15
_DIGEST_LENGTH = 20


class SessionUser:
    """A user known by session alone.  It has no permissions of django.contrib.auth."""

    is_active = True
    is_anonymous = False
    is_authenticated = True
    is_staff = False
    is_superuser = False

    def __init__(self, user_id: str) -> None:
        self.id = self.pk = self.user_id = user_id

    def get_username(self) -> str:
        return self.user_id

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return False

    def has_module_perms(self, app_label: str) -> bool:
        return False

    def __str__(self) -> str:
        return self.user_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SessionUser) and other.user_id == self.user_id

    def __hash__(self) -> int:
        return hash(self.user_id)


def user_id_of(user: Any) -> str:
    """The session user id of an application's user; a string is one already."""
    if isinstance(user, str):
        return user
    if isinstance(user, SessionUser):
        return user.user_id
    value = getattr(user, settings.USER_ID_FIELD or "pk")
    user_id = "" if value is None else str(value)
    if not user_id:
        raise ValueError(f"{user!r} has no {settings.USER_ID_FIELD or 'pk'}")
    if user_id.startswith((GUEST, BY_KEY)):
        raise ValueError(f"{user!r} has a {settings.USER_ID_FIELD} that begins like a reserved id")
    return user_id


def value_of(field: Any, text: str) -> Any:
    """A user's field from its text, for a query.

    Raises ValidationError, ValueError or TypeError for what no row can have: a number beyond the
    column's range would fail the query for all.  Other validators are for forms, and a user may
    have been made without.
    """
    value = field.to_python(text)
    if isinstance(field, IntegerField):
        field.run_validators(value)
    return value


def new_guest_id() -> str:
    """A user id for somebody who has not signed in, and whom nobody else shares it with."""
    return f"{GUEST}{uuid.uuid4().hex}"


def is_guest(user_id: str) -> bool:
    """Whether a session's user id is of somebody who has not signed in."""
    return user_id.startswith(GUEST)


def user_id_of_login(key: str, user: Any = None) -> str | None:
    """The user id for what Django's login keeps of a user, its primary key; None without a user.

    user: who it is, if that is known.
    """
    model = get_user_model()
    try:
        value = model._meta.pk.to_python(key)
    except (ValidationError, ValueError, TypeError):
        return None
    if settings.USER_ID_FIELD in (None, "pk", model._meta.pk.name):
        return str(value)
    if user is None:
        with translating_errors():
            user = model._default_manager.filter(pk=value).first()
    if user is None:
        return None
    try:
        return user_id_of(user)
    except ValueError:
        return f"{BY_KEY}{key}"


def login_of(user: Any) -> dict[str, str]:
    """What Django's login keeps of a user in request.session; nothing of one without a model."""
    if not hasattr(user, "get_session_auth_hash"):
        return {}
    return {
        SESSION_KEY: user._meta.pk.value_to_string(user),
        BACKEND_SESSION_KEY: getattr(user, "backend", django_settings.AUTHENTICATION_BACKENDS[0]),
        HASH_SESSION_KEY: user.get_session_auth_hash(),
    }


def is_proof(user: Any, proof: str) -> bool:
    """Whether the hash that Django's login keeps is still the one of a user's password."""
    return constant_time_compare(proof, user.get_session_auth_hash()) or any(
        constant_time_compare(proof, good) for good in user.get_session_auth_fallback_hash()
    )


def _is_outdated(user: Any, session: Session) -> bool:
    """Whether Django's login in a session is no longer valid: the password has changed since."""
    if not session.request_data or not hasattr(user, "get_session_auth_hash"):
        return False
    serializer = import_string(django_settings.SESSION_SERIALIZER)()
    proof = entry_value(serializer, session.request_data, HASH_SESSION_KEY)
    return proof is not None and not is_proof(user, str(proof))


def knows_users() -> bool:
    """Whether the settings tell whose sessions are a user's.

    If not, user ids are an issuer's subjects, and one of them may look like some user's key.
    """
    return settings.USER_ID_FIELD is not None or settings.IS_ENGINE


def load_user(user_id: str, session: Session | None = None) -> Any:
    """The user of a session, or None if there is none (any more) or it is not active.

    Nor is there one of a guest, or of a session that was made for another user or another password.
    Raises StoreUnavailable if the database with the users does not answer.
    """
    return _load_user(user_id, session, _users)


def is_current(user_id: str, session: Session) -> bool:
    """Whether a session that has just been made still has its user, who may be known by key alone.

    Deactivated, say, since the login has looked at the user, and before there was a session to
    end.  By the database that users are written to: another one may not know of it yet.
    """
    if settings.USER_ID_FIELD and not settings.USER_LOADER and user_id.startswith(BY_KEY):
        with translating_errors():
            user = _written_users().filter(pk=user_id.removeprefix(BY_KEY)).first()
        return user is not None and _may_have(user, session)
    return _load_user(user_id, session, _written_users) is not None


def _users() -> QuerySet[Any]:
    return get_user_model()._default_manager.all()


def _written_users() -> QuerySet[Any]:
    model = get_user_model()
    return model._default_manager.using(router.db_for_write(model))


def _load_user(user_id: str, session: Session | None, users: Callable[[], QuerySet[Any]]) -> Any:
    if is_guest(user_id):
        return None
    with translating_errors():
        if settings.USER_LOADER:
            user = settings.load(settings.USER_LOADER)(user_id, session)
        elif settings.USER_ID_FIELD and user_id.startswith(BY_KEY):
            # Of somebody without a value in the field.
            return None
        elif settings.USER_ID_FIELD:
            try:
                user = users().get(**{settings.USER_ID_FIELD: user_id})
            except (ObjectDoesNotExist, ValueError, ValidationError):
                return None
            except MultipleObjectsReturned:
                # The check E022 says so beforehand.  Nobody is whoever of them it may be.
                logger.error("several users have the same %s", settings.USER_ID_FIELD)
                return None
        else:
            user = SessionUser(user_id)
    return user if user is not None and _may_have(user, session) else None


def _may_have(user: Any, session: Session | None) -> bool:
    """Whether the user is active, and a session was made for the user as it is now."""
    if not getattr(user, "is_active", True):
        return False
    if session is None:
        return True
    return not _is_outdated(user, session) if session.mark is None else fits(session.mark, user)


def mark_of(user: Any) -> str | None:
    """What a session is marked with that is made for a user now; None if it needs no mark."""
    if not settings.END_ON_PASSWORD_CHANGED or not (knows_users() or settings.USER_LOADER):
        return None
    if not hasattr(user, "get_session_auth_hash") or user.pk is None:
        return None
    return mark_from(user.pk, user.get_session_auth_hash())


def mark_from(key: Any, session_auth_hash: str) -> str:
    """The mark of the user with a primary key, from Django's hash for the user's sessions."""
    digest = hashlib.blake2b(
        _CONTEXT + session_auth_hash.encode(), digest_size=_DIGEST_SIZE
    ).digest()
    return base64.urlsafe_b64encode(digest).decode() + str(key)


def marked(auth: JSON | None, user: Any) -> JSON | None:
    """``auth`` for a session that is made for a user."""
    return with_mark(auth, mark_of(user))


def with_mark(auth: JSON | None, mark: str | None) -> JSON | None:
    """``auth`` as it is stored."""
    return auth if mark is None else {**(auth or {}), MARK: mark}


def mark_of_login(data: Mapping[str, Any]) -> str | None:
    """The mark of the user whom Django's login has left in request.session."""
    key, session_auth_hash = data.get(SESSION_KEY), data.get(HASH_SESSION_KEY)
    if not settings.END_ON_PASSWORD_CHANGED or not key or not isinstance(session_auth_hash, str):
        return None
    return mark_from(key, session_auth_hash)


def key_in(mark: str) -> str:
    """The text of the primary key of the user in a mark."""
    return mark[_DIGEST_LENGTH:]


def fits(mark: str | None, user: Any) -> bool:
    """Whether a session with a mark was made for a user as the user is now."""
    if mark is None or not settings.END_ON_PASSWORD_CHANGED:
        return True
    if not hasattr(user, "get_session_auth_hash"):
        return True
    if compare_digest(mark.encode(), mark_from(user.pk, user.get_session_auth_hash()).encode()):
        return True
    # Made before SECRET_KEY was replaced.
    return any(
        compare_digest(mark.encode(), mark_from(user.pk, hashed).encode())
        for hashed in user.get_session_auth_fallback_hash()
    )
