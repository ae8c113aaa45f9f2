"""SessionAuthentication: DRF authentication by the session cookie, or without cookies by BEARER.

Put it beside others, first: without a cookie, or with one whose session has ended, it returns None
and the next class is tried, so that access tokens and sessions work at the same time.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from .api.errors import as_api_exception
from .exceptions import SessionError
from .http.bearer import challenge
from .http.csrf import enforce_csrf
from .http.lookup import look_up
from .types import Session


class SessionAuthentication(BaseAuthentication):
    """``request.user`` from the session, ``request.auth`` the Session.

    Unsafe methods pass the CSRF checks.  503 with Retry-After when the database cannot answer.
    """

    www_authenticate_realm = "api"

    def authenticate(self, request: Request) -> tuple[Any, Session] | None:
        http_request: HttpRequest = request._request
        try:
            lookup = look_up(http_request)
        except SessionError as error:
            # An exception of DRF's, as the application's handler may be another one.
            raise as_api_exception(error) from error
        if lookup.session is None:
            return None
        enforce_csrf(http_request)
        return lookup.user, lookup.session

    def authenticate_header(self, request: Request) -> str:
        # A challenge makes DRF answer 401 instead of 403.
        return challenge(request._request, self.www_authenticate_realm)
