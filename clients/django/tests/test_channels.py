"""WebSockets of Channels under uvicorn: the handshake, and the hang-up when the session ends."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from session_manager.channels import SessionWebSocketMiddleware
from session_manager.conf import settings
from session_manager.services import session_service
from session_manager.store.revocations import revocations_of
from session_manager.store.tokens import digest_form, session_id_of
from session_manager.store.users import new_guest_id
from session_manager.types import Session

from .conftest import Superuser, wait_for
from .pages import run_script, samples
from .serving import Served

pytestmark = pytest.mark.django_db(transaction=True)

ENDED = 4401
PATH = "/ws/feed/"
#: Much less than the time after which sessions are looked at in any case, see asgi_channels.py.
SOON = 30.0


@pytest.fixture
def served(
    tmp_path: Path, database_setting: Callable[[str, str], None], request: pytest.FixtureRequest
) -> Iterator[Served]:
    database_setting("notify", "on")
    values = {"BEARER": True, "COOKIE_SECURE": True, **getattr(request, "param", {})}
    name = connection.settings_dict["NAME"]
    with Served(tmp_path, name, values, application="tests.asgi_channels:application") as running:
        yield running


def handshake(served: Served, token: str | None, headers: dict[str, str | None]) -> dict[str, str]:
    """The headers of a handshake as a browser sends it, unless others are given."""
    given: dict[str, str | None] = {
        "Cookie": None if token is None else f"{settings.cookie_name}={token}",
        "Origin": served.url,
        **headers,
    }
    return {name: value for name, value in given.items() if value is not None}


def connected(served: Served) -> socket.socket:
    """A socket whose other end a thread encrypts for the server, and decrypts.

    The client of WebSockets reads in one thread and writes in another, which one TLS connection
    does not stand: on a busy machine a handshake was lost so.
    """
    ours, theirs = socket.socketpair()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay() -> None:
        host, port = served.url.removeprefix("https://").split(":")
        try:
            reader, writer = await asyncio.open_connection(host, int(port), ssl=served.context())
        except OSError:
            theirs.close()
            return
        plain_reader, plain_writer = await asyncio.open_connection(sock=theirs)
        await asyncio.gather(pump(reader, plain_writer), pump(plain_reader, writer))

    threading.Thread(target=asyncio.run, args=[relay()], daemon=True).start()
    return ours


def open_socket(
    served: Served, token: str | None = None, **headers: str | None
) -> ClientConnection:
    return connect(
        served.url.replace("https:", "ws:") + PATH,
        sock=connected(served),
        additional_headers=handshake(served, token, headers),
        open_timeout=60,
        proxy=None,
    )


def refused(
    served: Served, token: str | None = None, **headers: str | None
) -> http.client.HTTPResponse:
    """The answer to a handshake, which is none of the protocol of WebSockets.

    Not by the client of WebSockets: when it is refused it closes its socket while a thread of its
    own may be about to read from it, or from what gets the number of its file descriptor next.
    """
    client = http.client.HTTPSConnection(
        served.url.removeprefix("https://"), context=served.context(), timeout=60
    )
    client.request(
        "GET",
        PATH,
        headers={
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
            **handshake(served, token, headers),
        },
    )
    response = client.getresponse()
    client.close()
    return response


def say(socket: ClientConnection, what: str) -> Any:
    socket.send(json.dumps(what))
    return json.loads(socket.recv(timeout=60))


def close_code(socket: ClientConnection, seconds: float = SOON) -> int:
    """What the server closes it with; other than by a look that is due in any case."""
    with pytest.raises(ConnectionClosed) as caught:
        socket.recv(timeout=seconds)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


def listeners(served: Served, superuser: Superuser) -> list[int]:
    rows = superuser.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
        " AND query IN ('SELECT 1', %s) AND backend_type = 'client backend'",
        [served.name, "SELECT current_setting('session_manager.notify', true)"],
    )
    return [pid for (pid,) in rows]


class TestHandshake:
    def test_who_gets_in(self, served: Served, user_id: str) -> None:
        token = session_service.create(user_id, {"plan": "team"}).token
        with open_socket(served, token) as socket:
            assert json.loads(socket.recv(timeout=60)) == {"user": user_id, "plan": "team"}
            assert say(socket, "hello") == {"you said": "hello"}
        with open_socket(served, Authorization=f"Bearer {token}", Origin="app://x") as socket:
            assert json.loads(socket.recv(timeout=60))["user"] == user_id
        # Programs send no Origin.
        with open_socket(served, token, Origin=None) as socket:
            assert json.loads(socket.recv(timeout=60))["user"] == user_id

        for origin in (
            "https://evil.example",
            "null",
            "http://[",
            served.url.replace("https:", "http:"),
        ):
            assert refused(served, token, Origin=origin).status == 403
        answer = refused(served)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Session")
        for bad in ("nonsense", "sm1_" + "A" * 64, str(digest_form(token))):
            assert refused(served, bad).status == 401
            assert refused(served, Authorization=f"Bearer {bad}").status == 401
        assert refused(served, bad, Authorization=f"Bearer {token}").status == 401
        session_service.invalidate(token)
        assert refused(served, token).status == 401
        assert "sm1_" not in served.log.read_text()

    def test_no_guest(self, served: Served) -> None:
        """Nobody has signed in there."""
        guest = session_service.create(new_guest_id(), {})
        assert refused(served, guest.token).status == 401

    def test_no_actor_who_is_gone(self, served: Served, user_id: str) -> None:
        own = session_service.create("of the staff")
        acting = session_service.create(user_id, actor_token=own.token)
        with open_socket(served, acting.token) as socket:
            assert json.loads(socket.recv(timeout=60))["user"] == user_id
        session_service.invalidate(own.token)
        assert refused(served, acting.token).status == 401


class TestHangUp:
    def test_a_sign_out(self, served: Served, user_id: str, superuser: Superuser) -> None:
        mine, other = (session_service.create(user_id) for _ in range(2))
        with open_socket(served, mine.token) as socket, open_socket(served, other.token) as spared:
            socket.recv(timeout=60)
            spared.recv(timeout=60)
            # Both by one listener.
            wait_for(lambda: len(listeners(served, superuser)) == 1, 30)
            session_service.refresh(mine.token, rotate=True)
            assert say(socket, "still here") == {"you said": "still here"}
            began = time.monotonic()
            session_service.invalidate_id(mine.id, reason="admin")
            assert close_code(socket) == ENDED
            assert time.monotonic() - began < SOON
            assert say(spared, "spared") == {"you said": "spared"}

    def test_notifications_that_are_made_up(
        self, served: Served, user_id: str, superuser: Superuser
    ) -> None:
        created = session_service.create(user_id)
        with open_socket(served, created.token) as socket:
            socket.recv(timeout=60)
            wait_for(lambda: listeners(served, superuser), 30)
            for payload in (
                json.dumps({"session_id": str(created.id), "user_id": user_id, "reason": "x"}),
                "",
                "[1]",
                '{"session_id": 1}',
                "null",
            ):
                superuser.execute("SELECT pg_notify('session_revoked', %s)", [payload])
            # What comes after these is heard all the same.
            assert say(socket, "still here") == {"you said": "still here"}
            session_service.invalidate(created.token)
            assert close_code(socket) == ENDED

    def test_its_time_is_over(self, served: Served, user_id: str, superuser: Superuser) -> None:
        # The server's first connections take long where the machine is busy.
        with open_socket(served, session_service.create(user_id).token) as socket:
            socket.recv(timeout=60)
        tries = (12, 60, 240)
        assert any(self.is_over_after(n, served, user_id, superuser) for n in tries)

    def is_over_after(
        self, seconds: int, served: Served, user_id: str, superuser: Superuser
    ) -> bool:
        """The same with sessions of some seconds; False if half of them were over too early."""
        began = time.monotonic()
        ttl = timedelta(seconds=seconds)
        short, longer = (session_service.create(user_id, ttl=ttl) for _ in range(2))
        (unused,) = superuser.execute(
            "SELECT session_token FROM session_create(%s, idle_timeout => %s)", [user_id, ttl]
        ).fetchone()
        with ExitStack() as stack:
            opened = []
            try:
                for token in (short.token, longer.token, unused):
                    # The client of WebSockets must not be refused, see refused().
                    if time.monotonic() - began >= seconds / 4:
                        return False
                    socket = stack.enter_context(open_socket(served, token))
                    socket.recv(timeout=60)
                    say(socket, "a message is no use")
                    opened.append(socket)
            except (ConnectionClosed, InvalidStatus):
                if time.monotonic() - began < seconds / 2:
                    raise
                return False
            if time.monotonic() - began >= seconds / 2:
                return False
            expiring, kept, idle = opened
            session_service.refresh(longer.token, ttl=timedelta(hours=1))
            assert close_code(expiring, seconds + SOON) == ENDED
            assert close_code(idle, seconds + SOON) == ENDED
            # The server may have swept them by now.
            how = (
                "SELECT coalesce(nullif(session_status(%s), 'unknown'), (SELECT event"
                " FROM session_events WHERE session_id = %s AND event IN ('expired', 'idle')))"
            )
            statuses = [
                superuser.execute(how, [token, session_id_of(token)]).fetchone()[0]
                for token in (short.token, unused)
            ]
            assert statuses == ["expired", "idle"]
            wait_for(lambda: datetime.now(timezone.utc) > longer.expires_at + timedelta(seconds=1))
            assert say(kept, "still here") == {"you said": "still here"}
        return True

    def test_what_was_missed_while_the_connection_was_lost(
        self, served: Served, user_id: str, superuser: Superuser
    ) -> None:
        created = session_service.create(user_id)
        with open_socket(served, created.token) as socket:
            socket.recv(timeout=60)
            wait_for(lambda: listeners(served, superuser), 30)
            (pid,) = listeners(served, superuser)
            superuser.execute("SELECT pg_terminate_backend(%s)", [pid])
            session_service.invalidate(created.token)
            assert close_code(socket) == ENDED


def scope_of(token: str) -> dict[str, Any]:
    """The handshake of a socket with the session cookie."""
    return {
        "type": "websocket",
        "path": "/ws/",
        "query_string": b"",
        "server": ("app.example.com", 443),
        "headers": [(b"cookie", f"{settings.cookie_name}={token}".encode())],
    }


class Loader:
    """A loader of users that fails for a time."""

    failing = False
    failed = 0

    @classmethod
    def load(cls, user_id: str, session: Session) -> Any:
        if cls.failing:
            cls.failed += 1
            raise RuntimeError("the directory does not answer")
        return SimpleNamespace(pk=user_id, is_active=True)


load_user = Loader.load


async def test_a_loader_that_fails_hangs_nobody_up(
    user_id: str, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it keep the socket open after the session has ended."""
    configure(USER_LOADER="tests.test_channels.load_user")
    monkeypatch.setattr("session_manager.channels.RECHECK", 0.05)
    monkeypatch.setattr("session_manager.channels.PAUSE", 0.05)
    create = sync_to_async(session_service.create)
    token = (await create(user_id)).token
    arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["code"] == ENDED

    arriving.put_nowait({"type": "websocket.connect"})
    serving = asyncio.create_task(
        SessionWebSocketMiddleware(application)(scope_of(token), arriving.get, send)
    )

    async def talk() -> None:
        while not sent:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(Loader, "failing", True)
        while Loader.failed < 3:
            await asyncio.sleep(0.01)
        assert sent == [{"type": "websocket.accept"}]
        monkeypatch.setattr(Loader, "failing", False)
        await sync_to_async(session_service.invalidate)(token)
        await serving

    try:
        await asyncio.wait_for(talk(), 60)
    finally:
        serving.cancel()
        revocations_of(session_id_of(token)).close()
    assert [message.get("code") for message in sent] == [None, ENDED]


