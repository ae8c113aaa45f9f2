"""The session cookie: HttpOnly, Secure and ``__Host-`` outside DEBUG, never cacheable."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from ..conf import settings
from ..store.tokens import is_token
from .bearer import token_of_header
from .cache_control import forbid_caching, note_session_use


def token_from(request: HttpRequest) -> str | None:
    """The token in the request's cookie, or None; without a cookie, that of the header (BEARER).

    Anything else in the cookie, a digest form among it, counts as no token: it names no session of
    ours and is not ours to clear.
    """
    note_session_use(request)
    value = request.COOKIES.get(settings.cookie_name)
    if value is None:
        return token_of_header(request)
    return value if is_token(value) else None


def actor_token_from(request: HttpRequest) -> str | None:
    """The token of who acts as the session's user, or None.

    The browser may hold one of an impersonation that has ended otherwise.
    """
    value = request.COOKIES.get(settings.actor_cookie_name)
    if value is not None:
        note_session_use(request)
    return value if is_token(value) else None


def set_cookie(
    response: HttpResponseBase,
    token: str,
    absolute_expires_at: datetime,
    *,
    persistent: bool = True,
    name: str | None = None,
) -> None:
    """Give the browser a token, for as long as the session can live at most.

    persistent=False: until the browser is closed.
    """
    remaining = absolute_expires_at - datetime.now(timezone.utc)
    max_age = max(int(remaining.total_seconds()), 0) if persistent else None
    give_token(response, token, max_age, name)


def give_token(
    response: HttpResponseBase, token: str, max_age: int | None, name: str | None = None
) -> None:
    """Give the browser a token for some seconds; None: until it is closed."""
    _write(response, name, token, max_age=max_age)


def clear_cookie(response: HttpResponseBase, name: str | None = None) -> None:
    """Take the cookie back: on a sign-out alone."""
    _write(response, name, "", max_age=0, expires="Thu, 01 Jan 1970 00:00:00 GMT")


def _write(response: HttpResponseBase, name: str | None, value: str, **lifetime: Any) -> None:
    # The same attributes for both: a browser refuses a __Host- cookie that is not Secure, also one
    # that clears it.
    response.set_cookie(
        name or settings.cookie_name,
        value,
        path=settings.cookie_path,
        domain=settings.COOKIE_DOMAIN,
        secure=settings.cookie_secure,
        httponly=name == settings.actor_cookie_name or settings.cookie_httponly,
        samesite=settings.COOKIE_SAMESITE,  # type: ignore[arg-type]
        **lifetime,
    )
    forbid_caching(response)
