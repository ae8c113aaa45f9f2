"""What an application may name in the settings."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from rest_framework.exceptions import PermissionDenied

from session_manager.logins import LoginDecision


def on_login(request: Any, claims: dict[str, Any]) -> LoginDecision:
    if claims["sub"] == "auth0|blocked":
        raise PermissionDenied("You are blocked.", "blocked")
    return LoginDecision(claims["sub"], {"plan": "team"}, "acme")


def on_login_that_writes(request: Any, claims: dict[str, Any]) -> LoginDecision:
    user, _ = get_user_model().objects.get_or_create(username=claims["sub"])
    return LoginDecision(user.username)


def on_switch_tenant_that_writes(request: Any, session: Any, tenant_id: str) -> dict[str, Any]:
    get_user_model().objects.get_or_create(username=session.user_id)
    return {}


def on_switch_tenant(request: Any, session: Any, tenant_id: str) -> dict[str, Any] | None:
    if tenant_id != "globex":
        return None
    return {**session.data, "plan": f"of {tenant_id}"}


def on_switch_tenant_too_large(request: Any, session: Any, tenant_id: str) -> dict[str, Any]:
    return {"x": "y" * 66000}


def load_by_name(user_id: str, session: Any) -> Any:
    return get_user_model().objects.filter(username=user_id).first()


def import_data(user: Any, data: dict[str, Any]) -> dict[str, Any]:
    return {"cart": data.get("cart", [])}
