"""Errors as HTTP answers: each one's status, and the body that tells of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rest_framework import status
from rest_framework.exceptions import (
    APIException,
    NotAuthenticated,
    ParseError,
    PermissionDenied,
)

from ..conf import settings
from ..exceptions import (
    DataCorrupt,
    LimitReached,
    SessionEnded,
    SessionError,
    StoreUnavailable,
    TooLarge,
    VersionConflict,
)
from ..types import ListedSession
from .serializers import ListedSessionSerializer


class SessionExpired(NotAuthenticated):
    """401: PostgreSQL has said that there is no such session.

    The cookie stays.  The answer may be late, and the browser may hold a newer cookie by then; one
    of a session that has ended does no harm.
    """

    default_detail = "The session has ended."
    default_code = "session_expired"


class SessionRevoked(NotAuthenticated):
    """401: somebody ended the session, for a reason that the user may see, or None."""

    default_detail = "The session was revoked."
    default_code = "session_revoked"

    def __init__(self, reason: str | None = None) -> None:
        super().__init__()
        self.reason = reason


class DeviceProofRequired(NotAuthenticated):
    """401: the session lives, and is bound to a device, whose proof is missing or has expired.

    The cookie stays: the browser goes on with it once it has proved the device.
    """

    default_detail = "The session is bound to a device, whose proof is missing."
    default_code = "device_proof_required"


class DeviceBindingRequired(NotAuthenticated):
    """401: the session had to be bound to a device by now."""

    default_detail = "The session had to be bound to a device. Sign in again."
    default_code = "device_binding_required"


class DeviceBoundRequired(PermissionDenied):
    default_detail = "This needs a session that is bound to your device."
    default_code = "device_bound_required"


class DeviceProofStale(PermissionDenied):
    """403: the device has to prove itself again; repeat the request then."""

    default_detail = "Your device has to prove itself again. Repeat the request."
    default_code = "device_proof_stale"


class DeviceChallenged(PermissionDenied):
    """403: the device is to sign what Secure-Session-Challenge has, if it came with it."""

    default_detail = "The device has to sign the challenge."
    default_code = "device_challenge"


class DeviceAnswerInvalid(ParseError):
    """400: what the browser sent is not signed by the device, or not as it has to be."""

    default_detail = "The device's answer is not valid."
    default_code = "device_answer_invalid"


class DeviceAlreadyBound(APIException):
    status_code = status.HTTP_409_CONFLICT
    default_detail = "The session is bound to a device already."
    default_code = "device_already_bound"


class TokenReused(NotAuthenticated):
    default_detail = "The session was revoked because a replaced token was used again."
    default_code = "token_reused"


class ServiceUnavailable(APIException):
    """503 with Retry-After: ask again, keep the cookie."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "The session store cannot answer at the moment."
    default_code = "store_unavailable"

    def __init__(self, wait: int | None = None, detail: Any = None, code: Any = None) -> None:
        super().__init__(detail, code)
        # DRF's exception handler makes Retry-After of it.
        self.wait = settings.RETRY_AFTER if wait is None else wait


class SessionLimit(APIException):
    status_code = status.HTTP_409_CONFLICT
    default_detail = "You have reached the limit of sessions."
    default_code = "session_limit_reached"

    def __init__(self, sessions: Sequence[ListedSession] = ()) -> None:
        super().__init__()
        #: For the user to choose from.
        self.sessions = sessions


class TokenReplaced(APIException):
    """409: another request has got the session's new token, and the browser with it."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = "The session's token has been replaced. Repeat the request with the new one."
    default_code = "token_replaced"


class PreconditionFailed(APIException):
    status_code = status.HTTP_412_PRECONDITION_FAILED
    default_detail = "The session was changed concurrently."
    default_code = "version_conflict"


class PayloadTooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "The session data is too large."
    default_code = "too_large"


class CorruptData(APIException):
    default_detail = "The session's data cannot be read."
    default_code = "session_data_corrupt"


_MEANING: dict[type[SessionError], type[APIException]] = {
    StoreUnavailable: ServiceUnavailable,
    DataCorrupt: CorruptData,
    VersionConflict: PreconditionFailed,
    TooLarge: PayloadTooLarge,
    SessionEnded: SessionExpired,
}


def as_api_exception(error: SessionError) -> APIException:
    """An exception of the service's as the HTTP status that it is answered with."""
    if isinstance(error, LimitReached):
        return SessionLimit(error.sessions)
    for kind, meaning in _MEANING.items():
        if isinstance(error, kind):
            return meaning()
    return ParseError(str(error))


def body_of(exc: APIException) -> dict[str, Any]:
    """What the answer says of an error."""
    body = {"detail": str(exc.detail), "code": getattr(exc.detail, "code", "error")}
    if isinstance(exc, SessionRevoked) and exc.reason is not None:
        body["reason"] = exc.reason
    if isinstance(exc, SessionLimit):
        body["sessions"] = ListedSessionSerializer(exc.sessions, many=True).data
    return body
