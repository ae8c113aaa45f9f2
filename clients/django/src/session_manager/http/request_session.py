"""request.session beside the rest of a request: one session, one look-up, one cookie."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.functional import LazyObject

from ..backends.sessions import Client, Issued, SessionStore
from ..conf import settings
from ..services import session_service
from ..store.shards import bucket_of_token
from ..store.transactions import Outcome
from ..types import DevicePolicy, Session
from .addresses import client_ip, user_agent
from .bearer import refuse_new_token, token_of_header
from .cache_control import note_session_use
from .cookie_decision import clear_cookie_on_commit
from .cookies import proved
from .device import offer_binding, policy_of_login
from .exact_cookies import cookie_of
from .impersonation import sign_out_actor
from .lookup import Lookup, look_up_row, remember_lookup


class RequestHolder:
    """What a store asks a request, and tells it."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @property
    def client(self) -> Client:
        return client_ip(self._request), user_agent(self._request)

    @property
    def user(self) -> Any:
        user = self._request.__dict__.get("user")
        # Finding out who it is would ask for the session.
        return None if isinstance(user, LazyObject) else user

    def find(self, token: str) -> tuple[str, Session | None]:
        request = self._request
        presented = cookie_of(request, settings.cookie_name)
        if token != presented and (presented is not None or token != token_of_header(request)):
            note_session_use(request)
            ip, agent = self.client
            found = session_service.get(proved(request, token), ip=ip, user_agent=agent, fresh=True)
            return token, found
        lookup = look_up_row(request)
        created = lookup.created.token if lookup.created is not None else None
        return created or token, lookup.row

    def proved(self, token: str) -> str:
        return proved(self._request, token)

    def device_policy(self, user_id: str) -> DevicePolicy | None:
        return policy_of_login(self._request, user_id)

    def expects_token(self) -> None:
        refuse_new_token(self._request)

    def signs_in(self) -> None:
        # The new user must not get back to the session of who has impersonated others here.
        sign_out_actor(self._request, "replaced")

    def renewed(self, issued: Issued, session: Session) -> None:
        outcome = Outcome(bucket_of_token(issued.token))
        remember_lookup(self._request, Lookup(issued.token, session, issued, outcome))
        if issued.token is not None:
            offer_binding(self._request, issued.token, session)

    def ended(self, token: str | None) -> None:
        sign_out_actor(self._request, "logout")
        if settings.cookie_name in self._request.COOKIES:
            outcome = clear_cookie_on_commit(self._request, token)
        else:
            outcome = Outcome(bucket_of_token(token))
        remember_lookup(self._request, Lookup(token, None, outcome=outcome))


def hold(request: HttpRequest) -> None:
    """Let the store in ``request.session`` know the request."""
    session = request.session
    if isinstance(session, SessionStore):
        token = token_of_header(request)
        if token is not None:
            request.session = session = type(session)(token)
        session.hold(RequestHolder(request))


def request_session(request: HttpRequest) -> SessionStore | None:
    """``request.session``, where it is this package's."""
    session = getattr(request, "session", None)
    return session if isinstance(session, SessionStore) else None
