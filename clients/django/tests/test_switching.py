"""One session comes of a switch of tenants, and none of what is no live session's current token."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from django.db import connections

from session_manager import signals
from session_manager.conf import settings
from session_manager.services import session_service
from session_manager.types import CreatedSession

from .conftest import Browser, RedisServer, wait_for
from .test_cache import fill
from .test_failures import together

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("backend")]

TENANT = "/api/sessions/tenant/"


@pytest.fixture(autouse=True)
def _allowed(configure: Any) -> None:
    configure(ON_SWITCH_TENANT="tests.hooks.on_switch_tenant")


def switch(token: str) -> Any:
    return Browser().give(token).unsafe("POST", TENANT, {"tenant_id": "globex"})


def live(user_id: str) -> int:
    return len(session_service.list(user_id))


def test_switches_at_once(created: CreatedSession, user_id: str) -> None:
    responses = together(12, lambda n: switch(created.token))
    assert Counter(r.status_code for r in responses) == {200: 1, 401: 11}
    assert live(user_id) == 1


@pytest.mark.server_only("it holds a lock of PostgreSQL's")
def test_behind_a_sign_out_everywhere(
    created: CreatedSession, user_id: str, superuser: Any
) -> None:
    superuser.execute("BEGIN")
    superuser.execute("SELECT session_invalidate_all(%s)", [user_id])
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(switch(created.token))
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(
        lambda: (
            superuser.execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
            ).fetchone()[0]
            == 1
        )
    )
    superuser.execute("COMMIT")
    thread.join()
    assert (answers[0].status_code, answers[0].json()["code"]) == (401, "session_revoked")
    # What ended the session may have been another switch, whose cookie the browser has by now.
    assert settings.cookie_name not in answers[0].cookies
    assert live(user_id) == 0


def test_with_a_replaced_token(created: CreatedSession, user_id: str) -> None:
    rotated = session_service.refresh(created.token, rotate=True)
    assert session_service.get(created.token) is not None
    response = switch(created.token)
    assert (response.status_code, response.json()["code"]) == (409, "token_replaced")
    assert settings.cookie_name not in response.cookies
    (listed,) = session_service.list(user_id)
    assert (listed.id, listed.tenant_id) == (created.id, "acme")
    assert switch(rotated.token or "").status_code == 200


@pytest.mark.server_only("the stand-in has no cache")
def test_with_a_value_replayed_into_redis(
    redis_server: RedisServer, user_id: str, superuser: Any
) -> None:
    created = session_service.create(user_id)
    fill(created.token)
    kept = {key: redis_server.client.dump(key) for key in redis_server.client.keys("*")}
    assert session_service.invalidate(created.token)
    # The worker sends the tombstone once more.
    wait_for(lambda: superuser.execute("SELECT count(*) FROM session_outbox").fetchone()[0] == 0)

    def replay() -> bool:
        for key, value in kept.items():
            redis_server.client.restore(key, 60000, value, replace=True)
        session = session_service.get(created.token, touch=False)
        return session is not None and session.cached

    wait_for(replay)
    response = switch(created.token)
    assert (response.status_code, response.json()["code"]) == (401, "session_revoked")
    assert live(user_id) == 0


def test_what_is_told(created: CreatedSession, user_id: str) -> None:
    ended: list[Any] = []
    made: list[Any] = []

    def on_ended(**values: Any) -> None:
        ended.append((values["session_id"], values["user_id"], values["reason"]))

    def on_made(**values: Any) -> None:
        made.append((values["session_id"], values["user_id"], values["tenant_id"], values["ip"]))

    signals.session_invalidated.connect(on_ended)
    signals.session_created.connect(on_made)
    try:
        switched = session_service.switch_tenant(created.token, "globex", {"a": 1})
    finally:
        signals.session_invalidated.disconnect(on_ended)
        signals.session_created.disconnect(on_made)
    assert ended == [(created.id, user_id, "tenant_switched")]
    assert made == [(switched.id, user_id, "globex", "127.0.0.1")]
    session = session_service.get(switched.token)
    assert session is not None
    assert (session.tenant_id, session.data) == ("globex", {"a": 1})
    assert session.absolute_expires_at == created.absolute_expires_at


@pytest.mark.parametrize("token", [None, "", "sm1_", "sm1_" + "A" * 64])
def test_without_a_session(db: None, token: str | None) -> None:
    assert session_service.switch_tenant(token, "globex").status == "ended"
