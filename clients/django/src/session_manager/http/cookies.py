"""The session cookie: HttpOnly, Secure and ``__Host-`` outside DEBUG, never cacheable.

Beside it the cookies of who acts as the user, and of a bound session's device.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from ..conf import settings
from ..store.tokens import excused, is_bare_token, with_proof, without_proof
from .bearer import token_of_header
from .cache_control import forbid_caching, note_session_use
from .exact_cookies import cookie_of

#: Of a request: why the browser sends it without a new proof.
SKIPPED = "HTTP_SECURE_SESSION_SKIPPED"


def token_from(request: HttpRequest) -> str | None:
    """The token in the request's cookie, or None; without a cookie, that of the header (BEARER).

    Behind the cookie's is the proof of the browser's device, if it has one.

    Anything else in the cookie, a digest form among it, counts as no token: it names no session of
    ours and is not ours to clear.
    """
    note_session_use(request)
    value = cookie_of(request, settings.cookie_name)
    if value is None:
        return token_of_header(request)
    return proved(request, value) if is_bare_token(value) else None


def proved(request: HttpRequest, token: str) -> str:
    """A token of the browser's with the proof of its device, if the request has one.

    A browser keeps one proof.  That of a session which has ended does no harm behind the token of
    its successor.  Where browsers send none, that is no sign of a thief: the audit trail is told.
    """
    proof = cookie_of(request, settings.device_cookie_name)
    if proof is not None:
        return with_proof(token, proof)
    if settings.DEVICE_BOUND != "off" and (_is_foreign(request) or will_prove(request)):
        return excused(token)
    return token


def is_foreign_navigation(request: HttpRequest) -> bool:
    """Whether the user comes by a link on another site: no browser waits for a proof for that."""
    return _navigates(request) and _is_foreign(request)


def is_own_navigation(request: HttpRequest) -> bool:
    """Whether the user goes from page to page, or has typed the address."""
    sites = ("same-origin", "none")
    return _navigates(request) and request.META.get("HTTP_SEC_FETCH_SITE") in sites


def _is_foreign(request: HttpRequest) -> bool:
    """Whether another site has led to the request, perhaps to a page that Next.js is asked for."""
    return request.method == "GET" and request.META.get("HTTP_SEC_FETCH_SITE") == "cross-site"


def _navigates(request: HttpRequest) -> bool:
    return request.method == "GET" and request.META.get("HTTP_SEC_FETCH_MODE") == "navigate"


def will_prove(request: HttpRequest) -> bool:
    """Whether the browser says that it has a binding, and only no proof just now."""
    return SKIPPED in request.META


def actor_token_from(request: HttpRequest) -> str | None:
    """The token of who acts as the session's user, or None.

    The browser may hold one of an impersonation that has ended otherwise.
    """
    value = cookie_of(request, settings.actor_cookie_name)
    if value is not None:
        note_session_use(request)
    return proved(request, value) if is_bare_token(value) else None


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
    _write(response, name, without_proof(token), max_age=max_age)


def set_proof(response: HttpResponseBase, proof: str, expires_at: datetime) -> None:
    """Give the browser the proof of its device, for as long as it holds."""
    remaining = expires_at - datetime.now(timezone.utc)
    max_age = max(int(remaining.total_seconds()), 0)
    _write(response, settings.device_cookie_name, proof, max_age=max_age)


def proof_attributes() -> str:
    """What the browser has to find in the cookie of set_proof, beside its lifetime."""
    domain = f"; Domain={settings.COOKIE_DOMAIN}" if settings.COOKIE_DOMAIN else ""
    secure = "; Secure" if settings.cookie_secure else ""
    samesite = f"; SameSite={settings.COOKIE_SAMESITE}" if settings.COOKIE_SAMESITE else ""
    return f"Path={settings.cookie_path}{domain}{secure}; HttpOnly{samesite}"


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
        httponly=name in (settings.actor_cookie_name, settings.device_cookie_name)
        or settings.cookie_httponly,
        samesite=settings.COOKIE_SAMESITE,  # type: ignore[arg-type]
        **lifetime,
    )
    forbid_caching(response)
