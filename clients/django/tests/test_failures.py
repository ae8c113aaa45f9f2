"""PostgreSQL stopped and started under the application; many requests at once."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django
import pytest
from django.db import OperationalError, connection, connections, transaction

from session_manager import exceptions
from session_manager.conf import settings
from session_manager.identity import session_identity
from session_manager.services import session_service
from session_manager.types import CreatedSession

from .conftest import Browser, RedisServer, wait_for
from .issuer import Issuer

pytestmark = pytest.mark.django_db(transaction=True)

CURRENT = "/api/sessions/current/"


class Server:
    def run(self, variable: str) -> None:
        subprocess.run(shlex.split(os.environ[variable]), check=True, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self.run("SM_TEST_PG_STOP")

    def start(self) -> None:
        self.run("SM_TEST_PG_START")


@pytest.fixture
def server(transactional_db: None) -> Iterator[Server]:
    if "SM_TEST_PG_STOP" not in os.environ:
        pytest.skip("SM_TEST_PG_STOP is not set")
    server = Server()
    yield server
    status = subprocess.run(
        shlex.split(os.environ["SM_TEST_PG_START"]), check=False, capture_output=True
    )
    assert status.returncode in (0, 1)
    connections.close_all()


REQUESTS = [
    ("GET", CURRENT),
    ("PATCH", CURRENT),
    ("DELETE", CURRENT),
    ("POST", "/api/sessions/refresh/"),
    ("GET", "/api/sessions/"),
    ("POST", "/api/sessions/invalidate-all/"),
    ("DELETE", "/api/sessions/01975a3e-9c00-7abc-9def-012345675ec4/"),
    ("GET", "/protected/"),
    ("GET", "/whoami/"),
]


def test_postgresql_stopped(server: Server, created: CreatedSession, auth0: Issuer) -> None:
    browser = Browser().give(created.token)
    assert browser.get(CURRENT).status_code == 200
    server.stop()
    for _ in range(2):
        for method, path in REQUESTS:
            response = browser.unsafe(method, path)
            assert response.status_code == 503, (method, path)
            assert response["Retry-After"] == "2"
            assert response.json()["code"] == "store_unavailable"
            assert settings.cookie_name not in response.cookies
        response = browser.get("/info/")
        assert (response.status_code, response["Retry-After"]) == (503, "2")
        assert settings.cookie_name not in response.cookies
    response = browser.unsafe(
        "POST",
        "/api/sessions/create/",
        headers={"Authorization": f"Bearer {auth0.token('auth0|ada')}"},
    )
    assert response.status_code == 503
    # Without a cookie nothing is asked, so nothing is missed.
    assert Browser().get(CURRENT).status_code == 401
    assert Browser().get("/whoami/").status_code == 200
    assert Browser().get("/plain/").status_code == 200
    server.start()
    assert browser.token() == created.token
    assert browser.get(CURRENT).status_code == 200


class LooksFirst:
    """Middleware that asks for the user before any view does."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        request.greeted = str(request.user)
        return self.get_response(request)


REQUIRES_LOGIN = "django.contrib.auth.middleware.LoginRequiredMiddleware"


@pytest.mark.parametrize("by", ["views", REQUIRES_LOGIN, f"{__name__}.LooksFirst"])
def test_who_asks_for_the_user(
    server: Server, created: CreatedSession, settings: Any, by: str
) -> None:
    """503, whoever asks: Django takes what its own middleware raises for a bug, a 500."""
    if by == REQUIRES_LOGIN and django.VERSION < (5, 1):
        pytest.skip("since Django 5.1")
    ours = "session_manager.middleware.AuthenticationMiddleware"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, ours, *([] if by == "views" else [by])]
    browser = Browser(raise_request_exception=False).give(created.token)
    paths = ["/members/", "/members-too/", "/greeting/", "/amember/"]
    for path in paths:
        assert browser.get(path).status_code == 200
    server.stop()
    for path in paths:
        response = browser.get(path)
        assert (response.status_code, response["Retry-After"]) == (503, "2"), path
        assert response.json()["code"] == "store_unavailable"
        assert "session_token" not in str(response.cookies)
    server.start()
    for path in paths:
        assert browser.get(path).status_code == 200


def test_a_restart_between_two_requests(server: Server, created: CreatedSession) -> None:
    """A kept connection that the server has closed is replaced, and nobody notices."""
    connection.settings_dict["CONN_MAX_AGE"] = None
    try:
        browser = Browser().give(created.token)
        assert browser.get(CURRENT).status_code == 200
        server.stop()
        server.start()
        assert browser.get(CURRENT).status_code == 200
        assert session_service.get(created.token) is not None
    finally:
        connection.settings_dict["CONN_MAX_AGE"] = 0


def test_the_cache_after_a_restart(
    server: Server, redis_server: RedisServer, created: CreatedSession
) -> None:
    """A new start is a new installation, whose epochs have another name."""

    def cached() -> bool:
        session = session_service.get(created.token, touch=False)
        return session is not None and session.cached

    def epochs() -> set[bytes]:
        return set(redis_server.client.keys("session:epoch:*"))

    wait_for(cached)
    before = epochs()
    connections.close_all()
    server.stop()
    server.start()
    wait_for(lambda: epochs() - before, 30)
    wait_for(cached, 30)


