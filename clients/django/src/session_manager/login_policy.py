"""What a verified access token leads to.

ON_LOGIN names a function of the application's that makes users, sets plans and tenants, or refuses:

    def on_login(request, claims):
        user, _ = User.objects.get_or_create(auth0_id=claims["sub"])
        return LoginDecision(user_id=claims["sub"], data={"plan": user.plan})

It raises rest_framework.exceptions.PermissionDenied to refuse (403).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rest_framework.exceptions import ParseError, PermissionDenied
from rest_framework.request import Request

from .api.access_tokens import VerifiedLogin
from .api.profiles import displayable_profile, refuse_other_profile
from .conf import Auth0Settings, settings
from .store.database import translating_errors
from .types import JSON, Session

# Claims that say how the user proved who they are.
_PROOF = ("acr", "amr", "auth_time", "azp", "sid")


@dataclass
class LoginDecision:
    """What the new session is to hold.

    data: what the server knows; its members win over those that the browser sent.  tenant_id:
    fixed for the session's life.  remember: as log_in's; by default what the browser has asked for.
    device_bound: "off", "offer" or "require"; by default as DEVICE_BOUND says, and always "off"
    where that is.
    """

    user_id: str
    data: JSON = field(default_factory=dict)
    tenant_id: str | None = None
    remember: bool | None = None
    device_bound: str | None = None


def refuse_protected(data: Mapping[str, Any]) -> None:
    """400 if a browser tries to write, or to remove, what only the server may."""
    if not set(data) <= set(settings.CLIENT_DATA):
        # What it sent is not repeated: there may be much of it, and anything.
        names = ", ".join(settings.CLIENT_DATA) or "none"
        raise ParseError(
            f"A browser may write only these members of the session's data: {names}.",
            "protected_data",
        )


def decide_login(
    request: Request, verified: VerifiedLogin, body: Mapping[str, Any]
) -> LoginDecision:
    """The session for a verified token and the body of the request."""
    claims = verified.claims
    given = dict(body.get("data") or {})
    refuse_protected(given)
    refuse_other_profile(body.get("user"), claims["sub"])
    profile = displayable_profile(body.get("user"))
    if profile:
        given["profile"] = profile
    tenant_claim = (settings.AUTH0 or Auth0Settings).TENANT_CLAIM
    tenant = claims.get(tenant_claim) if tenant_claim else None
    decision = LoginDecision(
        verified.user_id, tenant_id=tenant if isinstance(tenant, str) else None
    )
    if settings.ON_LOGIN:
        with translating_errors():
            decision = settings.load(settings.ON_LOGIN)(request, claims)
        if not isinstance(decision, LoginDecision):
            raise PermissionDenied
    decision.data = {**given, **decision.data}
    if decision.remember is None:
        decision.remember = body.get("remember")
    return decision


def decide_tenant(request: Request, session: Session, tenant_id: str) -> JSON:
    """The data of a user's session in another tenant; 403 unless ON_SWITCH_TENANT allows it."""
    data = None
    if settings.ON_SWITCH_TENANT:
        with translating_errors():
            data = settings.load(settings.ON_SWITCH_TENANT)(request, session, tenant_id)
    if not isinstance(data, dict):
        raise PermissionDenied("You may not act for this tenant.", "tenant_refused")
    return data


def proof_of(verified: VerifiedLogin) -> JSON:
    """How the user proved who they are, for the session's ``auth``."""
    claims = verified.claims
    return {"method": verified.method, **{name: claims[name] for name in _PROOF if name in claims}}
