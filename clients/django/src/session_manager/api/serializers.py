"""What the session endpoints say and accept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rest_framework import serializers


class TimestampField(serializers.DateTimeField):
    """ISO 8601 with offset, whatever USE_TZ says."""

    def to_representation(self, value: datetime) -> str:
        return value.isoformat()


class TextField(serializers.CharField):
    """A string as it was sent: DRF's field takes numbers, and trims."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_length=1, trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class FlagField(serializers.BooleanField):
    """true or false: DRF's field takes 0, "on" and the like, too."""

    # Not false, as in a form with a box that is not ticked: DRF takes an empty body for such a form
    # if its media type is a form's.
    default_empty_html = serializers.empty

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class ClientDataField(serializers.DictField):
    """Members of the session's data that CLIENT_DATA names; login_policy refuses others."""


class _ReadOnly(serializers.Serializer[Any]):
    def create(self, validated_data: Any) -> Any:
        raise NotImplementedError

    def update(self, instance: Any, validated_data: Any) -> Any:
        raise NotImplementedError


class SessionSerializer(_ReadOnly):
    """The session of the request."""

    id = serializers.UUIDField()
    created_at = TimestampField()
    authenticated_at = TimestampField()
    last_seen_at = TimestampField()
    expires_at = TimestampField()
    absolute_expires_at = TimestampField()
    version = serializers.IntegerField()
    tenant_id = serializers.CharField(allow_null=True)
    auth = serializers.DictField(allow_null=True)
    actor = serializers.CharField(
        allow_null=True, help_text="The user id of who acts as the user; null: the user."
    )
    device_bound = serializers.BooleanField(
        help_text="Whether the session is bound to the browser's device."
    )
    data = serializers.DictField()  # type: ignore[assignment]


class UserSerializer(_ReadOnly):
    """The user: what the application knows, beside what the browser said at sign-in."""

    id = serializers.CharField()
    name = serializers.CharField(required=False)
    nickname = serializers.CharField(required=False)
    given_name = serializers.CharField(required=False)
    family_name = serializers.CharField(required=False)
    email = serializers.CharField(required=False)
    picture = serializers.CharField(required=False)
    locale = serializers.CharField(required=False)
    username = serializers.CharField(required=False)


class CurrentSerializer(_ReadOnly):
    session = SessionSerializer()
    user = UserSerializer()
    server_time = TimestampField()


class IssuedSerializer(CurrentSerializer):
    token = serializers.CharField(
        required=False, help_text="A new token, for a client without cookies alone (BEARER)."
    )


class RefreshResponseSerializer(IssuedSerializer):
    status = serializers.ChoiceField(choices=("extended", "rotated", "already_rotated"))


class ListedSessionSerializer(_ReadOnly):
    """A session in the list of devices."""

    id = serializers.UUIDField()
    tenant_id = serializers.CharField(allow_null=True)
    is_current = serializers.BooleanField()
    created_at = TimestampField()
    last_seen_at = TimestampField()
    expires_at = TimestampField()
    absolute_expires_at = TimestampField()
    ip = serializers.IPAddressField(allow_null=True)
    user_agent = serializers.CharField(allow_null=True)
    auth = serializers.DictField(allow_null=True)
    actor = serializers.CharField(allow_null=True)
    device_thumbprint = serializers.CharField(
        allow_null=True, help_text="Of the key of the device that it is bound to; null: to none."
    )
    device_bound_at = TimestampField(allow_null=True)


class SessionListSerializer(_ReadOnly):
    results = ListedSessionSerializer(many=True)
    next = serializers.CharField(allow_null=True)


class DeviceScopeSerializer(_ReadOnly):
    origin = serializers.CharField()
    include_site = serializers.BooleanField()
    scope_specification = serializers.ListField(child=serializers.DictField())


class DeviceCredentialSerializer(_ReadOnly):
    type = serializers.CharField()
    name = serializers.CharField()
    attributes = serializers.CharField()


class DeviceBindingSerializer(_ReadOnly):
    """What the browser has to know of a binding; of one that is over, that it is."""

    session_identifier = serializers.UUIDField()
    refresh_url = serializers.CharField(required=False)
    scope = DeviceScopeSerializer(required=False)
    credentials = DeviceCredentialSerializer(many=True, required=False)

    def get_fields(self) -> Any:
        # A keyword of Python's.
        return {**super().get_fields(), "continue": serializers.BooleanField(required=False)}


class InvalidatedSerializer(_ReadOnly):
    invalidated = serializers.IntegerField()


class ErrorSerializer(_ReadOnly):
    detail = serializers.CharField()
    code = serializers.CharField()


class RefusalSerializer(ErrorSerializer):
    """401.  With the code session_revoked, why somebody ended the session."""

    reason = serializers.CharField(required=False)


class LimitErrorSerializer(ErrorSerializer):
    """Too many sessions, and those there are."""

    sessions = ListedSessionSerializer(many=True)


class CreateRequestSerializer(_ReadOnly):
    """The body of create.  The user id is the token's subject, whatever stands here."""

    access_token = TextField(required=False, help_text="Instead of the Authorization header.")
    user = serializers.DictField(
        required=False, help_text="The user's profile as the browser knows it; for display only."
    )
    data = ClientDataField(required=False)  # type: ignore[assignment]
    remember = FlagField(
        required=False,
        help_text="False: the cookie lasts until the browser is closed; true: as the session.",
    )


class RefreshRequestSerializer(_ReadOnly):
    rotate = FlagField(
        required=False, help_text="Whether to replace the token; the default is ROTATE_ON_REFRESH."
    )


class SwitchTenantRequestSerializer(_ReadOnly):
    tenant_id = TextField(max_length=512)


class InvalidateAllRequestSerializer(_ReadOnly):
    except_current = FlagField(default=False)


class ListQuerySerializer(_ReadOnly):
    after = serializers.UUIDField(required=False)
    limit = serializers.IntegerField(required=False, default=100, min_value=1, max_value=100)
