"""What a sign-in leads to: the user's tenants, and the plan of the one acted for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from session_manager.conf import settings as session_settings
from session_manager.login_policy import LoginDecision
from session_manager.services import session_service
from session_manager.types import Session

from .models import Tenant


def tenants_of(user_id: str) -> list[Tenant]:
    return list(Tenant.objects.filter(membership__user_id=user_id).order_by("id"))


def session_data(tenant: Tenant, tenants: list[Tenant]) -> dict[str, Any]:
    """What the session keeps; the browser may read it and not write it."""
    return {
        "plan": tenant.plan,
        "subscription": {"plan": tenant.plan, "status": tenant.status},
        "tenants": [{"id": t.id, "name": t.name} for t in tenants],
    }


def on_login(request: Request, claims: Mapping[str, Any]) -> LoginDecision:
    tenants = tenants_of(claims["sub"])
    if not tenants:
        raise PermissionDenied("You belong to no organisation.", "no_tenant")
    if session_settings.USER_ID_FIELD:
        get_user_model().objects.get_or_create(username=claims["sub"])
    return LoginDecision(claims["sub"], session_data(tenants[0], tenants), tenants[0].id)


def on_switch_tenant(request: Request, session: Session, tenant_id: str) -> dict[str, Any] | None:
    tenants = tenants_of(session.user_id)
    tenant = next((t for t in tenants if t.id == tenant_id), None)
    if tenant is None:
        return None
    return {**session.data, **session_data(tenant, tenants)}


def change_plan(tenant: Tenant, plan: str) -> int:
    """Change a tenant's plan, in the sessions that act for it too; how many there are."""
    tenant.plan = plan
    tenant.save(update_fields=["plan"])
    patch = {"plan": plan, "subscription": {"plan": plan}}
    return sum(
        session_service.update_user(member.user_id, patch, tenant_id=tenant.id)
        for member in tenant.membership_set.all()
    )
