"""The session of a request, looked up at most once.

The outcome is kept on the HttpRequest, so that the middleware, DRF's authentication and views share
one look-up.  Without a cookie nothing is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from ..conf import settings
from ..exceptions import StoreUnavailable
from ..services import session_service
from ..store.database import translating_errors
from ..store.lazy_users import LazyUser, lazy_user
from ..store.shards import bucket_of_bytes
from ..store.tokens import token_bytes
from ..store.transactions import Outcome, changed_here
from ..store.users import load_user, mark_of_login
from ..types import Session
from .addresses import client_ip, user_agent
from .bearer import keeps_token
from .cache_control import note_session_use
from .cookie_decision import Issued, set_cookie_on_commit
from .cookies import actor_token_from, proved, token_from
from .device import is_overdue, note_skipped, offer_binding
from .rights import may_go_on

#: Those that a standby may answer.
SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")

_ATTRIBUTE = "_session_manager_lookups"
_FAILURE = "_session_manager_failure"
_OTHERS = "_session_manager_other_users"


@dataclass
class Lookup:
    """What is known of a request's session."""

    token: str | None
    session: Session | None
    #: A session that came in the place of the one presented, for the browser to be given its token.
    created: Issued | None = None
    #: Of the transaction in which this became known; None where none can change it.
    outcome: Outcome | None = None
    #: The session's user, once looked for.
    user: Any = None
    #: The session lives, but its user is gone or not active: no session, and no verdict on it.
    without_user: bool = False
    #: The own session of who acts as the user, if the request presents it.
    own: Session | None = None
    #: The session lives, but had to be bound to a device by now.
    binding_overdue: bool = False
    #: Whether it lives, and only the proof of its device is missing; None: not asked yet.
    unproved: bool | None = None
    #: The session, whoever its user is.
    row: Session | None = field(init=False)

    def __post_init__(self) -> None:
        self.row = self.session

    def find_user(self, request: HttpRequest) -> Lookup:
        """Without a user, as far as the settings tell who that is, there is no session."""
        if self.session is None or self.user is not None:
            return self
        if settings.LAZY_USER:
            self.user = lazy_user(
                self.session, partial(self._lose_user, request), partial(_new_mark, request)
            )
        if self.user is None:
            self.user = load_user(self.session.user_id, self.session)
        if self.user is None or not self._actor_may():
            self.user = self.session = None
            self.without_user = True
        return self

    def _actor_may(self) -> bool:
        """Whether who acts as the user, if anybody does, is still a user who may."""
        actor = self.session.actor if self.session is not None else None
        if actor is None:
            return True
        own = self.own if self.own is not None and self.own.user_id == actor else None
        found = load_user(actor, own)
        return found is not None and may_go_on(found, self.user)

    def _lose_user(self, request: HttpRequest) -> NotAuthenticated:
        """The row of a user who was taken to be there is gone, or says no: as above, but late."""
        self.session = self.user = None
        self.without_user = True
        error = NotAuthenticated()
        setattr(request, _FAILURE, error)
        return error


def _new_mark(request: HttpRequest) -> str | None:
    """The mark of what Django's update_session_auth_hash has left in request.session."""
    if not settings.IS_ENGINE:
        return None
    session = getattr(request, "session", None)
    return mark_of_login(getattr(session, "_session_cache", {}))


def django_request(request: HttpRequest | Request) -> HttpRequest:
    """Django's request, which the middleware sees, inside of DRF's."""
    return request._request if isinstance(request, Request) else request


def known_lookup(request: HttpRequest) -> Lookup | None:
    """What is known by now, or None; what was rolled back leaves what was known before it."""
    lookups: list[Lookup] | None = request.__dict__.get(_ATTRIBUTE)
    if lookups is None:
        return None
    while lookups and lookups[-1].outcome is not None and lookups[-1].outcome.rolled_back:
        lookups.pop()
    return lookups[-1] if lookups else None


def current_token(request: HttpRequest) -> str | None:
    """The token of the session that the request has now: one made during it, or the cookie's."""
    lookup = known_lookup(request)
    created = lookup.created if lookup else None
    if created is None or created.token is None:
        return token_from(request)
    # The proof covers the device, and not the token.
    return proved(request, created.token)


def remember_lookup(request: HttpRequest, lookup: Lookup) -> None:
    note_session_use(request, found=lookup.row is not None)
    request.__dict__.setdefault(_ATTRIBUTE, []).append(lookup)


