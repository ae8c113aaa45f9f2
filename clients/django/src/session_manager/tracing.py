"""Spans of the service's calls, where opentelemetry-api is installed.

Without it nothing is wrapped.  No attribute and no event has a token, an id of a session, user or
tenant, an address, session data, or the text of an error, which may quote any of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.db import connections

from .conf import settings
from .exceptions import (
    InvalidArgument,
    LimitReached,
    SessionEnded,
    TooLarge,
    VersionConflict,
)
from .store.aliases import database_alias
from .store.cache import SessionCache
from .store.database import sqlstate

try:
    from opentelemetry import trace
except ImportError:
    trace = None  # type: ignore[assignment]
else:
    # Follows the application's choice of an SDK, also a later one.
    tracer = trace.get_tracer("session_manager")

T = TypeVar("T", bound=type)

#: What the service refuses, as opposed to what it cannot do.
REFUSALS: dict[type[BaseException], str] = {
    InvalidArgument: "invalid_argument",
    LimitReached: "limit_reached",
    SessionEnded: "session_ended",
    TooLarge: "too_large",
    VersionConflict: "version_conflict",
}


def traced(service: T) -> T:
    """Let each public method of a class, asynchronous or not, have a span."""
    if trace is None:
        return service
    wrapped: dict[Any, Any] = {}
    for name, method in list(vars(service).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            if method not in wrapped:
                wrapped[method] = _with_span(method)
            setattr(service, name, wrapped[method])
    SessionCache.read = _telling(SessionCache.read)  # type: ignore[method-assign]
    return service


def _with_span(method: Any) -> Any:
    name = method.__name__
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def acall(*args: Any, **kwargs: Any) -> Any:
            with _span(name) as span:
                result = await method(*args, **kwargs)
                _tell_result(span, result)
            return result

        return acall

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _span(name) as span:
            result = method(*args, **kwargs)
            _tell_result(span, result)
        return result

    return call


@contextmanager
def _span(name: str) -> Iterator[Any]:
    attributes = {"db.system.name": "postgresql", "db.operation.name": name}
    if not settings.is_sharded:
        attributes["db.namespace"] = str(connections[database_alias()].settings_dict["NAME"])
    with tracer.start_as_current_span(
        f"session.{name}",
        kind=trace.SpanKind.CLIENT,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            _tell_error(span, error)
            raise


def _tell_result(span: Any, result: Any) -> None:
    if isinstance(result, bool):
        outcome = "done" if result else "none"
    elif isinstance(result, (int, list)):
        outcome = "done"
        count = len(result) if isinstance(result, list) else result
        span.set_attribute("session_service.count", count)
    else:
        outcome = "none" if result is None else getattr(result, "status", "done")
    span.set_attribute("session_service.outcome", outcome)


def _tell_error(span: Any, error: BaseException) -> None:
    for refusal, outcome in REFUSALS.items():
        if isinstance(error, refusal):
            span.set_attribute("session_service.outcome", outcome)
            return
    kind = type(error).__qualname__
    span.set_attribute("session_service.outcome", "error")
    span.set_attribute("error.type", kind)
    state = sqlstate(error.__cause__) if error.__cause__ is not None else None
    if state is not None:
        span.set_attribute("db.response.status_code", state)
    span.add_event("exception", {"exception.type": kind})
    span.set_status(trace.StatusCode.ERROR)


def _telling(read: Any) -> Any:
    """Reading from the cache, with the outcome in the span of the call that reads."""

    @functools.wraps(read)
    def tell(*args: Any, **kwargs: Any) -> Any:
        answer = read(*args, **kwargs)
        session, lease, answered = answer
        span = trace.get_current_span()
        if session is not None:
            span.set_attribute("session_service.cache", "hit")
            span.set_attribute("db.system.name", "redis")
            span.set_attribute("db.namespace", str(settings.REDIS_DB))
        else:
            outcome = "miss" if lease is not None or answered else "unavailable"
            span.set_attribute("session_service.cache", outcome)
        return answer

    return tell
