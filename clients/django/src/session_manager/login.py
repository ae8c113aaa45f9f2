"""Logging in and out within a request: the session, and the cookie that goes with it.

For views of the application's own, password forms for example:

    def sign_in(request):
        ...
        log_in(request, user, {"plan": "free"}, auth={"amr": ["pwd"]})
        return redirect("/")

SessionMiddleware puts the cookie into the response, if the transaction commits; without it call
``cookies.set_cookie``.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from django.db import transaction
from django.http import HttpRequest
from rest_framework.request import Request

from .addresses import client_ip, user_agent
from .conf import settings
from .database import answers
from .outcomes import decide
from .requests import Lookup, current_token, plain, remember
from .services import session_service
from .types import JSON, CreatedSession, Session
from .users import user_id_of

#: Member of ``auth``: the end, in seconds since 1970, of the login that a session came from.
NOT_AFTER = "not_after"


def log_in(
    request: HttpRequest | Request,
    user: Any,
    data: JSON | None = None,
    *,
    tenant_id: str | None = None,
    auth: JSON | None = None,
    ttl: timedelta | None = None,
    reason: str = "replaced",
) -> CreatedSession:
    """Make a session for a user who has been authenticated, and end the one presented.

    Both or neither: a login that fails leaves the older session alone.  The older one ends first,
    so that it does not count against a limit; reason is for the audit trail.  Raises as
    SessionService.create.
    """
    request = plain(request)
    presented = current_token(request)
    with answers(), transaction.atomic(using=settings.DATABASE):
        if presented is not None:
            session_service.invalidate(presented, reason)
        created = session_service.create(
            user_id_of(user),
            data,
            ttl=ttl,
            ip=client_ip(request),
            user_agent=user_agent(request),
            tenant_id=tenant_id,
            auth=auth,
        )
    # touch=False: the first use of the token is the browser's.
    session = session_service.get(
        created.token, ip=client_ip(request), user_agent=user_agent(request), touch=False
    )
    # Ended already, if a sign-out everywhere came right behind: then there is no cookie to give.
    given = created if session else None
    remember(request, Lookup(created.token, session, given, decide(request, given)))
    return created


def switch_tenant(
    request: HttpRequest, session: Session, tenant_id: str, data: JSON
) -> CreatedSession:
    """Go on in another tenant: a new session with the same proof of identity, and the same end.

    A session's tenant is fixed, so that this is a new session and the old one ends.  It must not
    outlive the login that it came from: the end of that goes along in ``auth``.
    """
    limit = login_ends_at(session)
    auth = {**(session.auth or {}), NOT_AFTER: int(limit.timestamp())}
    created = log_in(
        request, session.user_id, data, tenant_id=tenant_id, auth=auth, reason="tenant_switch"
    )
    cut(created.token, created.expires_at, limit)
    return created


def login_ends_at(session: Session) -> datetime:
    """When the login that a session came from ends for good."""
    stamp = (session.auth or {}).get(NOT_AFTER)
    if not isinstance(stamp, (int, float)):
        return session.absolute_expires_at
    return min(session.absolute_expires_at, datetime.fromtimestamp(stamp, timezone.utc))


def cut(token: str, expires_at: datetime, limit: datetime) -> bool:
    """Let a session end at limit, if it would end later; whether it was cut."""
    if expires_at <= limit:
        return False
    remaining = limit - datetime.now(timezone.utc)
    session_service.refresh(token, ttl=max(remaining, timedelta(seconds=1)))
    return True


def log_out(request: HttpRequest | Request, reason: str = "logout") -> bool:
    """End the request's session; SessionMiddleware clears the cookie.  Whether it was live."""
    request = plain(request)
    token = current_token(request)
    ended = session_service.invalidate(token, reason)
    outcome = None if token is None else decide(request, None)
    remember(request, Lookup(token, None, outcome=outcome))
    return ended
