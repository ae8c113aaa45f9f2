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

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest
from rest_framework.request import Request

from .conf import MEMBER, settings
from .http.addresses import client_ip, user_agent
from .http.cookie_decision import (
    Issued,
    clear_cookie_on_commit,
    forget_actor_on_commit,
    keep_actor_on_commit,
    set_cookie_on_commit,
)
from .http.cookies import actor_token_from, proved, set_cookie, token_from
from .http.csrf import new_token
from .http.device import offer_binding, policy_of_login
from .http.impersonation import acting_session, sign_out_actor
from .http.lookup import (
    Lookup,
    current_token,
    django_request,
    look_up_row,
    remember_lookup,
    renew_user,
)
from .http.request_session import request_session
from .services import session_service
from .store.database import translating_errors
from .store.shards import Bucket, bucket_of_token, bucket_of_user
from .store.tokens import is_token, session_id_of, without_proof
from .store.transactions import Outcome, settled, together
from .store.users import is_current, marked, user_id_of
from .types import JSON, REMEMBER, CreatedSession, RefreshedSession, Session, with_policy

__all__ = [
    "log_in",
    "log_out",
    "set_cookie",
    "step_up",
    "stop_impersonation",
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
    remember: bool | None = None,
    ttl: timedelta | None = None,
    max_lifetime: timedelta | None = None,
    idle_timeout: timedelta | None = None,
    device_bound: str | None = None,
    actor: Any = None,
    reason: str = "replaced",
) -> CreatedSession:
    """Make a session for a user who has been authenticated, and end the one presented.

    Both or neither: a login that fails leaves the older session alone.  The older one ends first,
    so that it does not count against a limit; reason is for the audit trail.  Where request.session
    is this package's, the user is signed in there, too, and finds there what a guest left.  The
    CSRF token is replaced.

    remember: False for a cookie that lasts until the browser is closed, True for one that lasts as
    long as the session can.  The lifetimes that are not given are those of
    NOT_REMEMBERED or REMEMBERED.  None: as True, with the lifetimes of all sessions.

    device_bound: "off", "offer" or "require", in the place of what DEVICE_BOUND says, unless that
    is "off".  A session in which somebody acts as the user is not bound.

    actor: the request's own user, who is going to act as the user; the session presented goes on,
    for stop_impersonation to return to.  Raises PermissionDenied as impersonation.acting_session
    says, else as SessionService.create.
    """
    request = django_request(request)
    presented = current_token(request)
    acting = None
    if actor is not None:
        acting = acting_session(request, actor, user)
        remember = bool(remember)
    lifetimes = settings.lifetimes(remember)
    if remember is not None:
        auth = {**(auth or {}), REMEMBER: remember}
    user_id = user_id_of(user)
    policy = None if actor is not None else policy_of_login(request, user_id, device_bound)
    csrf = new_token(request)
    store = request_session(request)
    if store is not None:
        data = {**(data or {}), MEMBER: store.entries_of_login(user, csrf.get("CSRF_COOKIE"))}
    buckets: list[Bucket] = []
    first = None
    if presented is not None and acting is None:
        # The new session's last: it may be there in vain, but the older one must not be gone so.
        buckets = [bucket_of_token(presented), bucket_of_user(user_id)]
        if settings.IMPORT_DJANGO_SESSIONS:
            first = settings.DATABASE

    def write() -> CreatedSession:
        with translating_errors(), together(*buckets, first=first):
            if acting is None and settings.IMPORT_DJANGO_SESSIONS:
                from .http.importing import forget_django_session

                forget_django_session(request)
            if acting is None:
                session_service.invalidate(presented, reason)
                sign_out_actor(request, reason)
            return session_service.create(
                user_id,
                data,
                ttl=_first(ttl, lifetimes.TTL, lifetimes.MAX_LIFETIME),
                cut_ttl=ttl is None and lifetimes.TTL is not None,
                ip=client_ip(request),
                user_agent=user_agent(request),
                tenant_id=tenant_id,
                auth=with_policy(marked(auth, user), policy),
                max_lifetime=_first(max_lifetime, lifetimes.MAX_LIFETIME),
                idle_timeout=_first(idle_timeout, lifetimes.IDLE_TIMEOUT),
                actor_token=presented if acting else None,
            )

    created = settled(write)
    # touch=False: the first use of the token is the browser's.
    session = session_service.get(
        # Where somebody acts as the user, their device has to be there.
        proved(request, created.token),
        ip=client_ip(request),
        user_agent=user_agent(request),
        touch=False,
    )
    if session and settings.LAZY_USER and not is_current(session.user_id, session):
        # Deactivated, say, since the user was looked at, and before the new session could be ended.
        session_service.invalidate(created.token, "user_changed")
        session = None
    if acting is not None and presented is not None and session is not None:
        own = _Own(without_proof(presented), acting.absolute_expires_at)
        keep_actor_on_commit(request, own, persistent=acting.persistent)
    _replace(request, created, session)
    renew_user(request)
    request.META.update(csrf)
    return created


