"""The session endpoints.

In this order for every request: CSRF, whether its session has used its share up, authentication,
counting (throttling.py).  What is refused early costs no look-up.  The views run outside of
ATOMIC_REQUESTS: a replay that a refresh finds must end the session whatever becomes of the
response.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, NoReturn, cast
from urllib.parse import urlencode

from django.db import transaction
from django.http import HttpRequest
from django.urls import reverse
from rest_framework import status
from rest_framework.exceptions import (
    NotAuthenticated,
    NotFound,
    ParseError,
    PermissionDenied,
    Throttled,
    UnsupportedMediaType,
)
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from ..api_exceptions import exception_handler
from ..authentication import SessionAuthentication
from ..conf import settings
from ..http.addresses import client_ip, user_agent
from ..http.bearer import challenge, keeps_token, refuse_bearer
from ..http.cache_control import forbid_caching
from ..http.cookie_decision import (
    clear_cookie_on_commit,
    set_cookie_on_commit,
    write_cookie,
)
from ..http.cookies import token_from
from ..http.csrf import enforce_csrf, is_token_new, offer_token
from ..http.device import is_overdue, offer_again, offer_binding
from ..http.lookup import Lookup, django_request, known_lookup, remember_lookup
from ..login import leave_ended, log_in, log_out, stop_impersonation, switch_tenant
from ..login_policy import decide_login, decide_tenant, proof_of, refuse_protected
from ..services import session_service
from ..store.shards import all_aliases
from ..store.tokens import session_id_of
from ..store.transactions import keeping_block
from ..store.users import load_user, marked, user_id_of
from ..types import Session
from .access_tokens import authenticate_header, verify_access_token
from .errors import (
    DeviceBindingRequired,
    DeviceProofRequired,
    PreconditionFailed,
    TokenReplaced,
    TokenReused,
)
from .parsers import LimitedJSONParser, MergePatchParser
from .profiles import describe_user
from .serializers import (
    CreateRequestSerializer,
    InvalidateAllRequestSerializer,
    IssuedSerializer,
    ListQuerySerializer,
    RefreshRequestSerializer,
    RefreshResponseSerializer,
    SessionListSerializer,
    SwitchTenantRequestSerializer,
)
from .throttling import Limit, address_limit


class JSONAlone(DefaultContentNegotiation):
    """JSON, whatever Accept or ``?format=`` ask for: there is nothing else to choose."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> Any:
        return renderers[0], renderers[0].media_type


def _refuse_what_is_not_read(request: HttpRequest) -> None:
    """A body that would be taken for an empty one.

    Django's check against CSRF uses up a form's that has files, before any parser sees it, and DRF
    reads none whose length it is not told.
    """
    if request.method not in ("POST", "PATCH"):
        return
    if request.content_type == "multipart/form-data":
        raise UnsupportedMediaType(request.content_type)
    has_length = bool(request.META.get("CONTENT_LENGTH"))
    if not has_length and (request.META.get("HTTP_TRANSFER_ENCODING") or request.body):
        raise ParseError("The body has no Content-Length.")


class SessionView(APIView):
    """What the endpoints have in common."""

    authentication_classes = [SessionAuthentication]
    permission_classes = [IsAuthenticated]
    parser_classes = [LimitedJSONParser]
    renderer_classes = [JSONRenderer]
    content_negotiation_class = JSONAlone
    #: Whether it is known for whom the request counts: else what is refused is junk.
    counted = False

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        view = super().as_view(**initkwargs)
        for alias in all_aliases():
            view = transaction.non_atomic_requests(using=alias)(view)
        return view

    def get_exception_handler(self) -> Any:
        return exception_handler

    def session_limit(self, request: Request, session_id: uuid.UUID) -> Limit:
        """The rate of a session for this request."""
        name = "read" if request.method in ("GET", "HEAD", "OPTIONS") else "write"
        return Limit(name, str(session_id))

    def perform_authentication(self, request: Request) -> None:
        _refuse_what_is_not_read(request._request)
        refuse_bearer(request._request)
        enforce_csrf(request._request)
        token = token_from(request._request)
        if token is not None:
            self.session_limit(request, session_id_of(token)).check()
        super().perform_authentication(request)

    def check_throttles(self, request: Request) -> None:
        """After authentication: for the session whose token was right."""
        lookup = known_lookup(request._request)
        if lookup is not None and lookup.session is not None:
            self.count_for(self.session_limit(request, lookup.session.id))

    def count_for(self, *limits: Limit) -> None:
        """It is known whose the request is: count it for them."""
        self.counted = True
        for limit in limits:
            limit.count()

    def handle_exception(self, exc: Exception) -> Response:
        status_code = getattr(exc, "status_code", 500)
        if not self.counted and 400 <= status_code < 500 and not isinstance(exc, Throttled):
            try:
                address_limit("junk", django_request(self.request)).spend()
            except Throttled as throttled:
                exc = throttled
        # With ATOMIC_REQUESTS DRF would roll back what is not the endpoint's, as a test's.
        with keeping_block():
            return super().handle_exception(exc)

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        forbid_caching(response)
        write_cookie(django_request(request), response)
        if isinstance(request, Request) and (
            request.method == "GET" or is_token_new(request._request)
        ):
            offer_token(request._request, response)
        return response

    def session_response(
        self,
        request: Request,
        session: Session,
        code: int = status.HTTP_200_OK,
        *,
        token: str | None = None,
        **more: Any,
    ) -> Response:
        """The session, its user and the server's clock; a new token for who keeps it itself."""
        body = {
            "session": session,
            "user": describe_user(request.user, session),
            "server_time": datetime.now(timezone.utc),
            **more,
        }
        if token is not None and keeps_token(request._request):
            body["token"] = token
        serializer = RefreshResponseSerializer if more else IssuedSerializer
        response = Response(serializer(body).data, code)
        response["ETag"] = f'"{session.version}"'
        return response


