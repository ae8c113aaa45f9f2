"""Cookies by their exact names.

Django takes white space of any kind away from around a cookie's name, where a browser knows only
space and tab.  A page of another subdomain can set "\\u2003__Host-session_token" for all of the
site: the browser does not see the prefix, which would forbid it, and Django would.
"""

from __future__ import annotations

from django.http import HttpRequest, parse_cookie


def cookie_of(request: HttpRequest, name: str) -> str | None:
    """The value of the cookie that a browser knows by this name, or None."""
    value = request.COOKIES.get(name)
    header = request.META.get("HTTP_COOKIE", "")
    if value is None or (header.isascii() and header.isprintable()):
        return value
    pairs = [pair for pair in header.split(";") if _is_plain(pair.partition("=")[0].strip(" \t"))]
    return parse_cookie(";".join(pairs)).get(name)


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isprintable()
