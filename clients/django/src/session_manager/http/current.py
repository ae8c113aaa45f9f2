"""The request that is being served, for code that is not handed it: receivers of signals."""

from __future__ import annotations

from contextvars import ContextVar, Token
from functools import wraps
from types import TracebackType
from typing import Any

from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponseBase

from .spared import end_spared, ending_spared

_current: ContextVar[HttpRequest | None] = ContextVar("session_manager_request", default=None)


class being_served:
    """In the block ``current_request()`` is the request.

    contextlib's own way would cost four times as much.
    """

    __slots__ = ("_request", "_token")

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    def __enter__(self) -> None:
        self._token: Token[HttpRequest | None] = _current.set(self._request)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _current.reset(self._token)


#: The same without a block, for what every request passes: the first returns what the second takes.
begin_serving, end_serving = _current.set, _current.reset


def current_request() -> HttpRequest | None:
    """The request, if it passes a SessionMiddleware: this package's, or Django's."""
    return _current.get()


def follow_django_sessions() -> None:
    """Have Django's SessionMiddleware show its requests, too: it may be alone with our engine."""
    begin, finish = SessionMiddleware.process_request, SessionMiddleware.process_response
    call, serve = SessionMiddleware.__call__, SessionMiddleware.__acall__

    @wraps(begin)
    def process_request(self: SessionMiddleware, request: HttpRequest) -> Any:
        _current.set(request)
        return begin(self, request)

    @wraps(finish)
    def process_response(self: SessionMiddleware, request: HttpRequest, response: Any) -> Any:
        try:
            finished = finish(self, request, response)
            end_spared(request)
            return finished
        finally:
            _current.set(None)

    @wraps(call)
    def __call__(self: Any, request: HttpRequest) -> Any:
        try:
            return call(self, request)
        except BaseException:
            end_spared(request)
            raise

    @wraps(serve)
    async def __acall__(self: Any, request: HttpRequest) -> HttpResponseBase:
        async with ending_spared(request):
            return await serve(self, request)

    SessionMiddleware.__call__ = __call__  # type: ignore[method-assign]
    SessionMiddleware.__acall__ = __acall__  # type: ignore[method-assign]
    SessionMiddleware.process_request = process_request  # type: ignore[method-assign]
    SessionMiddleware.process_response = process_response  # type: ignore[method-assign]