class CreateSessionView(SessionView):
    """POST: a session for an access token."""

    authentication_classes = []
    permission_classes = []

    def session_limit(self, request: Request, session_id: uuid.UUID) -> Limit:
        # A session that is presented will end: the new one counts.
        return Limit("create", None)

    def get_authenticate_header(self, request: Request) -> str:
        return authenticate_header(request)

    def post(self, request: Request) -> Response:
        body = _validated(CreateRequestSerializer, request.data)
        verified = verify_access_token(request, body.get("access_token"))
        limits = (
            Limit("create", verified.user_id),
            address_limit("create_address", request._request),
        )
        for limit in limits:
            limit.check()
        self.count_for(*limits)
        decision = decide_login(request, verified, body)
        # Before the session is made: without a user it would be of no use.
        user = load_user(decision.user_id)
        if user is None:
            raise PermissionDenied("The user does not exist.", "user_not_found")
        created = log_in(
            request._request,
            # The user's own spelling of it, by which the sessions end with the user.
            decision.user_id if settings.USER_LOADER else user_id_of(user),
            decision.data,
            tenant_id=decision.tenant_id,
            auth=marked(proof_of(verified), user),
            remember=decision.remember,
            device_bound=decision.device_bound,
        )
        request.user = user
        return self.session_response(
            request, _session(request), status.HTTP_201_CREATED, token=created.token
        )


class CurrentSessionView(SessionView):
    """GET, PATCH and DELETE of the request's session."""

    parser_classes = [LimitedJSONParser, MergePatchParser]

    def get_permissions(self) -> Any:
        # Signing out is answered whether or not anybody is signed in.
        return [] if self.request.method == "DELETE" else super().get_permissions()

    def get_authenticators(self) -> Any:
        # Signing out needs no user, and a user who is gone must be able to.
        method = self.request.method if self.request else None
        return [] if method == "DELETE" else super().get_authenticators()

    def session_limit(self, request: Request, session_id: uuid.UUID) -> Limit:
        if request.method == "DELETE":
            # A session ends once.
            return Limit("write", None)
        return super().session_limit(request, session_id)

    def get(self, request: Request) -> Response:
        session = _session(request)
        offer_again(request._request, token_from(request._request), session)
        return self.session_response(request, session)

    def patch(self, request: Request) -> Response:
        session = _session(request)
        patch = cast("dict[str, Any]", request.data)
        refuse_protected(patch)
        updated = session_service.update(
            token_from(request._request),
            patch,
            expected_version=_expected_version(request, session),
        )
        if updated is None:
            _refuse(request)
        session = replace(session, version=updated.version, data=updated.data)
        return self.session_response(request, session)

    def delete(self, request: Request) -> Response:
        token = token_from(request._request)
        if not log_out(request._request):
            address_limit("junk", request._request).spend()
        # Whatever is in it, and whether or not it was a session's.
        clear_cookie_on_commit(request._request, token)
        return Response(status=status.HTTP_204_NO_CONTENT)


class RefreshSessionView(SessionView):
    """POST: extend the session, by default with a new token."""

    # The refresh itself authenticates: a replaced token must reach it.
    authentication_classes = []
    permission_classes = []

    def session_limit(self, request: Request, session_id: uuid.UUID) -> Limit:
        return Limit("refresh", str(session_id))

    def get_authenticate_header(self, request: Request) -> str:
        return challenge(request._request)

    def post(self, request: Request) -> Response:
        body = _validated(RefreshRequestSerializer, request.data)
        token = token_from(request._request)
        if token is None:
            raise NotAuthenticated
        refreshed = session_service.refresh(
            token,
            rotate=body.get("rotate", settings.ROTATE_ON_REFRESH),
            ip=client_ip(request._request),
            user_agent=user_agent(request._request),
            with_session=True,
        )
        session = refreshed.session
        if refreshed.status == "proof_required":
            _refuse(request, DeviceProofRequired)
        if session is not None and is_overdue(session):
            _refuse(request, DeviceBindingRequired)
        if session is None:
            _refuse(request, TokenReused if refreshed.status == "reused" else NotAuthenticated)
        self.count_for(self.session_limit(request, session.id))
        user = load_user(session.user_id, session)
        if user is None:
            _refuse(request)
        request.user = user
        remember_lookup(request._request, Lookup(token, session))
        if refreshed.token is not None:
            set_cookie_on_commit(request._request, refreshed, persistent=session.persistent)
            offer_binding(request._request, refreshed.token, session)
        return self.session_response(
            request, session, token=refreshed.token, status=refreshed.status
        )