def test_stopped_inside_a_transaction(server: Server, created: CreatedSession) -> None:
    # Django raises an error of its own when it cannot end the transaction.
    with pytest.raises(OperationalError), transaction.atomic():
        assert session_service.get(created.token) is not None
        server.stop()
        with pytest.raises(exceptions.StoreUnavailable):
            session_service.get(created.token)
        raise exceptions.StoreUnavailable
    with pytest.raises(exceptions.StoreUnavailable), session_identity(created.token):
        pytest.fail("ran without an identity")


def test_stopped_with_atomic_requests(server: Server, created: CreatedSession) -> None:
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        browser = Browser(raise_request_exception=False).give(created.token)
        assert browser.get("/protected/").status_code == 200
        server.stop()
        for path in ("/protected/", "/info/", CURRENT):
            response = browser.get(path)
            assert (response.status_code, response["Retry-After"]) == (503, "2")
            assert settings.cookie_name not in response.cookies
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False


def test_a_replay_in_a_transaction_that_rolls_back(
    created: CreatedSession,
    database_setting: Callable[[str, str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A view of the application's finds a replay and fails: the session ends all the same."""
    database_setting("rotation_grace", "0")
    rotated = session_service.refresh(created.token, rotate=True)
    assert session_service.get(rotated.token) is not None
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        thief = Browser(raise_request_exception=False).give(created.token)
        assert thief.get("/refresh-and-fail/").status_code == 500
        assert "ZeroDivisionError: reused" in caplog.text
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    wait_for(lambda: session_service.get(rotated.token, touch=False) is None)
    owner = Browser().give(str(rotated.token))
    body = owner.get(CURRENT).json()
    assert (body["code"], body["reason"]) == ("session_revoked", "token_reused")
    assert "token_reused" in {
        event.event for event in session_service.history(session_id=created.id)
    }


def test_no_key(superuser: Any, created: CreatedSession) -> None:
    """A key that is not there is no verdict about the session."""
    (path,) = superuser.execute("SHOW session_manager.key_file").fetchone()
    superuser.execute("ALTER SYSTEM SET session_manager.key_file = '/nonexistent/keys'")
    superuser.execute("SELECT pg_reload_conf()")
    try:
        wait_for(lambda: refused(created.token))
        browser = Browser().give(created.token)
        connections.close_all()
        response = browser.get(CURRENT)
        assert response.status_code == 503
        assert settings.cookie_name not in response.cookies
    finally:
        superuser.execute("ALTER SYSTEM RESET session_manager.key_file")
        superuser.execute("SELECT pg_reload_conf()")
        assert path
        wait_for(lambda: not refused(created.token))


def refused(token: str) -> bool:
    connections.close_all()
    try:
        return session_service.get(token, touch=False) is None
    except exceptions.StoreUnavailable:
        return True


def together(count: int, action: Any) -> list[Any]:
    """Run an action in threads that begin at the same moment."""
    barrier = threading.Barrier(count)

    def run(n: int) -> Any:
        try:
            barrier.wait()
            return action(n)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_refreshes_at_once(created: CreatedSession) -> None:
    def refresh(n: int) -> str:
        response = Browser().give(created.token).unsafe("POST", "/api/sessions/refresh/")
        assert response.status_code == 200
        return str(response.json()["status"])

    counted = Counter(together(8, refresh))
    assert counted == {"rotated": 1, "already_rotated": 7}


def test_updates_at_once(created: CreatedSession) -> None:
    def update(n: int) -> int:
        browser = Browser().give(created.token)
        return int(browser.unsafe("PATCH", CURRENT, {"client": {f"k{n}": n}}).status_code)

    assert together(8, update) == [200] * 8
    session = session_service.get(created.token)
    assert session is not None
    assert session.data == {"cart": [1], "client": {f"k{n}": n for n in range(8)}}


def test_one_of_many_conditional_updates(created: CreatedSession) -> None:
    def update(n: int) -> int:
        browser = Browser().give(created.token)
        return int(
            browser.unsafe("PATCH", CURRENT, {"client": n}, headers={"If-Match": '"1"'}).status_code
        )

    assert Counter(together(8, update)) == {200: 1, 412: 7}


def test_logins_and_sign_outs_at_once(auth0: Issuer, user_id: str) -> None:
    """Logins replace what they present while everything is signed out: no deadlock gets out."""
    browsers = [Browser().give(session_service.create(user_id).token) for _ in range(6)]

    def act(n: int) -> int:
        if n % 2:
            return session_service.invalidate_all(user_id) and 204
        response = browsers[n].unsafe(
            "POST",
            "/api/sessions/create/",
            headers={"Authorization": f"Bearer {auth0.token(user_id)}"},
        )
        # Ended by a sign-out before it could be answered: no session, and no cookie of one.
        assert response.status_code in (201, 401)
        if response.status_code == 401:
            assert response.json()["reason"] == "logout_all"
            assert settings.cookie_name not in response.cookies
        return int(response.status_code)

    for _ in range(10):
        codes = together(6, act)
        assert set(codes) <= {201, 401, 204, 0}
        assert len([code for code in codes if code in (201, 401)]) == 3


def test_a_refresh_against_a_sign_out(created: CreatedSession, user_id: str) -> None:
    """Nothing is resurrected."""

    def act(n: int) -> Any:
        if n:
            return session_service.invalidate_all(user_id)
        return Browser().give(created.token).unsafe("POST", "/api/sessions/refresh/").status_code

    code, ended = together(2, act)
    assert code in (200, 401)
    assert ended == 1
    assert session_service.get_active_sessions_count(user_id=user_id) == 0
