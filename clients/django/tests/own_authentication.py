"""Authentication classes for access tokens as applications have them, made without this package."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jwt
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication

User = get_user_model()


class Auth0JWTAuthentication(BaseAuthentication):
    """Verifies the token with PyJWT and the issuer's key set; returns the claims."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        header = request.headers.get("Authorization", "")
        if not header.startswith("Bearer "):
            return None
        token = header.removeprefix("Bearer ")
        try:
            key = jwt.PyJWKClient(settings.OWN_ISSUER["JWKS_URL"]).get_signing_key_from_jwt(token)
            claims = jwt.decode(
                token,
                key.key,
                algorithms=["RS256"],
                audience=settings.OWN_ISSUER["AUDIENCE"],
                issuer=settings.OWN_ISSUER["ISSUER"],
            )
        except jwt.ExpiredSignatureError:
            raise exceptions.AuthenticationFailed("Token expired", "token_expired") from None
        except jwt.PyJWTError as error:
            raise exceptions.AuthenticationFailed(f"Token rejected: {error}") from None
        return self.found(request, claims, token)

    def found(self, request: Any, claims: dict[str, Any], token: str) -> tuple[Any, Any]:
        user, _ = User.objects.get_or_create(username=claims["sub"])
        if not user.is_active:
            raise exceptions.AuthenticationFailed("User is inactive")
        return user, claims

    def authenticate_header(self, request: Any) -> str:
        return 'Bearer realm="acme"'


class WithRawToken(Auth0JWTAuthentication):
    """As mozilla-django-oidc does."""

    def found(self, request: Any, claims: dict[str, Any], token: str) -> tuple[Any, Any]:
        return super().found(request, claims, token)[0], token


class WithPayload(Auth0JWTAuthentication):
    """As djangorestframework-simplejwt does, whose errors are dictionaries."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        try:
            return super().authenticate(request)
        except exceptions.AuthenticationFailed:
            detail = {"detail": "Given token not valid", "code": "token_not_valid", "messages": []}
            raise exceptions.AuthenticationFailed(detail) from None  # type: ignore[arg-type]

    def found(self, request: Any, claims: dict[str, Any], token: str) -> tuple[Any, Any]:
        return super().found(request, claims, token)[0], SimpleNamespace(payload=claims)


class WithoutUserModel(Auth0JWTAuthentication):
    """A user who is nothing but the claims; no word of how to authenticate."""

    def found(self, request: Any, claims: dict[str, Any], token: str) -> tuple[Any, Any]:
        return SimpleNamespace(is_authenticated=True, sub=claims["sub"]), None

    def authenticate_header(self, request: Any) -> str:
        return None  # type: ignore[return-value]


class Impersonating(Auth0JWTAuthentication):
    """The user is another than the subject."""

    def found(self, request: Any, claims: dict[str, Any], token: str) -> tuple[Any, Any]:
        user, _ = User.objects.get_or_create(username=claims["on_behalf_of"])
        return user, claims


class Inactive(Auth0JWTAuthentication):
    def found(self, request: Any, claims: dict[str, Any], token: str) -> tuple[Any, Any]:
        return User.objects.create(username=claims["sub"], is_active=False), claims


class Anonymous(Auth0JWTAuthentication):
    def found(self, request: Any, claims: dict[str, Any], token: str) -> tuple[Any, Any]:
        return AnonymousUser(), claims


class Opaque(BaseAuthentication):
    """A token of the application's own, behind a word of its own, as DRF's TokenAuthentication."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme != "Token":
            return None
        user = User.objects.filter(username=f"owner of {token}").first()
        if user is None:
            raise exceptions.AuthenticationFailed(["Invalid token."])  # type: ignore[arg-type]
        return user, token

    def authenticate_header(self, request: Any) -> str:
        return "Token"
