"""The session cookie: HttpOnly, Secure and ``__Host-`` outside DEBUG, never cacheable."""

from __future__ import annotations

from datetime import datetime, timezone

from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_cache_control

from .conf import settings
from .tokens import is_token


def token_from(request: HttpRequest) -> str | None:
    """The token in the request's cookie, or None.

    Anything else in the cookie, a digest form among it, counts as no cookie: it names no session of
    ours and is not ours to clear.
    """
    value = request.COOKIES.get(settings.cookie_name)
    return value if is_token(value) else None


def set_cookie(response: HttpResponseBase, token: str, absolute_expires_at: datetime) -> None:
    """Give the browser a token, for as long as the session can live at most."""
    remaining = absolute_expires_at - datetime.now(timezone.utc)
    response.set_cookie(
        settings.cookie_name,
        token,
        max_age=max(int(remaining.total_seconds()), 0),
        path="/",
        domain=settings.COOKIE_DOMAIN,
        secure=settings.cookie_secure,
        httponly=True,
        samesite=settings.COOKIE_SAMESITE,  # type: ignore[arg-type]
    )
    patch_cache_control(response, no_store=True)


def clear_cookie(response: HttpResponseBase) -> None:
    """Take the cookie back: after a definite verdict only."""
    response.set_cookie(
        settings.cookie_name,
        "",
        max_age=0,
        expires="Thu, 01 Jan 1970 00:00:00 GMT",
        path="/",
        domain=settings.COOKIE_DOMAIN,
        # A browser refuses a __Host- cookie that is not Secure, also one that clears it.
        secure=settings.cookie_secure,
        httponly=True,
        samesite=settings.COOKIE_SAMESITE,  # type: ignore[arg-type]
    )
    patch_cache_control(response, no_store=True)
