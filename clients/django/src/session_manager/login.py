"""Logging in and out within a request: the session, and the cookie that goes with it.

For views of the application's own, password forms for example:

    def sign_in(request):
        ...
        log_in(request, user, {"plan": "free"}, auth={"amr": ["pwd"]})
        return redirect("/")

SessionMiddleware puts the cookie into the response, if the transaction commits; without it call
``set_cookie``.
"""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.http import HttpRequest
from rest_framework.request import Request

from .conf import MEMBER, settings
from .http.addresses import client_ip, user_agent
from .http.cookie_decision import clear_cookie_on_commit, set_cookie_on_commit
from .http.cookies import set_cookie, token_from
from .http.lookup import Lookup, current_token, django_request, remember_lookup, renew_user
from .http.request_session import request_session
from .services import session_service
from .store.database import translating_errors
from .store.transactions import Outcome
from .store.users import load_user, marked, user_id_of
from .types import JSON, CreatedSession, RefreshedSession

__all__ = [
    "log_in",
    "log_out",
    "set_cookie",
    "switch_tenant",
    "token_from",
    "update_session_auth_hash",
]


def log_in(
    request: HttpRequest | Request,
    user: Any,
    data: JSON | None = None,
    *,
    tenant_id: str | None = None,
    auth: JSON | None = None,
    ttl: timedelta | None = None,
    max_lifetime: timedelta | None = None,
    reason: str = "replaced",
) -> CreatedSession:
    """Make a session for a user who has been authenticated, and end the one presented.

    Both or neither: a login that fails leaves the older session alone.  The older one ends first,
    so that it does not count against a limit; reason is for the audit trail.  Where request.session
    is this package's, the user is signed in there, too, and finds there what a guest left.  Raises
    as SessionService.create.
    """
    request = django_request(request)
    presented = current_token(request)
    store = request_session(request)
    if store is not None:
        data = {**(data or {}), MEMBER: store.entries_of_login(user)}
    together: Any = nullcontext()
    if presented is not None:
        together = transaction.atomic(using=settings.DATABASE)
    with translating_errors(), together:
        if presented is not None:
            session_service.invalidate(presented, reason)
        created = session_service.create(
            user_id_of(user),
            data,
            ttl=ttl,
            ip=client_ip(request),
            user_agent=user_agent(request),
            tenant_id=tenant_id,
            auth=marked(auth, user),
            max_lifetime=max_lifetime,
        )
    # touch=False: the first use of the token is the browser's.
    session = session_service.get(
        created.token, ip=client_ip(request), user_agent=user_agent(request), touch=False
    )
    if session and settings.LAZY_USER and load_user(session.user_id, session) is None:
        # Deactivated, say, since the user was looked at, and before the new session could be ended.
        session_service.invalidate(created.token, "user_changed")
        session = None
    # Ended already, if a sign-out everywhere came right behind: then there is no cookie to give.
    given = created if session else None
    outcome = set_cookie_on_commit(request, given) if given else Outcome()
    remember_lookup(request, Lookup(created.token, session, given, outcome))
    if store is not None:
        store.follow(created.token if session else None, session)
    renew_user(request)
    return created


def switch_tenant(request: HttpRequest | Request, tenant_id: str, data: JSON) -> RefreshedSession:
    """Go on in another tenant: a new session in the place of the request's, which ends.

    It has the same proof of identity, and ends no later.  See SessionService.switch_tenant for the
    outcome: there is a new session, and a cookie, only if the status is ``rotated``.
    """
    request = django_request(request)
    presented = current_token(request)
    store = request_session(request)
    if store is not None:
        data = {**data, MEMBER: store.lasting_entries()}
    with translating_errors():
        switched = session_service.switch_tenant(
            presented,
            tenant_id,
            data,
            ip=client_ip(request),
            user_agent=user_agent(request),
            with_session=True,
        )
    if switched.token is None:
        return switched
    # None where client_binding refuses this client: then there is no cookie to give.
    given = switched if switched.session else None
    outcome = set_cookie_on_commit(request, given) if given else Outcome()
    remember_lookup(request, Lookup(switched.token, switched.session, given, outcome))
    if store is not None:
        store.follow(switched.token if switched.session else None, switched.session)
    return switched


def update_session_auth_hash(request: HttpRequest | Request, user: Any) -> bool:
    """Keep the request's session after its user has changed the password; whether it goes on.

    Call it as Django's function of this name, after the user has been saved.  The session gets a
    new token, and counts as authenticated now.
    """
    request = django_request(request)
    token = current_token(request)
    session = session_service.get(
        token, ip=client_ip(request), user_agent=user_agent(request), touch=False
    )
    if session is None or session.user_id != user_id_of(user):
        return False
    with translating_errors():
        elevated = session_service.elevate(
            token,
            marked(session.auth, user) or {},
            ip=client_ip(request),
            user_agent=user_agent(request),
            with_session=True,
        )
    if elevated.token is None:
        return False
    given = elevated if elevated.session else None
    outcome = set_cookie_on_commit(request, given) if given else Outcome()
    remember_lookup(request, Lookup(elevated.token, elevated.session, given, outcome))
    store = request_session(request)
    if store is not None and elevated.session is not None:
        store.go_on(elevated.token, elevated.session, user)
    renew_user(request)
    return given is not None


def log_out(request: HttpRequest | Request, reason: str = "logout") -> bool:
    """End the request's session; SessionMiddleware clears the cookie.  Whether it was live."""
    request = django_request(request)
    token = current_token(request)
    ended = session_service.invalidate(token, reason)
    outcome = None if token is None else clear_cookie_on_commit(request)
    remember_lookup(request, Lookup(token, None, outcome=outcome))
    store = request_session(request)
    if store is not None:
        store.follow(None, None)
    renew_user(request)
    return ended
