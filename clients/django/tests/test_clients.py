"""Test clients that are signed in, and the fixtures for pytest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client as PlainClient
from django.test import TestCase
from rest_framework.test import APIClient as PlainAPIClient

from session_manager.conf import settings
from session_manager.services import session_service
from session_manager.testing import APIClient, AsyncClient, Client, force_session
from session_manager.types import CreatedSession

from .test_in_memory import run_case

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("backend")]

CURRENT = "/api/sessions/current/"


def test_force_session(session_client: Client, user_id: str) -> None:
    created = session_client.force_session(
        user_id,
        {"plan": "free"},
        tenant_id="acme",
        auth={"amr": ["pwd", "otp"]},
        ip="203.0.113.7",
        user_agent="a phone",
        ttl=timedelta(minutes=5),
    )
    assert session_client.get("/info/").json() == {
        "exists": True,
        "user": user_id,
        "data": {"plan": "free"},
    }
    session = session_client.get(CURRENT).json()["session"]
    assert session["id"] == str(created.id)
    assert (session["tenant_id"], session["auth"]) == ("acme", {"amr": ["pwd", "otp"]})
    (listed,) = session_service.list(user_id)
    assert (listed.ip, listed.user_agent) == ("203.0.113.7", "a phone")
    assert listed.expires_at == created.expires_at


def test_the_cookie_is_as_the_middleware_sets_it(user_id: str) -> None:
    forced, logged_in = Client(), PlainClient()
    forced.force_session(user_id)
    logged_in.get(f"/login/?user={user_id}")
    ours, theirs = (client.cookies[settings.cookie_name] for client in (forced, logged_in))
    for attribute in ("path", "domain", "secure", "httponly", "samesite"):
        assert ours[attribute] == theirs[attribute]
    assert abs(ours["max-age"] - theirs["max-age"]) < 30


def test_signed_in_anew(session_client: Client, user_id: str) -> None:
    session_client.force_session("somebody else")
    session_client.force_session(user_id)
    assert session_client.get("/info/").json()["user"] == user_id
    session_client.get("/logout/")
    assert session_client.get("/info/").json()["exists"] is False


def test_a_user_of_the_application(session_client: Client, configure: Any) -> None:
    configure(USER_ID_FIELD="username")
    user = get_user_model().objects.create_user("ada")
    session_client.force_session(user)
    assert session_client.get("/whoami/").json() == {"user": "ada"}
    assert session_client.get("/members/").status_code == 302


def test_unsafe_requests(session_api_client: APIClient, user_id: str) -> None:
    """CSRF is checked only where the client enforces it, as in Django."""
    session_api_client.force_session(user_id)
    path = "/api/sessions/current/"
    response = session_api_client.patch(path, {"client": {"a": 1}}, format="json")
    assert (response.status_code, response.json()["session"]["data"]) == (200, {"client": {"a": 1}})
    strict = Client(enforce_csrf_checks=True)
    strict.force_session(user_id)
    response = strict.patch(path, {"client": 1}, content_type="application/json")
    assert (response.status_code, response.json()["code"]) == (403, "csrf_failed")


def test_any_client(force_session: Callable[..., CreatedSession], user_id: str) -> None:
    for client in (PlainClient(), PlainAPIClient()):
        force_session(client, user_id, {"a": 1})
        assert client.get("/info/").json()["data"] == {"a": 1}


@pytest.mark.django_db(transaction=True)
async def test_asynchronous(async_session_client: AsyncClient, user_id: str) -> None:
    await async_session_client.aforce_session(user_id, {"a": 1})
    response = await async_session_client.get("/ainfo/")
    assert response.json() == {"exists": True, "user": user_id, "data": {"a": 1}}
    await sync_to_async(connections.close_all)()


@pytest.mark.django_db(transaction=True)
def test_a_test_case(user_id: str) -> None:
    class Case(TestCase):
        client_class = Client
        client: Client

        def test(self) -> None:
            self.client.force_session(user_id)
            assert self.client.get("/info/").json()["exists"]

    run_case(Case("test"))
    assert session_service.count_active(user_id=user_id) == 0


def test_not_shown(user_id: str) -> None:
    created = force_session(PlainClient(), user_id)
    assert "sm1_" not in repr(created)


def test_an_actor(session_client: Client, user_id: str) -> None:
    staff = force_session(PlainClient(), f"{user_id} of the staff")
    session_client.force_session(user_id, actor_token=staff.token)
    (listed,) = session_service.list(user_id)
    assert listed.actor == f"{user_id} of the staff"
    session_service.invalidate(staff.token)
    assert session_client.get("/info/").json()["exists"] is False
