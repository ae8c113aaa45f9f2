"""Clients without cookies: the session's token in the Authorization header (setting BEARER).

    Authorization: Bearer sm1_...

Such a client keeps its token itself: it gets new ones in a header, those of the endpoints in the
body as well, and no cookie.  Nothing of it is sent by a browser on its own, so there is nothing for
a CSRF check to protect.

A request with the session cookie is a browser's, whatever else it brings: the header counts for
nothing, CSRF is checked, and the answer has a token in the cookie alone, or a script in the page
could read what HttpOnly keeps from it.  An answer to a page without the cookie has none either:
browsers mark those with Origin or Sec-Fetch-Site.  A client that has no token yet asks by a header
of its own.
"""

from __future__ import annotations

from django.http import HttpRequest
from rest_framework.exceptions import PermissionDenied

from ..conf import settings
from ..store.tokens import is_bare_token

#: Of a response: the new token of a client that keeps it itself.
RESPONSE_HEADER = "Session-Token"
_TRANSPORT = "Session-Transport"
_PAGE = "Pages in a browser use the session cookie."
# Tokens, and digest forms, which are accepted here as little as in the cookie.
_PREFIXES = ("sm1_", "sd1_")


def names_session(credentials: str) -> bool:
    """Whether Bearer credentials are meant for this package, and are no access token."""
    return settings.BEARER and credentials.startswith(_PREFIXES)


def _has_cookie(request: HttpRequest) -> bool:
    return settings.cookie_name in request.COOKIES


def _credentials(request: HttpRequest) -> str | None:
    """What the header presents as a session's token, if the client has no cookie."""
    if not settings.BEARER or _has_cookie(request):
        return None
    scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    credentials = credentials.strip()
    return credentials if scheme.lower() == "bearer" and names_session(credentials) else None


def token_of_header(request: HttpRequest) -> str | None:
    """The token in the Authorization header, if it counts."""
    if not settings.BEARER:
        return None
    credentials = _credentials(request)
    return credentials if is_bare_token(credentials) else None


def _asks_for_bearer(request: HttpRequest) -> bool:
    return request.headers.get(_TRANSPORT, "").strip().lower() == "bearer"


def keeps_token(request: HttpRequest) -> bool:
    """Whether the client keeps its token itself: new ones go into the body, none into a cookie."""
    if not settings.BEARER or _has_cookie(request) or _is_of_page(request):
        return False
    return _credentials(request) is not None or _asks_for_bearer(request)


def _is_of_page(request: HttpRequest) -> bool:
    """Whether a page in a browser has made the request: no script can take these headers off.

    Without Sec-Fetch-Mode, which Node.js sends as well.
    """
    return "HTTP_ORIGIN" in request.META or "HTTP_SEC_FETCH_SITE" in request.META


class BearerRefused(PermissionDenied):
    """A client asks for a token in the answer, and must not have one."""

    default_code = "bearer_refused"


def refuse_bearer(request: HttpRequest) -> None:
    """403 for a client that asks for a token in the body and must not have one."""
    if not _asks_for_bearer(request) or keeps_token(request):
        return
    if not settings.BEARER:
        reason = "Sessions without cookies are not enabled."
    elif _has_cookie(request):
        reason = "The request has the session cookie. Send it without cookies."
    else:
        reason = _PAGE
    raise BearerRefused(reason)


def refuse_new_token(request: HttpRequest) -> None:
    """403 for a page that has its session by the header: it may be given neither a new token, nor
    a cookie for one that scripts know.
    """
    if token_of_header(request) is not None and not keeps_token(request):
        raise BearerRefused(_PAGE)


def is_without_cookies(request: HttpRequest) -> bool:
    """Whether the request can be nobody's but that of a client that keeps its token itself: there
    is no cookie at all, and a header that no browser sends on its own.
    """
    return keeps_token(request) and not request.META.get("HTTP_COOKIE")


def challenge(request: HttpRequest, realm: str = "api") -> str:
    """WWW-Authenticate of a 401."""
    if _credentials(request) is not None:
        return f'Bearer realm="{realm}", error="invalid_token"'
    session = f'Session realm="{realm}"'
    return f'{session}, Bearer realm="{realm}"' if settings.BEARER else session
