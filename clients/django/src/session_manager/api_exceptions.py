"""The DRF handler that gives errors the form that the session endpoints have."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import APIException, NotAuthenticated
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_exception_handler

from .api.errors import as_api_exception, body_of
from .api.refusals import explain_refusal
from .exceptions import SessionError
from .http.lookup import django_request


def exception_handler(exc: Exception, context: Any) -> Response | None:
    """DRF's handler, with the error's code beside its detail.

    All session endpoints use it; set it as REST_FRAMEWORK["EXCEPTION_HANDLER"] to have the same
    form of error everywhere.
    """
    if isinstance(exc, SessionError):
        exc = as_api_exception(exc)
    elif isinstance(exc, NotAuthenticated) and context.get("request") is not None:
        exc = explain_refusal(exc, django_request(context["request"]))
    response = drf_exception_handler(exc, context)
    if response is None or not isinstance(response.data, dict) or "detail" not in response.data:
        return response
    if isinstance(exc, APIException):
        response.data = body_of(exc)
    else:  # Django's Http404 and PermissionDenied, which DRF translates.
        detail = response.data["detail"]
        response.data = {"detail": str(detail), "code": getattr(detail, "code", "error")}
    return response