def step_up(
    request: HttpRequest | Request, auth: JSON, data: JSON | None = None
) -> RefreshedSession:
    """Record that the request's user proved more: a new token and cookie, the old ones void.

    See SessionService.elevate for the outcome: there is a cookie only if the status is ``rotated``.
    Whether the login is to be remembered stays as it is.
    """
    request = django_request(request)
    presented = current_token(request)
    buckets = [] if data is None else [bucket_of_token(presented)]

    def write() -> RefreshedSession:
        with translating_errors(), together(*buckets):
            new = data
            if new is not None:
                new = {**new, **_request_data(request, presented)}
            return session_service.elevate(
                presented,
                auth,
                new,
                ip=client_ip(request),
                user_agent=user_agent(request),
                with_session=True,
            )

    elevated = settled(write)
    if elevated.token is not None:
        _give(request, elevated, elevated.session)
        store = request_session(request)
        if store is not None and elevated.session is not None:
            store.go_on(elevated.token, elevated.session)
    return elevated


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
    if switched.token is not None:
        _replace(request, switched, switched.session)
    return switched


def update_session_auth_hash(request: HttpRequest | Request, user: Any) -> bool:
    """Keep the request's session after its user has changed the password; whether it goes on.

    Call it as Django's function of this name, after the user has been saved.  The session gets a
    new token, and counts as authenticated now.
    """
    request = django_request(request)
    token = current_token(request)
    session = session_service.get(
        token, ip=client_ip(request), user_agent=user_agent(request), touch=False, fresh=True
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
    _give(request, elevated, elevated.session)
    store = request_session(request)
    if store is not None and elevated.session is not None:
        store.go_on(elevated.token, elevated.session, user)
    renew_user(request)
    return elevated.session is not None


def stop_impersonation(request: HttpRequest | Request) -> Session | None:
    """Return from acting as somebody else: the session of the impersonation ends.

    What the request's session is from now on, that of the actor; None where that has ended too, so
    that nobody is signed in.  A request in which nobody acts as somebody else keeps its session.
    """
    request = django_request(request)
    current = look_up_row(request).row
    token = actor_token_from(request)
    if current is not None and current.actor is None:
        return current
    if current is None and token is None:
        return None
    actor = _ended_actor(current_token(request)) if current is None else current.actor
    own = None
    # What lies beside an impersonation in the browser may be somebody else's.
    if actor is not None:
        own = session_service.get(
            token, ip=client_ip(request), user_agent=user_agent(request), fresh=True
        )
    if own is not None and (own.user_id != actor or own.actor is not None):
        own = None
    session_service.invalidate(current_token(request), "impersonation_ended")
    if token is not None:
        forget_actor_on_commit(request, current_token(request))
    if own is None or token is None:
        _leave(request)
    else:
        _replace(request, _Own(without_proof(token), own.absolute_expires_at), own)
    renew_user(request)
    return own


def log_out(request: HttpRequest | Request, reason: str = "logout") -> bool:
    """End the request's session; SessionMiddleware clears the cookie.  Whether it was live.

    Who acts as somebody else is signed out as well.
    """
    request = django_request(request)
    token = current_token(request)
    ended = session_service.invalidate(token, reason)
    if settings.IMPORT_DJANGO_SESSIONS:
        from .http.importing import end_django_session

        with translating_errors():
            end_django_session(request, reason)
    leave_ended(request, reason)
    return ended


def leave_ended(request: HttpRequest, reason: str) -> None:
    """Let the request, whose session has just been ended, have none; SessionMiddleware clears the
    cookie.  Who acts as somebody else is signed out as well.
    """
    sign_out_actor(request, reason)
    _leave(request)
    renew_user(request)


def _request_data(request: HttpRequest, token: str | None) -> JSON:
    """What request.session has in the row by now, to go into data that replace the row's.

    An update of nothing locks the row, so that nobody saves any of it before the transaction ends.
    """
    if session_service.update(token, {}) is None:
        return {}
    row = session_service.get(
        token, ip=client_ip(request), user_agent=user_agent(request), touch=False
    )
    return {MEMBER: row.request_data} if row is not None and row.request_data else {}


def _ended_actor(token: str | None) -> str | None:
    """Who acted in the session of a token that has ended; None if the token does not prove it."""
    # It checks the secret, which the session's id alone does not show.
    if not is_token(token) or session_service.end_reason(token) is None:
        return None
    events = session_service.history(session_id=session_id_of(token), max_rows=1)
    actor = (events[0].detail or {}).get("actor") if events else None
    return actor if isinstance(actor, str) else None


@dataclass(frozen=True)
class _Own:
    """The session of who acts as somebody else, as a cookie needs it."""

    token: str
    absolute_expires_at: datetime


def _give(request: HttpRequest, issued: Issued, session: Session | None) -> None:
    """Let the request have a session from now on, and the browser its token.

    None: it has ended already, as when a sign-out everywhere came right behind, or client_binding
    refuses this client.  Then there is no cookie to give.
    """
    given = issued if session else None
    if session is not None:
        outcome = set_cookie_on_commit(request, issued, persistent=session.persistent)
        if issued.token is not None:
            offer_binding(request, issued.token, session)
    else:
        outcome = Outcome(bucket_of_token(issued.token))
    remember_lookup(request, Lookup(issued.token, session, given, outcome))


def _replace(request: HttpRequest, issued: Issued, session: Session | None) -> None:
    """The same with another session, or with none."""
    _give(request, issued, session)
    store = request_session(request)
    if store is not None:
        store.follow(issued.token if session else None, session)


def _leave(request: HttpRequest) -> None:
    """Let the request have no session from now on, and the browser no cookie."""
    token = current_token(request)
    outcome = None if token is None else clear_cookie_on_commit(request, token)
    remember_lookup(request, Lookup(token, None, outcome=outcome))
    store = request_session(request)
    if store is not None:
        store.follow(None, None)


def _first(*durations: timedelta | None) -> timedelta | None:
    """The first one that is given."""
    return next((duration for duration in durations if duration is not None), None)
