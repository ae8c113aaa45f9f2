"""SessionMiddleware: ``request.session_info``, found when it is first used.

    if request.session_info:
        plan = request.session_info.data.get("plan")

In asynchronous views: ``session = await request.asession_info()``.  It is not Django's
``request.session``; both can be there.  A request that does not look at it costs nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.db import Error, connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.functional import SimpleLazyObject
from rest_framework import status
from rest_framework.exceptions import APIException, NotAuthenticated
from rest_framework.renderers import JSONRenderer

from .api.errors import ServiceUnavailable, as_api_exception, body_of
from .api.refusals import explain_refusal
from .conf import settings
from .exceptions import DataCorrupt, SessionError
from .http.cache_control import NEVER, write_cache_headers
from .http.cookie_decision import write_cookie
from .http.lookup import alook_up, failure, look_up, set_user
from .store.database import is_lost, translate
from .types import NoSession, Session

GetResponse = Callable[[HttpRequest], Any]


def refusal(exc: APIException) -> HttpResponse:
    """What the session endpoints would answer; a 503 leaves the cookie alone."""
    response = HttpResponse(
        JSONRenderer().render(body_of(exc)),
        status=exc.status_code,
        content_type="application/json",
        headers={"Cache-Control": NEVER},
    )
    if exc.status_code == status.HTTP_401_UNAUTHORIZED:
        response["WWW-Authenticate"] = 'Session realm="api"'
    if isinstance(exc, ServiceUnavailable):
        response["Retry-After"] = str(exc.wait)
    return response


def _translated(exception: Exception) -> Exception:
    """StoreUnavailable if ATOMIC_REQUESTS could not begin or end a transaction.

    Django raises that around the view, in the place of the view's own answer.  The error has to
    tell: by now Django has connected anew.
    """
    atomic = connections[settings.DATABASE].settings_dict["ATOMIC_REQUESTS"]
    if atomic and isinstance(exception, Error) and is_lost(exception):
        return translate(exception)
    return exception


class SessionMiddleware:
    """Give requests ``session_info`` and ``asession_info``; keep the cookie in step."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.asynchronous = iscoroutinefunction(get_response)
        if self.asynchronous:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.asynchronous:
            return self.__acall__(request)
        self.process_request(request)
        return self.process_response(request, cast(HttpResponseBase, self.get_response(request)))

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        self.process_request(request)
        return self.process_response(request, await self.get_response(request))

    def process_request(self, request: HttpRequest) -> None:
        def find() -> Session | NoSession:
            return look_up(request).session or NoSession()

        async def afind() -> Session | NoSession:
            return (await alook_up(request)).session or NoSession()

        request.session_info = SimpleLazyObject(find)  # type: ignore[attr-defined]
        request.asession_info = afind  # type: ignore[attr-defined]

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        error = explain_refusal(_translated(exception), request)
        if isinstance(error, NotAuthenticated):
            return refusal(error)
        # DataCorrupt is Django's own 500, which it logs and reports.
        if isinstance(error, SessionError) and not isinstance(error, DataCorrupt):
            return refusal(as_api_exception(error))
        return None

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        unavailable = failure(request)
        if response.status_code == status.HTTP_500_INTERNAL_SERVER_ERROR and unavailable:
            # Other middleware looked at the session, or the user; Django asks no process_exception
            # about what that raises.
            response = refusal(as_api_exception(unavailable))
        write_cookie(request, response)
        write_cache_headers(request, response)
        return response


class AuthenticationMiddleware:
    """``request.user`` and ``request.auser`` of the session, found when they are first used.

    Put it after SessionMiddleware, and after Django's AuthenticationMiddleware where that is in
    use: without a session of ours the user is whom that has found, else anonymous.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        set_user(request)
        return self.get_response(request)
