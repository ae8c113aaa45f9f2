"""Who may act as whom.

While somebody acts as another user, the session cookie is that of a session of the other user, and
a second cookie keeps their own.  The new session works only as long as their own is live, which
the database checks at every use.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from ..services import session_service
from ..store.users import load_user, user_id_of
from ..types import Session
from .cookie_decision import forget_actor_on_commit
from .cookies import actor_token_from
from .lookup import look_up
from .rights import may_act


def acting_session(request: HttpRequest, actor: Any, user: Any) -> Session:
    """The session of who is going to act as a user: the request's, which must be the actor's own.

    Raises PermissionDenied.
    """
    lookup = look_up(request)
    session = lookup.session
    if session is None or session.user_id != user_id_of(actor):
        raise PermissionDenied("The actor is not the user of the request's session.")
    if session.actor is not None:
        raise PermissionDenied("The actor already acts as somebody else.")
    if session.user_id == user_id_of(user):
        raise PermissionDenied("The actor and the user are the same.")
    if isinstance(user, str):
        user = load_user(user)
    if user is None or not getattr(user, "is_active", True):
        raise PermissionDenied("The user does not exist, or is not active.")
    if not may_act(request, lookup.user, user):
        raise PermissionDenied("The actor may not act as this user.")
    return session


def sign_out_actor(request: HttpRequest, reason: str) -> None:
    """End the session of who acts as the request's user, so that there is no way back to it."""
    token = actor_token_from(request)
    if token is not None:
        session_service.invalidate(token, reason)
        forget_actor_on_commit(request, token)
