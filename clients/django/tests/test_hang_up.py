"""A client that hangs up while its request is served: Django cancels the request's task.

A thread that serves a synchronous view goes on all the same, while nobody waits for it.  Through
Django's own handler for ASGI, which has a thread for each request.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth import get_user_model, login, logout
from django.core.asgi import get_asgi_application
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path

from session_manager.backends.sessions import SessionStore
from session_manager.services import session_service

from .conftest import Superuser, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

ENGINE = "session_manager.backends.sessions"
DJANGO = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
OURS = [
    "session_manager.middleware.RequestSessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "session_manager.middleware.SessionMiddleware",
    "session_manager.middleware.AuthenticationMiddleware",
]
SYNCHRONOUS = [*OURS, "tests.test_hang_up.synchronous"]
EACH = pytest.mark.parametrize(
    "middleware", [OURS, DJANGO, SYNCHRONOUS], ids=["ours", "Django's", "around a synchronous one"]
)


def synchronous(get_response: Any) -> Any:
    """A middleware that makes Django call all that are around it in the request's thread."""

    def middleware(request: HttpRequest) -> Any:
        return get_response(request)

    return middleware


class Gate:
    """Where a view waits."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.open.wait(30)


gates: dict[str, Gate] = {}


def act(request: HttpRequest) -> HttpResponse:
    """What the query string says, one thing after the other."""
    for action in request.GET["do"].split(","):
        name, _, value = action.partition("=")
        if name == "wait":
            gates["view"].wait()
        elif name == "in":
            login(request, get_user_model().objects.get(username=value))
        elif name == "out":
            logout(request)
        elif name == "password":
            user = get_user_model().objects.get(username="ada")
            user.set_password(value)
            user.save()
        elif name == "cycle":
            request.session.cycle_key()
        elif name == "save":
            request.session.save()
        else:
            request.session[name] = value
    # To look at the user after a new password makes Django sign it out.
    return HttpResponse("" if "password" in request.GET["do"] else request.user.get_username())


async def aact(request: HttpRequest) -> HttpResponse:
    return await sync_to_async(act)(request)


urlpatterns = [path("act/", act), path("aact/", aact)]


@pytest.fixture(params=["/act/", "/aact/"])
def where(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _project(settings: Any) -> Iterator[None]:
    settings.ROOT_URLCONF = __name__
    settings.SESSION_ENGINE = ENGINE
    settings.MIDDLEWARE = OURS
    gates["view"] = Gate()
    yield
    gates["view"].open.set()


@pytest.fixture
def atomic_requests() -> Iterator[None]:
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


@pytest.fixture
def ada() -> Any:
    return get_user_model().objects.create_user("ada", password="of ada")


@pytest.fixture
def signed_in(ada: Any) -> SessionStore:
    store = SessionStore()
    store.update({"_auth_user_id": str(ada.pk), "_auth_user_hash": ada.get_session_auth_hash()})
    store["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
    store["cart"] = "1"
    store.create()
    return store


def request(token: str | None, what: str, where: str = "/act/") -> ApplicationCommunicator:
    cookie = [] if token is None else [(b"cookie", f"sessionid={token}".encode())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": where,
        "query_string": f"do={what}".encode(),
        "headers": [(b"host", b"testserver"), *cookie],
    }
    return ApplicationCommunicator(get_asgi_application(), scope)


async def answer(token: str | None, what: str, where: str = "/act/") -> tuple[int, str]:
    """Of a client that waits for it: the status and the body."""
    communicator = request(token, what, where)
    await communicator.send_input({"type": "http.request", "body": b""})
    start = await communicator.receive_output(30)
    body = await communicator.receive_output(30)
    await communicator.wait(30)
    return start["status"], body["body"].decode()


def open_connections() -> set[int]:
    """Those of the application's role, by their servers' ids."""
    with Superuser() as superuser:
        found = superuser.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = %s",
            [connection.settings_dict["USER"]],
        )
        return {pid for (pid,) in found.fetchall()}


async def hang_up(token: str | None, what: str, where: str = "/act/") -> None:
    """While the view waits; then let it go on, and the request come to its end.

    It leaves no connection behind, in a transaction or not.
    """
    before = await asyncio.to_thread(open_connections)
    communicator = request(token, what, where)
    await communicator.send_input({"type": "http.request", "body": b""})
    assert await asyncio.to_thread(gates["view"].reached.wait, 30)
    await communicator.send_input({"type": "http.disconnect"})
    await asyncio.sleep(0.2)
    gates["view"].open.set()
    await communicator.wait(30)
    await asyncio.to_thread(wait_for, lambda: open_connections() <= before)


@EACH
class TestHangUp:
    @pytest.fixture(autouse=True)
    def _middleware(self, middleware: list[str], settings: Any) -> None:
        settings.MIDDLEWARE = middleware

    async def test_nothing_of_the_view_is_kept(self, signed_in: SessionStore, where: str) -> None:
        """As with Django's own engines."""
        token = signed_in.session_key
        await hang_up(token, "cart=2,wait,more=3", where)
        store = await sync_to_async(lambda: dict(SessionStore(token)))()
        assert (store["cart"], store.get("more")) == ("1", None)
        assert await answer(token, "cart=4", where) == (200, "ada")
        store = await sync_to_async(lambda: dict(SessionStore(token)))()
        assert store["cart"] == "4"

    async def test_what_the_view_saved_is_whole(self, signed_in: SessionStore, where: str) -> None:
        """One statement, or one transaction, in a thread that nobody can stop in the middle."""
        token = signed_in.session_key
        await hang_up(token, "wait,cart=2,more=3,cycle,save,late=4", where)
        assert await recorded(signed_in) == ["created", "updated", "elevated"]
        assert await session_service.aget(token) is None

    async def test_in_a_transaction(
        self, signed_in: SessionStore, where: str, atomic_requests: None
    ) -> None:
        if where == "/aact/":
            return  # Django refuses ATOMIC_REQUESTS around asynchronous views.
        token = signed_in.session_key
        await hang_up(token, "cart=2,save,wait,more=3", where)
        store = await sync_to_async(lambda: dict(SessionStore(token)))()
        assert (store["cart"], store.get("more")) == ("2", None)
        assert await answer(token, "cart=4", where) == (200, "ada")

    async def test_a_login(self, signed_in: SessionStore, where: str) -> None:
        """The older session goes on until there is the new one."""
        token = signed_in.session_key
        await hang_up(token, "in=ada,wait", where)
        assert await session_service.aget(token) is not None
        assert await answer(token, "cart=4", where) == (200, "ada")
        assert await session_service.acount_active(user_id=str(signed_in["_auth_user_id"])) == 1

    async def test_a_sign_out(self, signed_in: SessionStore, where: str) -> None:
        token = signed_in.session_key
        await hang_up(token, "out,wait", where)
        assert await session_service.aget(token) is None

    @pytest.mark.parametrize("what", ["password=new,wait", "wait,password=new"])
    async def test_a_new_password(self, signed_in: SessionStore, what: str, where: str) -> None:
        """Nobody has asked to keep the session; whether it was changed before or after."""
        token = signed_in.session_key
        await hang_up(token, what, where)
        assert await session_service.aget(token) is None
        assert await session_service.aend_reason(token) == "password_changed"


