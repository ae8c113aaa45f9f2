"""From the session's user id to the application's user.

USER_ID_FIELD names the field of the user model whose text is the user id; USER_LOADER does it by
code.  With neither, SessionUser stands in: it needs no table and is authenticated.
"""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import (
    MultipleObjectsReturned,
    ObjectDoesNotExist,
    ValidationError,
)

from ..conf import settings
from ..types import Session
from .database import translating_errors

logger = logging.getLogger("session_manager")


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
    if value is None:
        raise ValueError(f"{user!r} has no {settings.USER_ID_FIELD or 'pk'}")
    return str(value)


def load_user(user_id: str, session: Session | None = None) -> Any:
    """The user of a session, or None if there is none (any more) or it is not active.

    Raises StoreUnavailable if the database with the users does not answer.
    """
    with translating_errors():
        if settings.USER_LOADER:
            user = settings.load(settings.USER_LOADER)(user_id, session)
        elif settings.USER_ID_FIELD:
            try:
                user = get_user_model()._default_manager.get(**{settings.USER_ID_FIELD: user_id})
            except (ObjectDoesNotExist, ValueError, ValidationError):
                return None
            except MultipleObjectsReturned:
                # The check E022 says so beforehand.  Nobody is whoever of them it may be.
                logger.error("several users have the same %s", settings.USER_ID_FIELD)
                return None
        else:
            user = SessionUser(user_id)
    return user if user is not None and getattr(user, "is_active", True) else None
