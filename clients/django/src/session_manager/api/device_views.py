"""The endpoints by which a browser binds a session to its device, and renews the proof of it.

Browsers call them on their own account (Device Bound Session Credentials).  No CSRF check is made:
what a request does is signed by the device, over a challenge that was made for the session.  They
are for the session cookie alone; a client that keeps its token itself has none for the proof.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from django.http import HttpRequest
from django.urls import reverse
from rest_framework import status
from rest_framework.exceptions import APIException, NotAuthenticated, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from ..conf import settings
from ..exceptions import InvalidArgument
from ..http.addresses import client_ip, user_agent
from ..http.bearer import BearerRefused, challenge
from ..http.cookie_decision import (
    clear_proof,
    set_cookie_on_commit,
    set_proof_on_commit,
    set_token_on_commit,
)
from ..http.cookies import actor_token_from, proof_attributes, proved, token_from
from ..http.device import hand_out_challenge, is_news, may_bind, offer_nothing
from ..http.exact_cookies import cookie_of
from ..http.lookup import Lookup, look_up, remember_lookup
from ..http.request_session import request_session
from ..services import session_service
from ..store.tokens import is_bare_token, session_id_of
from ..types import BoundDevice, Device, Session
from .device_answers import (
    MalformedAnswerError,
    WrongSignatureError,
    registration,
    renewal,
    text_of_item,
)
from .errors import (
    DeviceAlreadyBound,
    DeviceAnswerInvalid,
    DeviceChallenged,
    TokenReplaced,
    body_of,
)
from .throttling import Limit
from .views import SessionView

_ANSWER = "Secure-Session-Response"
_BINDING = "Sec-Secure-Session-Id"


class DeviceView(SessionView):
    """What the two have in common."""

    # They ask who it is on their own: the session may want a proof, which is what they are for.
    authentication_classes = []
    permission_classes = []

    def session_limit(self, request: Request, session_id: uuid.UUID) -> Limit:
        return Limit("refresh", str(session_id))

    def get_authenticate_header(self, request: Request) -> str:
        return challenge(request._request)

    def perform_authentication(self, request: Request) -> None:
        """No CSRF check, see above."""
        offer_nothing(request._request)

    def check_throttles(self, request: Request) -> None:
        """They count as soon as they know whose request it is."""

    def instructions(self, request: Request, binding_id: uuid.UUID) -> Response:
        """What the browser has to know of the binding."""
        scheme = "https" if settings.cookie_secure else request.scheme
        return Response(
            {
                "session_identifier": str(binding_id),
                "refresh_url": reverse("session_manager:device-refresh"),
                "scope": {
                    "origin": f"{scheme}://{request.get_host()}",
                    "include_site": False,
                    "scope_specification": [],
                },
                "credentials": [
                    {
                        "type": "cookie",
                        "name": settings.device_cookie_name,
                        "attributes": proof_attributes(),
                    }
                ],
            }
        )


class RegisterDeviceView(DeviceView):
    """POST: bind the session to the key that has signed the challenge."""

    def perform_authentication(self, request: Request) -> None:
        super().perform_authentication(request)
        token = _cookie_token(request._request)
        if token is not None:
            self.session_limit(request, session_id_of(token)).check()

    def post(self, request: Request) -> Response:
        http_request = request._request
        token = _cookie_token(http_request)
        if token is None:
            if settings.cookie_name not in http_request.COOKIES and token_from(http_request):
                raise BearerRefused("A session is bound to a device by its cookie alone.")
            raise NotAuthenticated
        session = look_up(http_request).session
        if session is None:
            raise NotAuthenticated
        self.count_for(self.session_limit(request, session.id))
        if session.device_bound:
            raise DeviceAlreadyBound
        if not may_bind(http_request, session):
            raise PermissionDenied(
                "The session is not to be bound to a device.", "device_binding_off"
            )
        try:
            answer = registration(request.headers.get(_ANSWER, ""))
            bound = session_service.bind_device(
                token,
                answer.key,
                answer.challenge,
                ip=client_ip(http_request),
                user_agent=user_agent(http_request),
            )
        except (MalformedAnswerError, WrongSignatureError, InvalidArgument) as error:
            raise DeviceAnswerInvalid from error
        return self._answer(request, token, session, bound)

    def _answer(
        self, request: Request, token: str, session: Session, bound: BoundDevice
    ) -> Response:
        http_request = request._request
        refusals: dict[str, type[APIException]] = {
            "already_bound": DeviceAlreadyBound,
            "already_rotated": TokenReplaced,
            "bad_challenge": DeviceChallenged,
        }
        if (
            bound.token is None
            or bound.binding_id is None
            or bound.proof is None
            or bound.proof_expires_at is None
        ):
            if bound.status == "ended":
                remember_lookup(http_request, Lookup(token, None))
            raise refusals.get(bound.status, NotAuthenticated)
        _give_token(http_request, bound.token, session)
        set_proof_on_commit(http_request, bound.token, bound.proof, bound.proof_expires_at)
        hand_out_challenge(http_request, bound.token, bound.binding_id)
        return self.instructions(request, bound.binding_id)


class RefreshDeviceView(DeviceView):
    """POST: a new proof for the answer to a challenge, or a challenge.

    Not throttled by session: browsers give a binding up at a 429, so that a thief who has the
    cookie could take it from the owner.
    """

    def post(self, request: Request) -> Response:
        binding = text_of_item(request.headers.get(_BINDING, ""))
        try:
            binding_id = uuid.UUID(binding)
        except ValueError:
            raise DeviceAnswerInvalid("The request does not say which binding it is for.") from None
        http_request = request._request
        token, device, others = _find(http_request, binding_id)
        if token is None or device is None:
            if not others:
                clear_proof(http_request)
            return self._over(request, binding_id)
        given = request.headers.get(_ANSWER)
        if given is None:
            return self._challenged(request, token, device)
        try:
            answer = renewal(given, device.key)
        except MalformedAnswerError as error:
            raise DeviceAnswerInvalid from error
        except WrongSignatureError as error:
            # Whoever has the cookie can send any number.
            if is_news(f"session_manager.signature.{device.session_id}"):
                session_service.report_device(
                    token,
                    False,
                    "signature",
                    ip=client_ip(http_request),
                    user_agent=user_agent(http_request),
                )
            raise DeviceAnswerInvalid from error
        proved = session_service.prove_device(token, answer.challenge)
        if proved.status == "bad_challenge":
            return self._challenged(request, token, device)
        if proved.proof is None or proved.proof_expires_at is None:
            clear_proof(http_request)
            return self._over(request, binding_id)
        set_proof_on_commit(http_request, token, proved.proof, proved.proof_expires_at)
        # Ahead of time, which saves the browser the next request without an answer.
        hand_out_challenge(http_request, token, binding_id)
        return self.instructions(request, binding_id)

    def _over(self, request: Request, binding_id: uuid.UUID) -> Response:
        """The browser may forget the binding."""
        return Response({"session_identifier": str(binding_id), "continue": False})

    def _challenged(self, request: Request, token: str, device: Device) -> Response:
        hand_out_challenge(request._request, token, device.binding_id)
        return Response(body_of(DeviceChallenged()), status.HTTP_403_FORBIDDEN)


def _cookie_token(request: HttpRequest) -> str | None:
    """The token in the cookie, and no other."""
    value = cookie_of(request, settings.cookie_name)
    return proved(request, value) if is_bare_token(value) else None


def _find(request: HttpRequest, binding_id: uuid.UUID) -> tuple[str | None, Device | None, bool]:
    """The token and device of a binding, and whether the browser has another one that lives.

    While somebody acts as another user their own session is beside it, and goes on being proved.
    """
    others = False
    for token in (_cookie_token(request), actor_token_from(request)):
        device = None if token is None else session_service.device(token)
        if device is not None and device.binding_id == binding_id:
            return token, device, others
        others = others or device is not None
    return None, None, others


def _give_token(request: HttpRequest, token: str, session: Session) -> None:
    """Let the browser have the session's new token, for as long as it had the one before."""
    store = request_session(request)
    if store is not None:
        set_token_on_commit(request, token, store.cookie_age())
        return
    issued = _Replaced(token, session.absolute_expires_at)
    set_cookie_on_commit(request, issued, persistent=session.persistent)


@dataclass(frozen=True)
class _Replaced:
    """The session with its new token, as a cookie needs it."""

    token: str
    absolute_expires_at: datetime
