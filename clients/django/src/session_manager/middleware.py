"""Middleware: ``request.session_info``, ``request.user`` and ``request.session``.

    if request.session_info:
        plan = request.session_info.data.get("plan")

In asynchronous views: ``session = await request.asession_info()``.  It is found when it is first
used; a request that does not look at it costs nothing.  Django's ``request.session`` is another
session, unless SESSION_ENGINE is this package's: then it is the same one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.db import Error, connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.functional import SimpleLazyObject
from rest_framework import status
from rest_framework.exceptions import APIException, NotAuthenticated
from rest_framework.renderers import JSONRenderer

from .api.errors import DeviceProofRequired, ServiceUnavailable, as_api_exception, body_of
from .api.refusals import explain_refusal
from .backends.sessions import SessionStore
from .conf import settings
from .exceptions import DataCorrupt, SessionError
from .http.bearer import BearerRefused, challenge, is_without_cookies, token_of_header
from .http.cache_control import NEVER, note_session_use, write_cache_headers
from .http.cookie_decision import set_token_on_commit, write_cookie, written_token
from .http.cookies import is_foreign_navigation, is_own_navigation, token_from, will_prove
from .http.csrf import withhold_token
from .http.current import begin_serving, being_served, end_serving
from .http.device import offer_again
from .http.exact_cookies import cookie_of
from .http.lookup import (
    alook_up,
    failure,
    known_lookup,
    lacks_proof,
    look_up,
    look_up_row,
    set_user,
)
from .http.request_session import hold, request_session
from .http.spared import end_spared, ending_spared, has_spared
from .store.database import is_lost, translate
from .store.shards import all_aliases
from .types import NoSession, Session

GetResponse = Callable[[HttpRequest], Any]


def refusal(exc: APIException, request: HttpRequest) -> HttpResponse:
    """What the session endpoints would answer; a 503 leaves the cookie alone."""
    response = HttpResponse(
        JSONRenderer().render(body_of(exc)),
        status=exc.status_code,
        content_type="application/json",
        headers={"Cache-Control": NEVER},
    )
    if exc.status_code == status.HTTP_401_UNAUTHORIZED:
        response["WWW-Authenticate"] = challenge(request)
    if isinstance(exc, ServiceUnavailable):
        response["Retry-After"] = str(exc.wait)
    return response


def _translated(exception: Exception) -> Exception:
    """StoreUnavailable if ATOMIC_REQUESTS could not begin or end a transaction.

    Django raises that around the view, in the place of the view's own answer.  The error has to
    tell: by now Django has connected again.
    """
    atomic = any(connections[alias].settings_dict["ATOMIC_REQUESTS"] for alias in all_aliases())
    if atomic and isinstance(exception, Error) and is_lost(exception):
        return translate(exception)
    return exception


def _answer(request: HttpRequest, exception: Exception) -> HttpResponse | None:
    """The answer to an exception of this package's that nobody has caught."""
    error = explain_refusal(_translated(exception), request)
    if isinstance(error, (NotAuthenticated, BearerRefused)):
        return refusal(error, request)
    # DataCorrupt is Django's own 500, which it logs and reports.
    if isinstance(error, SessionError) and not isinstance(error, DataCorrupt):
        return refusal(as_api_exception(error), request)
    return None


