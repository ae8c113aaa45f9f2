"""SessionMiddleware: lazy, synchronous and asynchronous."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import AsyncClient, Client

from session_manager import exceptions
from session_manager.conf import settings
from session_manager.exceptions import SessionError
from session_manager.services import session_service
from session_manager.types import CreatedSession

from .conftest import Browser

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("backend")]


def test_costs_nothing_until_used(signed_in: Browser, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        response = signed_in.get("/plain/")
    assert "Cookie" not in response.get("Vary", "")
    assert settings.cookie_name not in response.cookies


@pytest.mark.server_only("it counts queries")
def test_session_info(signed_in: Browser, user_id: str, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        response = signed_in.get("/info/")
    assert response.json() == {"exists": True, "user": user_id, "data": {"cart": [1]}}
    assert "Cookie" in response["Vary"]
    assert settings.cookie_name not in response.cookies


@pytest.mark.server_only("it counts queries")
def test_one_look_up_for_middleware_and_authentication(
    signed_in: Browser, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(1):
        signed_in.get("/protected/")


def test_no_cookie(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        response = Client().get("/info/")
    assert response.json() == {"exists": False, "user": None, "data": {}}
    assert settings.cookie_name not in response.cookies


def test_an_ended_session(signed_in: Browser, created: CreatedSession) -> None:
    session_service.invalidate(created.token)
    response = signed_in.get("/info/")
    assert response.json()["exists"] is False
    # The browser may hold a newer one when the answer arrives.
    assert settings.cookie_name not in response.cookies


def test_log_in_and_out(browser: Browser, user_id: str) -> None:
    assert browser.get(f"/login/?user={user_id}").status_code == 204
    first = browser.token()
    assert browser.get("/info/").json() == {
        "exists": True,
        "user": user_id,
        "data": {"via": "form"},
    }
    browser.get(f"/login/?user={user_id}")
    assert session_service.get(first) is None
    response = browser.get("/logout/")
    assert response.cookies[settings.cookie_name].value == ""
    assert session_service.get_active_sessions_count(user_id=user_id) == 0


MEANINGS = [
    ("StoreUnavailable", 503, "store_unavailable"),
    ("WrongShard", 503, "store_unavailable"),
    ("VersionConflict", 412, "version_conflict"),
    ("LimitReached", 409, "session_limit_reached"),
    ("TooLarge", 413, "too_large"),
    ("SessionEnded", 401, "session_expired"),
    ("InvalidArgument", 400, "parse_error"),
    ("DataCorrupt", 500, "session_data_corrupt"),
]


@pytest.mark.parametrize("path", ["/raise/", "/araise/", "/api-raise/"])
@pytest.mark.parametrize(("name", "status", "code"), MEANINGS)
def test_what_the_service_raises(path: str, name: str, status: int, code: str) -> None:
    client = Client(raise_request_exception=False)
    response = client.get(path, {"name": name})
    assert response.status_code == status
    assert (response.get("Retry-After") == "2") is (status == 503)
    if (status, path) == (500, "/api-raise/") or status != 500:
        assert response.json()["code"] == code


@pytest.mark.parametrize(("name", "status", "code"), MEANINGS[:-1])
def test_with_a_handler_of_the_application_s(
    settings: Any, name: str, status: int, code: str
) -> None:
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "EXCEPTION_HANDLER": "rest_framework.views.exception_handler",
    }
    response = Client().get("/api-raise/", {"name": name})
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_all_of_them_are_here() -> None:
    classes = {c.__name__ for c in vars(exceptions).values() if isinstance(c, type)}
    raised = {c for c in classes if issubclass(getattr(exceptions, c, object), SessionError)}
    # The latter is a StoreUnavailable, too, with arguments of its own.
    assert raised - {"SessionError", "ShardsUnreachable"} == {name for name, *_ in MEANINGS}


@pytest.mark.django_db(transaction=True)
class TestAsynchronous:
    async def test_session_info(self, user_id: str) -> None:
        created = await session_service.acreate(user_id, {"a": 1})
        client = AsyncClient()
        client.cookies[settings.cookie_name] = created.token
        response = await client.get("/ainfo/")
        assert response.json() == {"exists": True, "user": user_id, "data": {"a": 1}}
        response = await client.get("/info/")
        assert response.json()["exists"] is True
        response = await AsyncClient().get("/ainfo/")
        assert response.json()["exists"] is False
        await session_service.ainvalidate(created.token)
        response = await client.get("/ainfo/")
        assert response.json()["exists"] is False
        assert settings.cookie_name not in response.cookies
        await sync_to_async(connections.close_all)()


def test_is_asynchronous_under_asgi() -> None:
    """No thread is spent on a request that does not look at its session."""
    from asgiref.sync import iscoroutinefunction

    from session_manager.middleware import SessionMiddleware

    async def view(request: Any) -> None:
        return None

    assert iscoroutinefunction(SessionMiddleware(view))
    assert not iscoroutinefunction(SessionMiddleware(lambda request: None))
