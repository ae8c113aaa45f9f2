"""Error reports without session tokens.

Django mails a request's cookies and local variables to ADMINS when a view fails, and hides none but
its own session cookie.  With

    DEFAULT_EXCEPTION_REPORTER_FILTER = "session_manager.reporting.ExceptionReporterFilter"

tokens are masked wherever they stand in a report.
"""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter

_TOKEN = re.compile(r"(s[md]1_)[A-Za-z0-9_-]{8,}", re.ASCII)


def mask(text: str) -> str:
    """A text with its tokens and digest forms masked."""
    return _TOKEN.sub(r"\1********", text)


class ExceptionReporterFilter(SafeExceptionReporterFilter):
    """Django's filter, which also knows session tokens."""

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        cleansed = super().cleanse_setting(key, value)
        return mask(cleansed) if isinstance(cleansed, str) else cleansed

    def get_safe_cookies(self, request: HttpRequest) -> dict[str, Any]:
        cookies: dict[str, Any] = super().get_safe_cookies(request)
        return {name: mask(str(value)) for name, value in cookies.items()}

    def get_safe_request_meta(self, request: HttpRequest) -> dict[str, Any]:
        meta: dict[str, Any] = super().get_safe_request_meta(request)
        return {name: mask(v) if isinstance(v, str) else v for name, v in meta.items()}

    def get_traceback_frame_variables(self, request: HttpRequest, tb_frame: Any) -> Any:
        variables = super().get_traceback_frame_variables(request, tb_frame)
        return [(name, self.masked(value)) for name, value in variables]

    def masked(self, value: Any) -> Any:
        """A value, or its masked representation if that has a token."""
        try:
            text = repr(value)
        except Exception:  # a value that cannot show itself is Django's to deal with
            return value
        if not _TOKEN.search(text):
            return value
        return mask(value) if isinstance(value, str) else _Masked(mask(text))


class _Masked:
    """Stands for a value by a representation."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text