def _finished(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """The response with its cookie and its headers for caches."""
    if response.status_code == status.HTTP_500_INTERNAL_SERVER_ERROR:
        error = failure(request)
        if error is not None:
            # Other middleware looked at the session, or the user; Django asks no
            # process_exception about what that raises.
            response = _answer(request, error) or response
    if settings.DEVICE_BOUND != "off":
        response = _with_device(request, response)
    write_cookie(request, response)
    if settings.BEARER:
        withhold_token(request, response)
    write_cache_headers(request, response)
    return response


def _unproved_page(request: HttpRequest) -> HttpResponse | None:
    """The answer to a user who comes by a foreign link, for which no browser waits for a proof.

    Before the view, which would see nobody, and use up what the link is for.  The page loads itself
    from itself; for that the browser proves its device first, and the user is who they were.
    """
    if settings.DEVICE_BOUND == "off" or not is_foreign_navigation(request):
        return None
    proof = cookie_of(request, settings.device_cookie_name)
    if proof is not None or token_from(request) is None:
        return None
    try:
        look_up_row(request)
        if not lacks_proof(request):
            return None
    except SessionError:
        # The view may need no session.
        return None
    response = refusal(DeviceProofRequired(), request)
    response["Refresh"] = "0"
    return response


async def _aunproved_page(request: HttpRequest) -> HttpResponse | None:
    if settings.DEVICE_BOUND == "off" or not is_foreign_navigation(request):
        return None
    return await sync_to_async(_unproved_page)(request)


def _with_device(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """What a session that may be bound to a device has to do with the response."""
    lookup = known_lookup(request)
    if lookup is None:
        return response
    # Not with everything that a page loads: a browser signs a few times only.
    if is_own_navigation(request):
        offer_again(request, lookup.token, lookup.session)
    return response


def _asks(request: HttpRequest) -> bool:
    """Whether to finish a response may take the database."""
    return settings.DEVICE_BOUND != "off" and known_lookup(request) is not None


def _answering(get_response: GetResponse) -> GetResponse:
    """The same with an answer where Django has none, since its page for a 500 cannot be made.

    That may ask for the session in turn: with CSRF_USE_SESSIONS Django's own does.
    """

    def answer(request: HttpRequest, error: SessionError) -> HttpResponse:
        response = _answer(request, error)
        if response is None:
            raise error
        return response

    def serve(request: HttpRequest) -> Any:
        try:
            return get_response(request)
        except SessionError as error:
            return answer(request, error)

    async def aserve(request: HttpRequest) -> Any:
        try:
            return await get_response(request)
        except SessionError as error:
            return answer(request, error)

    return aserve if iscoroutinefunction(get_response) else serve


def _spare_csrf(request: HttpRequest) -> None:
    """Let Django's check pass a request that no browser has made, for plain views."""
    if is_without_cookies(request):
        request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]


class SessionMiddleware:
    """Give requests ``session_info`` and ``asession_info``; keep the cookie in step."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = _answering(get_response)
        self.asynchronous = iscoroutinefunction(get_response)
        if self.asynchronous:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.asynchronous:
            return self.__acall__(request)
        self.process_request(request)
        with being_served(request):
            try:
                page = _unproved_page(request)
                response = page or cast(HttpResponseBase, self.get_response(request))
            except BaseException:
                # No error of a view's gets here: the client, or the process, does not wait for it.
                end_spared(request)
                raise
        return self.process_response(request, response)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        self.process_request(request)
        with being_served(request):
            async with ending_spared(request):
                response = await _aunproved_page(request) or await self.get_response(request)
        if has_spared(request) and request_session(request) is None:
            await sync_to_async(end_spared)(request)
        if _asks(request):
            return await sync_to_async(self.process_response)(request, response)
        return self.process_response(request, response)

    def process_request(self, request: HttpRequest) -> None:
        _spare_csrf(request)

        def find() -> Session | NoSession:
            return look_up(request).session or NoSession()

        async def afind() -> Session | NoSession:
            return (await alook_up(request)).session or NoSession()

        request.session_info = SimpleLazyObject(find)  # type: ignore[attr-defined]
        request.asession_info = afind  # type: ignore[attr-defined]

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return _answer(request, exception)

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        # What keeps it may be the save of request.session, which is to come.
        if has_spared(request) and request_session(request) is None:
            end_spared(request)
        return _finished(request, response)


class RequestSessionMiddleware(DjangoSessionMiddleware):
    """Django's own for SESSION_ENGINE = "session_manager.backends.sessions", in the place of it.

    Sessions have the client's address and user agent, an outage is a 503, the cookie follows the
    commit, and only a sign-out clears it.  With another engine it is Django's.
    """

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(_answering(get_response))
        self._asynchronous = iscoroutinefunction(get_response)

    def __call__(self, request: HttpRequest) -> Any:
        if self._asynchronous:
            return self.__acall__(request)
        # Django's own, and what follow_django_sessions adds to it, in one: each call costs.
        token = begin_serving(request)
        try:
            self.process_request(request)
            page = _unproved_page(request)
            response = page or cast(HttpResponseBase, self.get_response(request))
            return self.process_response(request, response)
        except BaseException:
            end_spared(request)
            raise
        finally:
            end_serving(token)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        with being_served(request):
            async with ending_spared(request):
                self.process_request(request)
                page = await _aunproved_page(request)
                response = page or await cast(Awaitable[Any], self.get_response(request))
                return await sync_to_async(self.process_response)(request, response)

    def process_request(self, request: HttpRequest) -> None:
        key = cookie_of(request, django_settings.SESSION_COOKIE_NAME)
        request.session = self.SessionStore(key)
        if settings.BEARER:
            _spare_csrf(request)
        hold(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return _answer(request, exception)

    def process_response(  # type: ignore[override]
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        store = request_session(request)
        if store is None:
            return super().process_response(request, cast(HttpResponse, response))
        if store.accessed:
            note_session_use(request)
        try:
            self._save(request, store, response)
        except (SessionError, BearerRefused) as error:
            answer = _answer(request, error)
            if answer is None:
                raise
            response = answer
        end_spared(request)
        return _finished(request, response)

    def _save(self, request: HttpRequest, store: SessionStore, response: HttpResponseBase) -> None:
        """Save what has been changed, as Django's does: not after an error of the server's."""
        store.undo_what_was_rolled_back()
        written = written_token(response)
        if written is not None:
            store.take_token(written)
        wanted = store.modified or (django_settings.SESSION_SAVE_EVERY_REQUEST and written is None)
        if response.status_code >= 500 or not wanted or store.is_empty():
            return
        visiting = store.session_key is None and SESSION_KEY not in store
        proves_later = will_prove(request) or is_foreign_navigation(request)
        if visiting and proves_later and lacks_proof(request):
            # A visitor's session would take the place of the user's, who is there again as soon as
            # the browser has proved its device.  One that does not speak of a binding may have lost
            # it: its user has to be able to sign in, which may take a visitor's session.
            return
        try:
            store.save()
        except UpdateError:
            if not store.modified:
                return
            raise SessionInterrupted(
                "The request's session was ended before the request completed, for example by a "
                "sign-out in another request."
            ) from None
        token = store.session_key
        # While a slow request was served, another one may have given the client a newer token.
        header = token_of_header(request)
        cookie = cookie_of(request, settings.cookie_name)
        presented = header if cookie is None else cookie
        if token is not None and (token != presented or (store.cookie_is_due and header is None)):
            set_token_on_commit(request, token, store.cookie_age())


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
