"""What caches may keep of a response that depends on the session.

It varies with the cookie, and is private if the request had one (or the header of a client without
cookies); a response that writes the cookie
is not kept at all.  SessionMiddleware puts that into the headers.  It comes too late for Django's
cache_page, which stores a page before any middleware sees it: so Django's cache keeps no response
to a request whose session has been looked at, until the headers are on it.
"""

from __future__ import annotations

import functools
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.middleware.cache import UpdateCacheMiddleware
from django.utils.cache import patch_cache_control, patch_vary_headers

from ..conf import settings
from .bearer import token_of_header

_LOOKED = "_session_manager_looked"
_FOUND = "_session_manager_found"
_MARKED = "_session_manager_marked"
NEVER = "private, no-store"


def _state(request: Any) -> dict[str, Any]:
    """What a request is remembered by: Django's request, inside of DRF's."""
    state: dict[str, Any] = vars(request)
    if "_request" in state:
        state = vars(state["_request"])
    return state


def note_session_use(request: Any, *, found: bool = False) -> None:
    """The response will depend on the session; found: there is one, whatever it was found by."""
    state = _state(request)
    if found:
        state[_FOUND] = True
    if _LOOKED not in state:
        # By a middleware outside of ours, perhaps: then the headers do not say so.
        state.pop(_MARKED, None)
        state[_LOOKED] = True


def guard_django_cache() -> None:
    """Let Django's cache keep nothing that depends on a session without saying so.

    Its decision is asked here, and not written into the request: each cache_page writes it again,
    also after an outer decorator has looked, and into DRF's request where it is around a method.
    """
    should_update_cache = UpdateCacheMiddleware._should_update_cache  # type: ignore[attr-defined]

    @functools.wraps(should_update_cache)
    def guarded(self: Any, request: Any, response: HttpResponseBase) -> bool:
        state = _state(request)
        return bool(should_update_cache(self, request, response)) and (
            _LOOKED not in state or _MARKED in state
        )

    UpdateCacheMiddleware._should_update_cache = guarded  # type: ignore[attr-defined]


def write_cache_headers(request: HttpRequest, response: HttpResponseBase) -> None:
    """Say in the response's headers what caches may do with it."""
    state = _state(request)
    if settings.cookie_name in response.cookies:
        forbid_caching(response)
    elif _LOOKED in state or _may_look_yet(response):
        _vary(response)
        if (
            _FOUND in state
            or settings.cookie_name in request.COOKIES
            or token_of_header(request) is not None
        ):
            _make_private(response)
    state[_MARKED] = True


def forbid_caching(response: HttpResponseBase) -> None:
    """Nobody may keep it, whatever a decorator of the view's has said."""
    response["Cache-Control"] = NEVER
    _vary(response)


def _vary(response: HttpResponseBase) -> None:
    """The response depends on what names the session."""
    patch_vary_headers(response, ("Cookie", "Authorization") if settings.BEARER else ("Cookie",))


def _may_look_yet(response: HttpResponseBase) -> bool:
    """Whether its body is made when the headers have been sent; a file's is not made."""
    return response.streaming and getattr(response, "file_to_stream", None) is None


def _make_private(response: HttpResponseBase) -> None:
    """For one user's browser alone; the view may have been stricter."""
    if not response.has_header("Cache-Control"):
        response["Cache-Control"] = "private"
        return
    said = {part.strip().lower() for part in response.get("Cache-Control", "").split(",")}
    if "public" in said or not said & {"private", "no-store"}:
        # Django's takes "public" out.
        patch_cache_control(response, private=True)
