"""Error reports without session tokens and access tokens.

Django mails a request's cookies and local variables to ADMINS when a view fails, and hides none but
its own session cookie.  With

    DEFAULT_EXCEPTION_REPORTER_FILTER = "session_manager.reporting.ExceptionReporterFilter"

tokens are masked in cookies, headers, form fields, settings and variables.  The query string and an
exception's own text pass no filter of Django's: do not put tokens there.
"""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter

# And proofs of devices, and challenges.
_TOKEN = re.compile(r"(s[mdpc]1_)[A-Za-z0-9_-]{8,}", re.ASCII)
# A JWT (RFC 7519): base64url of '{"', and at least two dots.  The run is taken at once and its
# dots are counted afterwards, so that no text makes the search go back.
_JWT = re.compile(r"eyJ[A-Za-z0-9_.-]*", re.ASCII)


def _mask_jwt(match: re.Match[str]) -> str:
    run = match.group()
    return "eyJ********" if run.count(".") >= 2 else run


def mask(text: str) -> str:
    """A text with its tokens, digest forms and JWTs masked."""
    return _JWT.sub(_mask_jwt, _TOKEN.sub(r"\1********", text))


class ExceptionReporterFilter(SafeExceptionReporterFilter):
    """Django's filter, which also knows tokens by their looks."""

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        cleansed = super().cleanse_setting(key, value)
        return mask(cleansed) if isinstance(cleansed, str) else cleansed

    def get_safe_cookies(self, request: HttpRequest) -> dict[str, Any]:
        cookies: dict[str, Any] = super().get_safe_cookies(request)
        return {name: mask(str(value)) for name, value in cookies.items()}

    def get_safe_request_meta(self, request: HttpRequest) -> dict[str, Any]:
        meta: dict[str, Any] = super().get_safe_request_meta(request)
        return {name: mask(v) if isinstance(v, str) else v for name, v in meta.items()}

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:
        parameters = super().get_post_parameters(request)
        return {name: mask(v) if isinstance(v, str) else v for name, v in parameters.items()}

    def get_traceback_frame_variables(self, request: HttpRequest, tb_frame: Any) -> Any:
        variables = super().get_traceback_frame_variables(request, tb_frame)
        return [(name, self.masked(value)) for name, value in variables]

    def masked(self, value: Any) -> Any:
        """A value, or its masked representation if that has a token."""
        try:
            text = repr(value)
        except Exception:  # a value that cannot show itself is Django's to deal with
            return value
        masked = mask(text)
        if masked == text:
            return value
        return mask(value) if isinstance(value, str) else _Masked(masked)


class _Masked:
    """Stands for a value by a representation."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text
