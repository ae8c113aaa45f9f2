"""Why a request without a live session is answered 401.

PostgreSQL is asked why a session has ended only here, when the 401 is written: a request that has a
session costs nothing more.
"""

from __future__ import annotations

import re

from django.http import HttpRequest
from rest_framework.exceptions import NotAuthenticated

from ..conf import settings
from ..exceptions import SessionError
from ..http.lookup import known_lookup
from ..services import session_service
from ..store.users import is_guest
from .errors import (
    DeviceBindingRequired,
    DeviceProofRequired,
    SessionExpired,
    SessionRevoked,
)

# What is told as it is; other reasons are free text, which is not for the session's user.
_CODE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_NOT_REVOKED = (None, "expired", "idle")


def session_ended(token: str) -> NotAuthenticated:
    """The 401 for a token that PostgreSQL has said to belong to no live session.

    Or to one that is bound to a device, without the proof of that.
    """
    try:
        reason = session_service.end_reason(token)
        if reason is None and settings.DEVICE_BOUND != "off" and session_service.device(token):
            # It lives.
            return DeviceProofRequired()
    except SessionError:
        # That the session has ended is certain all the same.
        reason = None
    if reason in _NOT_REVOKED:
        return SessionExpired()
    return SessionRevoked(reason if _CODE.fullmatch(reason) else None)


def explain_refusal(exc: Exception, request: HttpRequest) -> Exception:
    """DRF's own NotAuthenticated, if the request's session has ended, as the 401 that says so.

    One with a message of its own is about something else, an access token for example.
    """
    lookup = known_lookup(request)
    if lookup is not None and lookup.row is not None and is_guest(lookup.row.user_id):
        # Nobody's session has ended.
        return exc
    if (
        type(exc) is not NotAuthenticated
        or exc.detail != NotAuthenticated.default_detail
        or lookup is None
        or lookup.token is None
        or lookup.session is not None
    ):
        return exc
    # The session of a user who is gone lives.
    if lookup.binding_overdue:
        found: NotAuthenticated = DeviceBindingRequired()
    else:
        found = SessionExpired() if lookup.without_user else session_ended(lookup.token)
    # What DRF has made of the view's authentication classes.
    found.status_code = exc.status_code
    if hasattr(exc, "auth_header"):
        found.auth_header = exc.auth_header  # type: ignore[attr-defined]
    return found
