"""The endpoints for drf-spectacular; imported where that is installed."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import (
    OpenApiAuthenticationExtension,
    OpenApiSerializerFieldExtension,
    OpenApiViewExtension,
)
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

from ..conf import settings
from . import serializers as s

RETRY_AFTER = OpenApiParameter(
    "Retry-After", int, OpenApiParameter.HEADER, response=[429, 503], description="seconds"
)
ETAG = OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=[200, 201])
COOKIE = OpenApiParameter(
    "Set-Cookie", str, OpenApiParameter.HEADER, response=True, description="the session's cookie"
)
ERRORS = {
    400: "The request is malformed.",
    401: "There is no live session, or no valid access token.",
    403: "The CSRF check failed, or the application refuses the request.",
    404: "The user has no such session.",
    409: "The user has reached the limit of sessions, or the token has been replaced.",
    412: "The session has changed.",
    413: "The data, or the request, is too large.",
    415: "The body is not JSON.",
    429: "Too many requests.",
    500: "The session's data has been tampered with.",
    503: "The store cannot answer; the cookie remains valid.",
}


def responses(success: dict[int, Any], *codes: int, throttled: bool = True) -> dict[int, Any]:
    """The responses of an operation, and the errors that it can have."""
    common = (429, 503) if throttled else (503,)
    return {
        **success,
        **{
            code: OpenApiResponse(
                s.RefusalSerializer if code == 401 else s.ErrorSerializer, ERRORS[code]
            )
            for code in (*codes, *common)
        },
    }


def alternatives() -> list[str]:
    """The schemes by which a request names its session."""
    return ["session", "sessionBearer"] if settings.BEARER else ["session"]


def transport() -> list[OpenApiParameter]:
    """The header by which a client without cookies asks for the token in the body."""
    if not settings.BEARER:
        return []
    text = "bearer: return the token in the body, and set no cookie; not for pages in a browser"
    return [
        OpenApiParameter(
            "Session-Transport", str, OpenApiParameter.HEADER, enum=["bearer"], description=text
        )
    ]


def client_data() -> dict[str, Any]:
    """What a browser may write of the session's data."""
    members: dict[str, Any] = {name: {} for name in settings.CLIENT_DATA}
    return {"type": "object", "properties": members, "additionalProperties": False}


class ClientDataSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "session_manager.api.serializers.ClientDataField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return client_data()


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "session_manager.authentication.SessionAuthentication"
    name = ["session", "sessionBearer"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        schemes = [
            {"type": "apiKey", "in": "cookie", "name": settings.cookie_name},
            {"type": "http", "scheme": "bearer", "bearerFormat": "sm1_"},
        ]
        return schemes[: len(alternatives())]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        return [{name: []} for name in alternatives()]


class AccessTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "session_manager.auth0.Auth0Authentication"
    name = "accessToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


class _View(OpenApiViewExtension):  # type: ignore[no-untyped-call]
    match_subclasses = True


class CreateView(_View):  # type: ignore[no-untyped-call]
    target_class = "session_manager.api.views.CreateSessionView"

    def view_replacement(self) -> Any:
        class Fixed(self.target_class):  # type: ignore[name-defined,misc]
            @extend_schema(
                operation_id="session_create",
                summary="Exchange an access token for a session",
                auth=[{"accessToken": []}],  # type: ignore[list-item]
                parameters=[*transport(), ETAG, COOKIE, RETRY_AFTER],
                request=s.CreateRequestSerializer,
                responses={
                    **responses({201: s.IssuedSerializer}, 400, 401, 403, 413, 415),
                    409: OpenApiResponse(s.LimitErrorSerializer, ERRORS[409]),
                },
            )
            def post(self, request: Any) -> Any: ...

        return Fixed


class CurrentView(_View):  # type: ignore[no-untyped-call]
    target_class = "session_manager.api.views.CurrentSessionView"

    def view_replacement(self) -> Any:
        class Fixed(self.target_class):  # type: ignore[name-defined,misc]
            @extend_schema(
                operation_id="session_current",
                summary="The session of the request",
                parameters=[ETAG, RETRY_AFTER],
                responses=responses({200: s.CurrentSerializer}, 401, 500),
            )
            def get(self, request: Any) -> Any: ...

            @extend_schema(
                operation_id="session_update",
                summary="Change the session's data by JSON Merge Patch",
                parameters=[
                    OpenApiParameter("If-Match", str, OpenApiParameter.HEADER),
                    ETAG,
                    RETRY_AFTER,
                ],
                request={
                    "application/json": client_data(),
                    "application/merge-patch+json": client_data(),
                },
                responses=responses({200: s.CurrentSerializer}, 400, 401, 403, 412, 413, 415, 500),
            )
            def patch(self, request: Any) -> Any: ...

            @extend_schema(
                operation_id="session_logout",
                summary="Sign out",
                parameters=[COOKIE, RETRY_AFTER],
                request=None,
                responses=responses({204: None}, 403),
            )
            def delete(self, request: Any) -> Any: ...

        return Fixed


class RefreshView(_View):  # type: ignore[no-untyped-call]
    target_class = "session_manager.api.views.RefreshSessionView"

    def view_replacement(self) -> Any:
        class Fixed(self.target_class):  # type: ignore[name-defined,misc]
            @extend_schema(
                operation_id="session_refresh",
                summary="Extend the session",
                auth=[{name: []} for name in alternatives()],  # type: ignore[misc]
                parameters=[ETAG, COOKIE, RETRY_AFTER],
                request=s.RefreshRequestSerializer,
                responses=responses(
                    {200: s.RefreshResponseSerializer}, 400, 401, 403, 413, 415, 500
                ),
            )
            def post(self, request: Any) -> Any: ...

        return Fixed


class TenantView(_View):  # type: ignore[no-untyped-call]
    target_class = "session_manager.api.views.SwitchTenantView"

    def view_replacement(self) -> Any:
        class Fixed(self.target_class):  # type: ignore[name-defined,misc]
            @extend_schema(
                operation_id="session_switch_tenant",
                summary="Switch to another tenant, with a new session",
                parameters=[ETAG, COOKIE, RETRY_AFTER],
                request=s.SwitchTenantRequestSerializer,
                responses=responses({200: s.IssuedSerializer}, 400, 401, 403, 409, 413, 415, 500),
            )
            def post(self, request: Any) -> Any: ...

        return Fixed


class ImpersonationView(_View):  # type: ignore[no-untyped-call]
    target_class = "session_manager.api.views.ImpersonationView"

    def view_replacement(self) -> Any:
        class Fixed(self.target_class):  # type: ignore[name-defined,misc]
            @extend_schema(
                operation_id="session_stop_impersonation",
                summary="Return from acting as somebody else",
                auth=[{"session": []}],  # type: ignore[list-item]
                parameters=[ETAG, COOKIE, RETRY_AFTER],
                request=None,
                responses=responses({200: s.CurrentSerializer}, 401, 403, 500),
            )
            def delete(self, request: Any) -> Any: ...

        return Fixed


class ListView(_View):  # type: ignore[no-untyped-call]
    target_class = "session_manager.api.views.SessionListView"

    def view_replacement(self) -> Any:
        class Fixed(self.target_class):  # type: ignore[name-defined,misc]
            @extend_schema(
                operation_id="session_list",
                summary="The user's sessions, newest first",
                parameters=[s.ListQuerySerializer, RETRY_AFTER],
                responses=responses({200: s.SessionListSerializer}, 400, 401, 500),
            )
            def get(self, request: Any) -> Any: ...

        return Fixed


class DetailView(_View):  # type: ignore[no-untyped-call]
    target_class = "session_manager.api.views.SessionDetailView"

    def view_replacement(self) -> Any:
        class Fixed(self.target_class):  # type: ignore[name-defined,misc]
            @extend_schema(
                operation_id="session_end",
                summary="End one of the user's sessions",
                parameters=[
                    OpenApiParameter("session_id", OpenApiTypes.UUID, OpenApiParameter.PATH),
                    COOKIE,
                    RETRY_AFTER,
                ],
                request=None,
                responses=responses({204: None}, 401, 403, 404, 500),
            )
            def delete(self, request: Any, session_id: Any) -> Any: ...

        return Fixed


def header(name: str, description: str, *, response: Any = False) -> OpenApiParameter:
    return OpenApiParameter(
        name, str, OpenApiParameter.HEADER, response=response, description=description
    )


CHALLENGE = header(
    "Secure-Session-Challenge", "what the device is to sign next", response=[200, 403]
)


class RegisterDeviceView(_View):  # type: ignore[no-untyped-call]
    target_class = "session_manager.api.device_views.RegisterDeviceView"

    def view_replacement(self) -> Any:
        class Fixed(self.target_class):  # type: ignore[name-defined,misc]
            @extend_schema(
                operation_id="session_bind_device",
                summary="Bind the session to the browser's device; browsers call this themselves",
                auth=[{"session": []}],  # type: ignore[list-item]
                parameters=[
                    header("Secure-Session-Response", "the JSON Web Token that the device signed"),
                    CHALLENGE,
                    COOKIE,
                    RETRY_AFTER,
                ],
                request=None,
                responses=responses({200: s.DeviceBindingSerializer}, 400, 401, 403, 409, 500),
            )
            def post(self, request: Any) -> Any: ...

        return Fixed


class RefreshDeviceView(_View):  # type: ignore[no-untyped-call]
    target_class = "session_manager.api.device_views.RefreshDeviceView"

    def view_replacement(self) -> Any:
        class Fixed(self.target_class):  # type: ignore[name-defined,misc]
            @extend_schema(
                operation_id="session_prove_device",
                summary="A new proof of the browser's device; browsers call this themselves",
                auth=[{"session": []}],  # type: ignore[list-item]
                parameters=[
                    OpenApiParameter(
                        "Sec-Secure-Session-Id",
                        OpenApiTypes.UUID,
                        OpenApiParameter.HEADER,
                        required=True,
                        description="the session_identifier of the registration",
                    ),
                    header("Secure-Session-Response", "the JSON Web Token that the device signed"),
                    CHALLENGE,
                    COOKIE,
                    RETRY_AFTER,
                ],
                request=None,
                responses=responses(
                    {200: s.DeviceBindingSerializer}, 400, 403, 500, throttled=False
                ),
            )
            def post(self, request: Any) -> Any: ...

        return Fixed


class InvalidateAllView(_View):  # type: ignore[no-untyped-call]
    target_class = "session_manager.api.views.InvalidateAllView"

    def view_replacement(self) -> Any:
        class Fixed(self.target_class):  # type: ignore[name-defined,misc]
            @extend_schema(
                operation_id="session_invalidate_all",
                summary="Sign out everywhere, or everywhere else",
                parameters=[COOKIE, RETRY_AFTER],
                request=s.InvalidateAllRequestSerializer,
                responses=responses({200: s.InvalidatedSerializer}, 400, 401, 403, 413, 415, 500),
            )
            def post(self, request: Any) -> Any: ...

        return Fixed
