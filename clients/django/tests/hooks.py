"""What an application may name in the settings."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from rest_framework.exceptions import PermissionDenied

from session_manager.login_policy import LoginDecision


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


def import_all(user: Any, data: dict[str, Any]) -> Any:
    if data.get("divide"):
        return 1 / 0
    return data.get("kept", {})


_imported: list[Any] = []


def import_slowly(user: Any, data: dict[str, Any]) -> dict[str, Any]:
    """Waits in the third batch of ten until the process is interrupted."""
    _imported.append(user.pk)
    if len(_imported) > 25:
        Path(os.environ["SM_TEST_GATE"]).touch()
        time.sleep(600)
    return {}


def on_login_not_remembered(request: Any, claims: dict[str, Any]) -> LoginDecision:
    return LoginDecision(claims["sub"], remember=False)


def may_impersonate(request: Any, actor: Any, user: Any) -> bool:
    return str(actor) == "grace" and str(user) == "boss"


def device_by_name(request: Any, user_id: str) -> str:
    """Staff must be bound, others may be, and some are not."""
    if user_id.startswith("staff"):
        return "require"
    return "off" if user_id.startswith("old") else "offer"


def device_nonsense(request: Any, user_id: str) -> str:
    return "perhaps"


def on_login_with_device(request: Any, claims: dict[str, Any]) -> LoginDecision:
    mode = "require" if claims["sub"].startswith("staff") else "off"
    return LoginDecision(claims["sub"], device_bound=mode)
