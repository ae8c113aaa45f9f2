"""How often PostgreSQL is asked: a table of the endpoints, and a request for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from session_manager.services import session_service
from session_manager.signals import session_invalidated, token_reused
from session_manager.types import CreatedSession, RefreshedSession

from .conftest import Browser, Heard, RedisServer, wait_for
from .issuer import Issuer

pytestmark = pytest.mark.django_db(transaction=True)

API = "/api/sessions/"
#: Statements of each endpoint.  Where there are two, the first finds out who asks.
ENDPOINTS = [
    ("get", "current/", None, 1),
    ("patch", "current/", {"client": {"a": 1}}, 2),
    ("delete", "current/", None, 1),
    ("post", "refresh/", None, 1),
    ("post", "refresh/", {"rotate": False}, 1),
    ("post", "tenant/", {"tenant_id": "globex"}, 2),
    ("get", "", None, 2),
    ("delete", "{other}/", None, 2),
    ("post", "invalidate-all/", None, 2),
]


@pytest.fixture
def asked() -> CaptureQueriesContext:
    """What is sent to PostgreSQL inside of it, BEGIN and the like among it."""
    return CaptureQueriesContext(connection)


def sent(asked: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in asked.captured_queries]


@pytest.mark.parametrize(("method", "path", "body", "count"), ENDPOINTS)
def test_endpoint(
    signed_in: Browser,
    user_id: str,
    asked: CaptureQueriesContext,
    configure: Callable[..., None],
    method: str,
    path: str,
    body: Any,
    count: int,
) -> None:
    configure(ON_SWITCH_TENANT="tests.hooks.on_switch_tenant")
    path = API + path.format(other=session_service.create(user_id).id)
    with asked:
        if method == "get":
            response = signed_in.get(path)
        else:
            response = signed_in.unsafe(method.upper(), path, body)
    assert response.status_code in (200, 204), response.content
    assert len(asked) == count, sent(asked)


def test_sign_in(browser: Browser, auth0: Issuer, asked: CaptureQueriesContext) -> None:
    """The session, and a look at what has been committed."""
    header = {"Authorization": f"Bearer {auth0.token('auth0|ada')}"}
    with asked:
        assert browser.unsafe("POST", API + "create/", headers=header).status_code == 201
    assert len(asked) == 2, sent(asked)


def test_sign_in_again(signed_in: Browser, auth0: Issuer, asked: CaptureQueriesContext) -> None:
    """The presented session's end and the new one in a transaction, with a savepoint in it."""
    header = {"Authorization": f"Bearer {auth0.token('auth0|ada')}"}
    with asked:
        assert signed_in.unsafe("POST", API + "create/", headers=header).status_code == 201
    assert len(asked) == 7, sent(asked)


@pytest.mark.parametrize("heard", [session_invalidated], indirect=True)
def test_a_sign_out_that_is_told(
    signed_in: Browser, user_id: str, heard: Heard, asked: CaptureQueriesContext
) -> None:
    with asked:
        assert signed_in.unsafe("DELETE", API + "current/").status_code == 204
    assert len(asked) == 1, sent(asked)
    assert [values["user_id"] for values in heard] == [user_id]


@pytest.mark.parametrize("heard", [token_reused], indirect=True)
def test_a_replay_that_is_told(
    signed_in: Browser,
    created: CreatedSession,
    user_id: str,
    heard: Heard,
    asked: CaptureQueriesContext,
    database_setting: Callable[[str, str], None],
) -> None:
    database_setting("rotation_grace", "0")
    refreshed = session_service.refresh(created.token, rotate=True)
    session_service.get(refreshed.token)
    with asked:
        response = signed_in.unsafe("POST", API + "refresh/")
    assert response.json()["code"] == "token_reused"
    assert len(asked) == 1, sent(asked)
    assert [values["user_id"] for values in heard] == [user_id]