class TestDuringTheSave:
    """The thread that saves waits for the row while the client hangs up."""

    @pytest.fixture(autouse=True)
    def _held(self, signed_in: SessionStore) -> Iterator[None]:
        """The row is locked, by a connection of its own, until ``released`` is set."""
        held, self.released = threading.Event(), threading.Event()
        session_id = signed_in._known.row.id

        def hold() -> None:
            with Superuser() as superuser:
                superuser.execute("BEGIN")
                superuser.execute(
                    "SELECT FROM user_sessions WHERE session_id = %s FOR UPDATE", [session_id]
                )
                held.set()
                self.released.wait(30)
                superuser.execute("ROLLBACK")

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(30)
        yield
        self.released.set()
        thread.join()

    @EACH
    async def test_it_is_done(
        self, middleware: list[str], settings: Any, signed_in: SessionStore
    ) -> None:
        settings.MIDDLEWARE = middleware
        token = signed_in.session_key
        before = await asyncio.to_thread(open_connections)
        communicator = request(token, "cart=2,more=3,cycle")
        await communicator.send_input({"type": "http.request", "body": b""})
        await asyncio.to_thread(wait_for, waits_for_a_lock)
        await communicator.send_input({"type": "http.disconnect"})
        await asyncio.sleep(0.2)
        self.released.set()
        await communicator.wait(30)
        await asyncio.to_thread(wait_for, lambda: open_connections() <= before)
        assert await recorded(signed_in) == ["created", "updated", "elevated"]
        assert await session_service.aget(token) is None


async def recorded(store: SessionStore) -> list[str]:
    """The events of its session."""
    assert store._known.row is not None
    events = await session_service.ahistory(session_id=store._known.row.id)
    return [event.event for event in reversed(events)]


def waits_for_a_lock() -> bool:
    with Superuser() as superuser:
        found = superuser.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock'"
        )
        return len(found.fetchall()) > 0