async def test_a_client_that_does_not_read(user_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application hears no more from it, although it cannot be told."""
    monkeypatch.setattr("session_manager.channels.RECHECK", 0.05)
    monkeypatch.setattr("session_manager.channels.PATIENCE", 0.2)
    token = (await sync_to_async(session_service.create)(user_id)).token
    arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    stuck = asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            stuck.set()
            await asyncio.Event().wait()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        ticker = asyncio.create_task(send({"type": "websocket.send", "text": "tick"}))
        while (message := await receive())["type"] == "websocket.receive":
            heard.append(message["text"])
        ticker.cancel()

    heard: list[str] = []
    arriving.put_nowait({"type": "websocket.connect"})
    serving = asyncio.create_task(
        SessionWebSocketMiddleware(application)(scope_of(token), arriving.get, send)
    )

    async def talk() -> None:
        await stuck.wait()
        await sync_to_async(session_service.invalidate)(token)
        await serving

    try:
        await asyncio.wait_for(talk(), 60)
    finally:
        serving.cancel()
        revocations_of(session_id_of(token)).close()
    assert heard == []


def test_the_page_tells_a_sign_out_from_a_lost_connection(tmp_path: Path) -> None:
    (sample,) = samples("WebSockets", "js")
    script = f"""
    const called = [], socket = {{}};
    const signIn = () => called.push("signIn"), reconnect = () => called.push("reconnect");
    {sample}
    for (const code of [{ENDED}, 1006, 1001]) socket.onclose({{ code }});
    console.log(JSON.stringify(called));
    """
    assert run_script(tmp_path, script) == ["signIn", "reconnect", "reconnect"]