RENEWALS: dict[str, Callable[..., RefreshedSession]] = {
    "extended": lambda token, **kw: session_service.refresh(token, **kw),
    "rotated": lambda token, **kw: session_service.refresh(token, rotate=True, **kw),
    "elevated": lambda token, **kw: session_service.elevate(token, {"amr": ["otp"]}, **kw),
    "switched": lambda token, **kw: session_service.switch_tenant(token, "globex", {"a": 1}, **kw),
}


@pytest.mark.parametrize("renewal", RENEWALS)
@pytest.mark.parametrize("atomic", [False, True])
def test_the_session_comes_along(
    created: CreatedSession, asked: CaptureQueriesContext, renewal: str, atomic: bool
) -> None:
    renew = RENEWALS[renewal]
    if atomic:
        with transaction.atomic():
            renewed = renew(created.token, with_session=True)
            found = session_service.get(renewed.token or created.token, touch=False)
    else:
        with asked:
            renewed = renew(created.token, with_session=True)
        assert len(asked) == 1, sent(asked)
        found = session_service.get(renewed.token or created.token, touch=False)
    assert found is not None
    assert renewed.session == found
    assert renewed.expires_at == found.expires_at
    assert (renewed.id, renewed.user_id) == (found.id, found.user_id)

    assert renew(renewed.token or created.token).session is None


def test_already_rotated(created: CreatedSession) -> None:
    session_service.refresh(created.token, rotate=True)
    again = session_service.refresh(created.token, rotate=True, with_session=True)
    assert again.status == "already_rotated"
    assert again.session is not None
    assert again.session.id == created.id


def test_none_that_has_ended(created: CreatedSession) -> None:
    session_service.invalidate(created.token)
    for renew in RENEWALS.values():
        ended = renew(created.token, with_session=True)
        assert (ended.status, ended.session) == ("ended", None)


def test_a_lost_answer_is_no_replay(
    created: CreatedSession, database_setting: Callable[[str, str], None]
) -> None:
    """The first use of the new token is the browser's, not the look at the session."""
    database_setting("rotation_grace", "0")
    assert session_service.refresh(created.token, rotate=True, with_session=True).session
    assert session_service.refresh(created.token, rotate=True).status == "rotated"


def test_for_the_client_that_asks(
    created: CreatedSession, user_id: str, database_setting: Callable[[str, str], None]
) -> None:
    database_setting("client_binding", "strict")
    elevated = session_service.elevate(created.token, {})
    renew = session_service.switch_tenant
    here = {"ip": "127.0.0.1", "user_agent": "tests"}
    switched = renew(elevated.token, "globex", with_session=True, **here)
    assert switched.session is not None
    switched = renew(switched.token, "acme", with_session=True, ip="198.51.100.7")
    assert (switched.status, switched.session) == ("rotated", None)
    # Of no other test's sessions, whose findings a worker may record by now.
    events = session_service.history(user_id=user_id)
    refused = [event for event in events if event.event == "client_changed"]
    assert [event.ip for event in refused] == ["198.51.100.7"]


def test_not_from_the_cache(
    redis_server: RedisServer, signed_in: Browser, created: CreatedSession
) -> None:
    """A longer life alone takes nothing out of the cache; the answer to a refresh has it."""

    def cached() -> bool:
        session = session_service.get(created.token, touch=False)
        return session is not None and session.cached

    extended: dict[str, Any] = {}

    def stays() -> bool:
        wait_for(cached)
        answer = signed_in.unsafe("POST", API + "refresh/", {"rotate": False})
        extended.update(answer.json()["session"])
        return cached()

    wait_for(stays, 60)
    assert extended["expires_at"] > created.expires_at.isoformat()
    rotated = signed_in.unsafe("POST", API + "refresh/").json()["session"]
    assert rotated["expires_at"] > extended["expires_at"]
    current = signed_in.get(API + "current/").json()["session"]
    assert current["expires_at"] == rotated["expires_at"]