def lacks_proof(request: HttpRequest) -> bool:
    """Whether the request's session lives, and only the proof of its device is missing.

    Asked where nothing was found, so that whoever has a session does not pay for it.
    """
    lookup = known_lookup(request)
    if lookup is None or lookup.row is not None or lookup.token is None:
        return False
    if settings.DEVICE_BOUND == "off":
        return False
    if lookup.unproved is None:
        lookup.unproved = session_service.device(lookup.token) is not None
    return lookup.unproved


def look_up(request: HttpRequest) -> Lookup:
    """Find the session of a request and its user; StoreUnavailable leaves no outcome."""
    try:
        return _look_up(request).find_user(request)
    except StoreUnavailable as error:
        setattr(request, _FAILURE, error)
        raise


def look_up_row(request: HttpRequest) -> Lookup:
    """Find the session of a request, whoever its user is."""
    try:
        return _look_up(request)
    except StoreUnavailable as error:
        setattr(request, _FAILURE, error)
        raise


def failure(request: HttpRequest) -> StoreUnavailable | NotAuthenticated | None:
    """Why a look-up of the request's, or of its user's row, has failed."""
    return getattr(request, _FAILURE, None)


def _look_up(request: HttpRequest) -> Lookup:
    lookup = known_lookup(request)
    if lookup is not None:
        return lookup
    token = token_from(request)
    session = None
    created = None
    outcome = None
    # What may change something is not done for a session that the primary has ended.
    fresh = request.method not in SAFE_METHODS
    if token is not None:
        session = session_service.get(
            token, ip=client_ip(request), user_agent=user_agent(request), fresh=fresh
        )
        note_skipped(request, token, session)
    overdue = session is not None and session.device_policy is not None and is_overdue(session)
    if overdue:
        session = None
    own = None
    if session is not None and session.actor is not None:
        # A use of the actor's own session too, which would else come to its idle timeout.
        own = session_service.get(
            actor_token_from(request),
            ip=client_ip(request),
            user_agent=user_agent(request),
            fresh=fresh,
        )
        if own is not None and is_overdue(own):
            session, overdue = None, True
    if (
        session is None
        and settings.IMPORT_DJANGO_SESSIONS
        and not overdue
        and not keeps_token(request)
    ):
        from .importing import adopt_django_session

        with translating_errors():
            adopted = adopt_django_session(request)
        if adopted is not None:
            session, created = adopted
    if created is not None:
        outcome = set_cookie_on_commit(request, created, persistent=True)
        if session is not None and created.token is not None:
            offer_binding(request, created.token, session)
    elif session is None and (raw := token_bytes(token)) and changed_here(raw):
        outcome = Outcome(bucket_of_bytes(raw))
    lookup = Lookup(token, session, created, outcome, own=own, binding_overdue=overdue)
    remember_lookup(request, lookup)
    return lookup


async def alook_up(request: HttpRequest) -> Lookup:
    """look_up for asynchronous code."""
    lookup = known_lookup(request)
    if lookup is not None and (lookup.session is None or lookup.user is not None):
        return lookup
    return await sync_to_async(look_up)(request)


def set_user(request: HttpRequest) -> None:
    """Let ``user`` and ``auser`` be the session's user; without one, whom others have found."""
    from django.contrib.auth.models import AnonymousUser

    others = request.__dict__.setdefault(
        _OTHERS, (getattr(request, "user", None), getattr(request, "auser", None))
    )
    other, aother = others

    def find() -> Any:
        user = look_up(request).user
        if user is None:
            user = AnonymousUser() if other is None else other
        return user

    async def afind() -> Any:
        user = (await alook_up(request)).user
        if isinstance(user, LazyUser):
            # What is read of it next must not need the database.
            user = await sync_to_async(user.load)()
        if user is None and aother is not None:
            user = await aother()
        elif user is None and other is not None:
            # Before Django 5.0 there is no auser.  Looked at here, as that may ask the database.
            await sync_to_async(lambda: other.is_authenticated)()
            user = other
        elif user is None:
            user = AnonymousUser()
        return user

    request.user = SimpleLazyObject(find)  # type: ignore[assignment]
    request.auser = afind


def renew_user(request: HttpRequest) -> None:
    """After a login or a logout, if AuthenticationMiddleware is in use."""
    if _OTHERS in request.__dict__:
        set_user(request)
