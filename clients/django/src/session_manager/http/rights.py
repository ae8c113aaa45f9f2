"""By what right somebody acts as another user."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from ..conf import settings
from ..store.users import knows_users


def may_act(request: HttpRequest, actor: Any, user: Any) -> bool:
    """Whether somebody may begin to act as a user."""
    if settings.MAY_IMPERSONATE:
        return settings.load(settings.MAY_IMPERSONATE)(request, actor, user) is True
    return _by_default(actor, user)


def may_go_on(actor: Any, user: Any) -> bool:
    """Whether they still may, in a later request: one of the two may have been given other rights.

    MAY_IMPERSONATE is asked once, when it begins.
    """
    return bool(settings.MAY_IMPERSONATE) or not knows_users() or _by_default(actor, user)


def _by_default(actor: Any, user: Any) -> bool:
    """Nobody gains rights of staff that they do not have.

    Superusers may act as everybody who is no superuser, staff as everybody who is not staff.
    """
    if _is(user, "superuser"):
        return False
    return _is(actor, "superuser") or (_is(actor, "staff") and not _is(user, "staff"))


def _is(user: Any, kind: str) -> bool:
    return bool(getattr(user, f"is_{kind}", False))