class SwitchTenantView(SessionView):
    """POST: go on in another tenant, with a new session; the old one ends."""

    def post(self, request: Request) -> Response:
        session = _session(request)
        # A new session for each: they have the user in common.
        Limit("write", f"user {session.user_id}").spend()
        tenant_id = _validated(SwitchTenantRequestSerializer, request.data)["tenant_id"]
        data = decide_tenant(request, session, tenant_id)
        switched = switch_tenant(request._request, tenant_id, data)
        if switched.status == "already_rotated":
            raise TokenReplaced
        if switched.token is None:
            _refuse(request)
        return self.session_response(request, _session(request), token=switched.token)


class ImpersonationView(SessionView):
    """DELETE: return from acting as somebody else."""

    # The session of the impersonation may have ended: the way back stays open.
    authentication_classes = []
    permission_classes = []

    def get_authenticate_header(self, request: Request) -> str:
        return challenge(request._request)

    def delete(self, request: Request) -> Response:
        session = stop_impersonation(request._request)
        if session is None:
            _refuse(request)
        user = load_user(session.user_id, session)
        if user is None:
            _refuse(request)
        self.count_for(self.session_limit(request, session.id))
        request.user = user
        return self.session_response(request, session)


class SessionListView(SessionView):
    """GET: the user's sessions, newest first."""

    def get(self, request: Request) -> Response:
        query = _validated(ListQuerySerializer, request.query_params)
        limit = query["limit"]
        found = session_service.list(
            _session(request).user_id,
            current_token=token_from(request._request),
            after=query.get("after"),
            max_rows=limit + 1,
        )
        page = found[:limit]
        following = None
        if len(found) > limit:
            arguments = urlencode({"after": page[-1].id, "limit": limit})
            following = f"{reverse('session_manager:list')}?{arguments}"
        return Response(SessionListSerializer({"results": page, "next": following}).data)


class SessionDetailView(SessionView):
    """DELETE: end one of the user's sessions."""

    def delete(self, request: Request, session_id: str | uuid.UUID) -> Response:
        session = _session(request)
        session_id = _uuid(session_id)
        if not session_service.invalidate_id(session_id, session.user_id, "revoked_by_user"):
            raise NotFound
        if session_id == session.id:
            leave_ended(request._request, "revoked_by_user")
        return Response(status=status.HTTP_204_NO_CONTENT)


class InvalidateAllView(SessionView):
    """POST: sign out everywhere, or everywhere else."""

    def post(self, request: Request) -> Response:
        body = _validated(InvalidateAllRequestSerializer, request.data)
        spare = body["except_current"]
        count = session_service.invalidate_all(
            _session(request).user_id,
            except_token=token_from(request._request) if spare else None,
        )
        if not spare:
            leave_ended(request._request, "logout_all")
        return Response({"invalidated": count})


def _validated(serializer: type[Serializer[Any]], data: Any) -> dict[str, Any]:
    """The validated values; 400 with one message otherwise."""
    checked = serializer(data=data)
    if not checked.is_valid():
        name, errors = next(iter(checked.errors.items()))
        message = errors[0] if isinstance(errors, list) else errors
        raise ParseError(f"{name}: {message}", "invalid")
    return dict(checked.validated_data)


def _uuid(text: str | uuid.UUID) -> uuid.UUID:
    """A session's id from the path; 404 for what is none."""
    try:
        return uuid.UUID(str(text))
    except ValueError:
        raise NotFound from None


def _session(request: Request) -> Session:
    """The session of a request that has passed permission checks."""
    lookup = known_lookup(request._request)
    if lookup is None or lookup.session is None:
        raise NotAuthenticated
    return lookup.session


def _refuse(request: Request, error: type[NotAuthenticated] = NotAuthenticated) -> NoReturn:
    """401: the database has said that the cookie's session has ended."""
    remember_lookup(request._request, Lookup(token_from(request._request), None))
    raise error


def _expected_version(request: Request, session: Session) -> int | None:
    """The version that If-Match asks for; 412 if it names none that could match."""
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    # Weak tags never match here (RFC 9110, section 13.1.1).
    versions = [int(number) for number in re.findall(r'(?<!W/)"(\d{1,9})"', header)]
    if not versions:
        raise PreconditionFailed
    return session.version if session.version in versions else versions[0]
