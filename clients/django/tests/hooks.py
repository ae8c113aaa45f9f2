"""What an application may name in the settings."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import PermissionDenied

from session_manager.logins import LoginDecision


def on_login(request: Any, claims: dict[str, Any]) -> LoginDecision:
    if claims["sub"] == "auth0|blocked":
        raise PermissionDenied("You are blocked.", "blocked")
    return LoginDecision(claims["sub"], {"plan": "team"}, "acme")


def on_switch_tenant(request: Any, session: Any, tenant_id: str) -> dict[str, Any] | None:
    if tenant_id != "globex":
        return None
    return {**session.data, "plan": f"of {tenant_id}"}


def on_switch_tenant_too_large(request: Any, session: Any, tenant_id: str) -> dict[str, Any]:
    return {"x": "y" * 66000}


def import_data(user: Any, data: dict[str, Any]) -> dict[str, Any]:
    return {"cart": data.get("cart", [])}
