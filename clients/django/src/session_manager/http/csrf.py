"""Protection against requests that another site makes a browser send.

Two checks, both on every unsafe method.  First where the request comes from: Fetch Metadata
(Sec-Fetch-Site, which scripts cannot set), else the Origin header.  Then Django's own check, which
looks at Origin or Referer again and compares the CSRF token.  CSRF_TRUSTED_ORIGINS holds for both.
The token can be switched off with CSRF_TOKEN, the first check cannot.
"""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware, get_token, rotate_token
from rest_framework.exceptions import PermissionDenied

from ..conf import settings
from .bearer import is_without_cookies, keeps_token

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))


class _Check(CsrfViewMiddleware):
    """Django's check, telling the reason instead of answering."""

    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def _no_view(request: HttpRequest) -> HttpResponse:
    raise AssertionError("never called")


def _trusted(origin: str) -> bool:
    """Whether an origin is in CSRF_TRUSTED_ORIGINS, ``https://*.example.com`` included."""
    try:
        parsed = urlsplit(origin)
    except ValueError:
        return False
    for trusted in django_settings.CSRF_TRUSTED_ORIGINS:
        if origin == trusted:
            return True
        scheme, _, host = trusted.partition("://")
        if (
            host.startswith("*.")
            and parsed.scheme == scheme
            and (parsed.netloc == host[2:] or parsed.netloc.endswith(host[1:]))
        ):
            return True
    return False


def foreign_reason(request: HttpRequest) -> str | None:
    """Why the request seems to come from another site, or None."""
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site == "same-origin":
        return None
    if origin is not None:
        own = f"{request.scheme}://{request.get_host()}"
        if site in (None, "none") and origin == own:
            return None
        return None if _trusted(origin) else "The request comes from an origin that is not trusted."
    if site in (None, "none"):
        # No browser that sends cookies across sites leaves both headers out.
        return None
    return f"The request is {site}."


def offer_token(request: HttpRequest, response: HttpResponseBase) -> None:
    """Give the browser Django's CSRF token: as the usual cookie, and in the header X-CSRFToken.

    The header is for front ends that cannot read the cookie (CSRF_COOKIE_HTTPONLY, another host).
    """
    if not settings.CSRF_TOKEN or keeps_token(request):
        return
    response["X-CSRFToken"] = get_token(request)
    # What CsrfViewMiddleware does, for projects that do not have it.
    check = _Check(lambda r: HttpResponse())
    check.process_response(request, cast(HttpResponse, response))


def withhold_token(request: HttpRequest, response: HttpResponseBase) -> None:
    """Give a client without cookies none of Django's login either: it would be one that has cookies
    from then on, and be checked.
    """
    if is_without_cookies(request):
        request.META.pop("CSRF_COOKIE_NEEDS_UPDATE", None)
        response.cookies.pop(django_settings.CSRF_COOKIE_NAME, None)


def new_token(request: HttpRequest) -> dict[str, Any]:
    """The request's META of a new CSRF token, as Django's login() makes one.

    For a login to set once it has succeeded: a token from before it is worth nothing then.  Empty
    for a client that has none.
    """
    if keeps_token(request):
        return {}
    fresh = HttpRequest()
    rotate_token(fresh)
    return dict(fresh.META)


def is_token_new(request: HttpRequest) -> bool:
    """Whether the browser has yet to get the token that holds from now on."""
    return bool(request.META.get("CSRF_COOKIE_NEEDS_UPDATE"))


def enforce_csrf(request: HttpRequest) -> None:
    """Refuse (403, ``csrf_failed``) an unsafe request that another site may have caused."""
    if request.method in SAFE_METHODS or getattr(request, "_dont_enforce_csrf_checks", False):
        return
    if keeps_token(request):
        return
    reason: Any = foreign_reason(request)
    if reason is None and settings.CSRF_TOKEN:
        check = _Check(lambda r: HttpResponse())
        check.process_request(request)
        reason = check.process_view(request, _no_view, (), {})
    if reason:
        raise PermissionDenied(f"CSRF check failed: {reason}", "csrf_failed")
