"""The access token that a login comes with: verified, and whose it is.

By the verifier of auth0.py, or by an authentication class of the application's own that
LOGIN_AUTHENTICATION names: one of DRF's kind, as it stands in DEFAULT_AUTHENTICATION_CLASSES.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jwt
from django.db.models import Model
from rest_framework.authentication import get_authorization_header
from rest_framework.exceptions import (
    AuthenticationFailed,
    ErrorDetail,
    NotAuthenticated,
    PermissionDenied,
)
from rest_framework.request import Request

from ..auth0 import InvalidToken, bearer_token, verifier
from ..conf import settings
from ..http.bearer import names_session
from ..store.database import translating_errors
from ..store.users import SessionUser, user_id_of

CHALLENGE = 'Bearer realm="api"'


@dataclass(frozen=True)
class VerifiedLogin:
    """Who has been authenticated, and by what; ``sub`` is always among the claims."""

    user_id: str
    claims: Mapping[str, Any]
    method: str


def verify_access_token(request: Request, sent: str | None) -> VerifiedLogin:
    """Verify a login's access token: the Authorization header's, else the one sent in the body.

    401 without one, or if it is not accepted; 503 if what would tell cannot be reached.
    """
    if settings.LOGIN_AUTHENTICATION:
        return _by_class(request, sent)
    token = bearer_token(request)
    if token is None or names_session(token):
        token = sent
    if token is None:
        raise NotAuthenticated("An access token is required.")
    claims = verifier().verify(token)
    return VerifiedLogin(claims["sub"], claims, "oidc")


def authenticate_header(request: Request) -> str:
    """WWW-Authenticate of a 401, which is never absent: without it DRF would answer 403."""
    if not settings.LOGIN_AUTHENTICATION:
        return CHALLENGE
    return _authenticator().authenticate_header(request) or CHALLENGE


def _authenticator() -> Any:
    return settings.load(str(settings.LOGIN_AUTHENTICATION))()


def _by_class(request: Request, sent: str | None) -> VerifiedLogin:
    if sent is not None and not sent.isascii():
        # No access token, and classes do not expect it in a header.
        raise InvalidToken
    authenticator = _authenticator()
    try:
        with _in_header(request, authenticator, sent), translating_errors():
            found = authenticator.authenticate(request)
    except AuthenticationFailed as error:
        raise _refusal(error) from error
    if found is None:
        raise NotAuthenticated("An access token is required.")
    user, auth = found
    if not getattr(user, "is_authenticated", True):
        raise NotAuthenticated("An access token is required.")
    if not getattr(user, "is_active", True):
        raise PermissionDenied("The user does not exist.", "user_not_found")
    # For ON_LOGIN, as in any view of the application's that the class lets somebody into.
    request.user, request.auth = user, auth
    claims = _claims(auth)
    user_id = _user_id(user, claims)
    return VerifiedLogin(user_id, {"sub": user_id, **claims}, "access_token")


@contextmanager
def _in_header(request: Request, authenticator: Any, sent: str | None) -> Iterator[None]:
    """Let a token that came in the body be where authentication classes look for it."""
    # DRF's own have "Token realm=…", for example, and want that word before the token.
    scheme = (authenticator.authenticate_header(request) or CHALLENGE).split()[0]
    given = get_authorization_header(request).split()
    ours = len(given) == 2 and names_session(given[1].decode("latin-1"))
    if sent is None or (given and given[0].lower() == scheme.lower().encode() and not ours):
        yield
        return
    meta, before = request.META, request.META.get("HTTP_AUTHORIZATION")
    try:
        meta["HTTP_AUTHORIZATION"] = f"{scheme} {sent}"
        # Made from META when it was first looked at.
        request._request.__dict__.pop("headers", None)
        yield
    finally:
        del meta["HTTP_AUTHORIZATION"]
        if before is not None:
            meta["HTTP_AUTHORIZATION"] = before
        request._request.__dict__.pop("headers", None)


def _claims(auth: Any) -> dict[str, Any]:
    """The claims of what a class returns beside the user: them, a token, or something else."""
    if isinstance(auth, Mapping):
        return dict(auth)
    payload = getattr(auth, "payload", None)  # of djangorestframework-simplejwt's tokens
    if isinstance(payload, Mapping):
        return dict(payload)
    if isinstance(auth, (str, bytes)):
        # The class has verified it; what is no JWT has no claims.
        try:
            return dict(jwt.decode(auth, options={"verify_signature": False}))
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return {}
    return {}


def _user_id(user: Any, claims: Mapping[str, Any]) -> str:
    """Whom the class names: a user of the application's, whatever subject the token has."""
    if isinstance(user, SessionUser):
        return user.user_id
    if isinstance(user, Model):
        if getattr(user, settings.USER_ID_FIELD or "pk") in (None, ""):
            raise PermissionDenied("The user does not exist.", "user_not_found")
        return user_id_of(user)
    for subject in (claims.get("sub"), getattr(user, "sub", None), getattr(user, "id", None)):
        if isinstance(subject, str) and subject:
            return subject
    raise InvalidToken("The access token names no user.")


def _refusal(error: AuthenticationFailed) -> InvalidToken:
    """401 in the endpoints' form, with what the class says."""
    detail: Any = error.detail
    code = None
    if isinstance(detail, Mapping):  # djangorestframework-simplejwt's
        code, detail = detail.get("code"), detail.get("detail", "")
    if isinstance(detail, list):
        detail = detail[0] if detail else ""
    if code is None and isinstance(detail, ErrorDetail):
        code = detail.code
    code = str(code)
    if code == AuthenticationFailed.default_code or not re.fullmatch("[a-z][a-z0-9_]{0,31}", code):
        code = InvalidToken.default_code
    return InvalidToken(str(detail) or None, code)
