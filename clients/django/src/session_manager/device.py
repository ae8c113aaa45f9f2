"""What only the user's own device may do: sessions that are bound to it (DEVICE_BOUND).

@device_bound_required(max_age=60)
def transfer(request): ...

class TransferView(APIView):
    permission_classes = [IsAuthenticated, DeviceBound.within(60)]
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from functools import wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import APIException, NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from .api.errors import DeviceBoundRequired, DeviceProofStale, as_api_exception
from .api.refusals import explain_refusal
from .exceptions import SessionError
from .http.cookie_decision import write_cookie
from .http.device import ask_for_proof
from .http.lookup import current_token, django_request, look_up
from .middleware import refusal

__all__ = ["DeviceBound", "device_bound_required"]

View = TypeVar("View", bound=Callable[..., Any])


def _refused(request: HttpRequest, max_age: float | None) -> APIException | None:
    """Why a request is not the device's own, or None.

    A proof is as old as the challenge that was signed for it.
    """
    session = look_up(request).session
    if session is None:
        return NotAuthenticated()
    if session.device_proved_at is None:
        return DeviceBoundRequired()
    token = current_token(request)
    if max_age is None or token is None:
        return None
    age = (datetime.now(timezone.utc) - session.device_proved_at).total_seconds()
    # A session that has just been bound works without a proof for a while; this does not.
    if age <= max_age and session.device_proved:
        return None
    ask_for_proof(request, token)
    return DeviceProofStale()


def _answer(request: HttpRequest, max_age: float | None) -> HttpResponse | None:
    """The answer to a request that is refused."""
    try:
        error: Any = _refused(request, max_age)
    except SessionError as problem:
        error = as_api_exception(problem)
    if error is None:
        return None
    response = refusal(cast(APIException, explain_refusal(error, request)), request)
    # There may be no SessionMiddleware.
    write_cookie(request, response)
    return response


def device_bound_required(view: View | None = None, *, max_age: float | None = None) -> Any:
    """Serve a view only in sessions that are bound to the user's device; 403 in others.

    max_age: seconds since the device was last asked to prove itself, and did.  After that the
    answer is 403 with the code ``device_proof_stale``, and the browser proves its device before its
    next request: the page repeats the request, and has it served.
    """

    def decorate(view: View) -> View:
        if iscoroutinefunction(view):

            @wraps(view)
            async def aserve(request: Any, *args: Any, **kwargs: Any) -> Any:
                refused = await sync_to_async(_answer)(django_request(request), max_age)
                return refused or await view(request, *args, **kwargs)

            return cast(View, aserve)

        @wraps(view)
        def serve(request: Any, *args: Any, **kwargs: Any) -> Any:
            return _answer(django_request(request), max_age) or view(request, *args, **kwargs)

        return cast(View, serve)

    return decorate if view is None else decorate(view)


class DeviceBound(BasePermission):
    """The same for views of DRF."""

    #: Seconds, as of device_bound_required.
    max_age: float | None = None

    @classmethod
    def within(cls, seconds: float) -> type[DeviceBound]:
        """The class for proofs that are no older."""
        return type(cls.__name__, (cls,), {"max_age": seconds})

    def has_permission(self, request: Request, view: Any) -> bool:
        try:
            error = _refused(django_request(request), self.max_age)
        except SessionError as problem:
            # An exception of DRF's, as the application's handler may be another one.
            raise as_api_exception(problem) from problem
        if error is not None:
            raise error
        return True
