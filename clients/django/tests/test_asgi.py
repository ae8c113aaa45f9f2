"""ASGI: the application under uvicorn, 50 clients at once, PostgreSQL and Redis for real.

Every client is somebody else and checks each answer for being its own.  Their requests share a pool
of TLS connections and the server's connections to the database: whatever leaked from one request
into another would show as somebody else's identity.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import django
import httpx
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from session_manager.conf import settings
from session_manager.services import session_service

from .conftest import RedisServer, Superuser, wait_for
from .issuer import AUDIENCE, Issuer
from .serving import Served
from .test_failures import Server, server

__all__ = ["server"]

pytestmark = pytest.mark.django_db(transaction=True)

CLIENTS = 50
POOL_SIZE = 4  # of tests.settings
CURRENT = "/api/sessions/current/"
CREATE = "/api/sessions/create/"
REFRESH = "/api/sessions/refresh/"
LIST = "/api/sessions/"

# Each request with a connection of its own, or with Django's pool, which is of 5.1.
WAYS = ["connections", *(["pool"] if is_psycopg3 and django.VERSION >= (5, 1) else [])]
both_ways = pytest.mark.parametrize(
    "pool",
    [
        pytest.param(way == "pool", id=way, marks=[pytest.mark.long] * (way == "pool"))
        for way in WAYS
    ],
)


@pytest.fixture
def serve(
    issuer: Issuer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Served]:
    """Uvicorn with the test database, Redis and the issuer."""

    def make(pool_timeout: float | None = None) -> Served:
        issuer.reset()
        values = {
            "AUTH0": {"ISSUER": issuer.url, "AUDIENCE": AUDIENCE, "JWKS_URL": issuer.jwks_url},
            "REDIS_URL": settings.REDIS_URL,
            "CACHE_KEY": settings.CACHE_KEY,
            "REDIS_TIMEOUT": 2.0,
            "ON_SWITCH_TENANT": "tests.hooks.on_switch_tenant",
        }
        directory = tmp_path_factory.mktemp("served")
        return Served(directory, connection.settings_dict["NAME"], values, pool_timeout)

    return make


class Visitor:
    """A client as a browser: cookies of its own, CSRF token and Origin on unsafe requests."""

    def __init__(self, served: Served, transport: httpx.AsyncHTTPTransport, user_id: str) -> None:
        self.user_id = user_id
        self.origin = served.url
        self.codes: list[int] = []
        self.http = httpx.AsyncClient(
            transport=transport,
            base_url=served.url,
            timeout=60,
            headers={"User-Agent": f"visitor of {user_id}"},
        )

    @property
    def token(self) -> str | None:
        return self.http.cookies.get(settings.cookie_name)

    def give(self, token: str) -> None:
        self.http.cookies.set(settings.cookie_name, token, domain=httpx.URL(self.origin).host)

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if method != "GET":
            headers |= {
                "Origin": self.origin,
                "Sec-Fetch-Site": "same-origin",
                "X-CSRFToken": self.http.cookies["csrftoken"],
            }
        response = await self.http.request(method, path, json=body, headers=headers)
        self.codes.append(response.status_code)
        assert response.status_code < 500, response.text
        return response

    async def expect(self, code: int, method: str, path: str, body: Any = None, **h: str) -> Any:
        response = await self.send(method, path, body, **h)
        assert response.status_code == code, (method, path, response.text)
        return response


def in_thread(method: Callable[..., Any], *args: Any) -> Awaitable[Any]:
    """Call the service in this process; the thread's connection is closed."""

    def run() -> Any:
        try:
            return method(*args)
        finally:
            connections.close_all()

    return sync_to_async(run, thread_sensitive=False)()


async def visit(visitor: Visitor, issuer: Issuer, n: int) -> None:
    """One client's life: in, reads, changes, refreshes, out."""
    user = visitor.user_id
    anonymous = await visitor.expect(401, "GET", CURRENT)
    assert anonymous.json()["code"] == "not_authenticated"
    if n % 2:
        created = await in_thread(session_service.create, user, {"client": {"mine": user}})
        session_id, token = str(created.id), created.token
        visitor.give(token)
    else:
        response = await visitor.expect(
            201,
            "POST",
            CREATE,
            {"data": {"client": {"mine": user}}, "user": {"name": user}},
            Authorization=f"Bearer {issuer.token(user)}",
        )
        body = response.json()
        assert body["user"] == {"id": user, "name": user}
        session_id = body["session"]["id"]
    response = await visitor.expect(200, "GET", CURRENT)
    body = response.json()
    assert (body["user"]["id"], body["session"]["id"]) == (user, session_id)
    assert body["session"]["data"]["client"]["mine"] == user

    body = (await visitor.expect(200, "GET", "/ainfo/")).json()
    assert (body["exists"], body["user"], body["data"]["client"]["mine"]) == (True, user, user)

    body = (await visitor.expect(200, "GET", "/avisit/")).json()
    assert (body["user"], body["data"]["visits"]) == (user, 1)
    assert (body["data"]["client"]["mine"], body["sessions"]) == (user, [session_id])

    # The ETag from before the visit is one version behind.
    stale = response.headers["ETag"]
    await visitor.expect(412, "PATCH", CURRENT, {"client": {"mood": user}}, If_Match=stale)
    tag = (await visitor.expect(200, "GET", CURRENT)).headers["ETag"]
    response = await visitor.expect(200, "PATCH", CURRENT, {"client": {"mood": user}}, If_Match=tag)
    data = response.json()["session"]["data"]
    assert (data["client"], data["visits"]) == ({"mine": user, "mood": user}, 1)

    before = visitor.token
    response = await visitor.expect(200, "POST", REFRESH)
    body = response.json()
    assert (body["status"], body["user"]["id"]) == ("rotated", user)
    assert body["session"]["id"] == session_id
    assert visitor.token not in (None, before)

    body = (await visitor.expect(200, "GET", "/protected/")).json()
    assert body == {"user": user}
    listed = (await visitor.expect(200, "GET", LIST)).json()["results"]
    assert [(entry["id"], entry["is_current"]) for entry in listed] == [(session_id, True)]

    last = visitor.token
    assert last is not None
    if n % 3 == 0:
        # Revoked from elsewhere, by another process: refused at once.
        assert await in_thread(session_service.invalidate_all, user) == 1
        assert (await visitor.expect(200, "GET", "/ainfo/")).json()["exists"] is False
        visitor.give(last)
        response = await visitor.expect(401, "GET", CURRENT)
        assert response.json()["code"] == "session_revoked"
        assert response.json()["reason"] == "logout_all"
        assert visitor.token == last
        await visitor.expect(401, "GET", "/avisit/")
    else:
        await visitor.expect(204, "DELETE", CURRENT)
        assert visitor.token is None
        visitor.give(last)
    response = await visitor.expect(401, "POST", REFRESH)
    assert response.json()["code"] == "session_revoked"
    assert visitor.token == last
    await visitor.expect(401, "GET", CURRENT)


class Connections:
    """How many connections a server has to PostgreSQL, and had at most; and at work at most."""

    def __init__(self, superuser: Superuser, name: str) -> None:
        self.superuser = superuser
        self.name = name
        self.most = self.most_active = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def now(self, condition: str = "true") -> int:
        return int(
            self.superuser.execute(
                "SELECT count(*) FROM pg_stat_activity"
                f" WHERE application_name = %s AND {condition}",
                [self.name],
            ).fetchone()[0]
        )

    def active(self) -> int:
        return self.now("state = 'active'")

    def unfinished(self) -> int:
        return self.now("xact_start IS NOT NULL")

    def _watch(self) -> None:
        with Superuser() as superuser:
            watcher = Connections(superuser, self.name)
            while not self._stop.wait(0.02):
                self.most = max(self.most, watcher.now())
                self.most_active = max(self.most_active, watcher.active())

    def __enter__(self) -> Connections:
        self._thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stop.set()
        self._thread.join()


@contextlib.asynccontextmanager
async def transport_to(served: Served) -> AsyncIterator[httpx.AsyncHTTPTransport]:
    """Connections to a server that clients share."""
    transport = httpx.AsyncHTTPTransport(
        verify=served.context(), limits=httpx.Limits(max_connections=CLIENTS)
    )
    try:
        yield transport
    finally:
        await transport.aclose()


def check_log(served: Served) -> None:
    log = served.log.read_text()
    assert not re.search("Traceback|ERROR|Internal Server Error", log), log
    assert "sm1_" not in log


@both_ways
def test_fifty_clients(
    serve: Callable[..., Served], issuer: Issuer, superuser: Superuser, pool: bool
) -> None:
    """Fifty users, each of whom sees nothing but their own."""

    async def everybody(served: Served) -> list[Visitor]:
        async with transport_to(served) as transport:
            mark = secrets.token_hex(4)
            visitors = [Visitor(served, transport, f"auth0|{mark}|{n}") for n in range(CLIENTS)]
            await asyncio.gather(*(visit(who, issuer, n) for n, who in enumerate(visitors)))
        return visitors

    with serve(30 if pool else None) as served:
        with Connections(superuser, served.name) as open_connections:
            visitors = asyncio.run(everybody(served))
        # Whatever was opened is closed, except the pool's, and no transaction is left open.
        bound = POOL_SIZE if pool else 0
        wait_for(lambda: open_connections.now() <= bound)
        wait_for(lambda: open_connections.unfinished() == 0)
        check_log(served)
    codes = [code for visitor in visitors for code in visitor.codes]
    assert len(codes) >= CLIENTS * 13
    assert set(codes) == {200, 201, 204, 401, 412}
    # They did come at once.
    assert open_connections.most > 2
    if pool:
        assert open_connections.most <= POOL_SIZE
    else:
        # Backends whose connections have been closed may take a while to end.
        assert open_connections.most_active <= CLIENTS


async def one_session(visitors: list[Visitor], token: str, session_id: str) -> None:
    """One user's session in fifty tabs, all of which do the same thing at once."""

    async def all_of_them(method: str, path: str, body: Any = None, **headers: str) -> list[Any]:
        return await asyncio.gather(
            *(
                visitor.send(method, path, body(n) if body else None, **headers)
                for n, visitor in enumerate(visitors)
            )
        )

    def ids(answers: list[Any]) -> set[str]:
        assert {answer.status_code for answer in answers} == {200}
        return {answer.json()["session"]["id"] for answer in answers}

    for visitor in visitors:
        visitor.give(token)
    assert ids(await all_of_them("GET", CURRENT)) == {session_id}
    assert {a.json()["exists"] for a in await all_of_them("GET", "/ainfo/")} == {True}

    # No change is lost.
    changed = await all_of_them("PATCH", CURRENT, lambda n: {"client": {f"k{n}": n}})
    assert ids(changed) == {session_id}
    answers = await all_of_them("GET", CURRENT)
    expected = {"client": {f"k{n}": n for n in range(CLIENTS)}}
    assert all(answer.json()["session"]["data"] == expected for answer in answers)
    (tag,) = {answer.headers["ETag"] for answer in answers}
    assert tag == f'"{1 + CLIENTS}"'

    # Of those who change the same version, one does.
    answers = await all_of_them("PATCH", CURRENT, lambda n: {"client": n}, If_Match=tag)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 412: CLIENTS - 1}
    (winner,) = (n for n, answer in enumerate(answers) if answer.status_code == 200)
    answers = await all_of_them("GET", CURRENT)
    assert {answer.json()["session"]["data"]["client"] for answer in answers} == {winner}

    # One refresh gives a new token; the old one is good for the tabs that have not got it yet.
    answers = await all_of_them("POST", REFRESH)
    assert ids(answers) == {session_id}
    statuses = Counter(answer.json()["status"] for answer in answers)
    assert statuses == {"rotated": 1, "already_rotated": CLIENTS - 1}
    (new,) = {visitor.token for visitor in visitors} - {token}
    assert new is not None
    assert ids(await all_of_them("GET", CURRENT)) == {session_id}
    for visitor in visitors:
        visitor.give(new)
    assert ids(await all_of_them("GET", CURRENT)) == {session_id}

    # All read as fast as they can while one signs out.
    loop = asyncio.get_running_loop()
    signed_out = float("inf")
    reads = 0

    async def read_until_refused(visitor: Visitor) -> None:
        nonlocal reads
        while True:
            began = loop.time()
            response = await visitor.send("GET", CURRENT)
            if response.status_code == 401:
                assert response.json()["code"] == "session_revoked"
                assert visitor.token is not None
                return
            assert began < signed_out, "a session that has ended was served"
            reads += 1

    async def sign_out(visitor: Visitor) -> None:
        nonlocal signed_out
        while reads < 2 * CLIENTS:
            await asyncio.sleep(0.01)
        await visitor.expect(204, "DELETE", CURRENT)
        signed_out = loop.time()

    await asyncio.wait_for(
        asyncio.gather(*map(read_until_refused, visitors[1:]), sign_out(visitors[0])), 60
    )
    for method, path in (("GET", CURRENT), ("POST", REFRESH), ("GET", "/avisit/")):
        for visitor in visitors:
            visitor.give(new)
        answers = await all_of_them(method, path)
        assert {answer.status_code for answer in answers} == {401}


def test_one_session_of_fifty_clients(
    serve: Callable[..., Served],
    superuser: Superuser,
    user_id: str,
    database_setting: Callable[[str, str], None],
) -> None:
    """The same cookie fifty times, at two processes: what one does, the other knows."""
    database_setting("rotation_grace", "3600")
    created = session_service.create(user_id)

    async def everybody(servers: list[Served]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            transports = [await stack.enter_async_context(transport_to(s)) for s in servers]
            visitors = [Visitor(servers[n % 2], transports[n % 2], user_id) for n in range(CLIENTS)]
            await one_session(visitors, created.token, str(created.id))

    with serve() as first, serve() as second:
        asyncio.run(everybody([first, second]))
        for served in (first, second):
            its_connections = Connections(superuser, served.name)
            wait_for(lambda c=its_connections: c.now() == 0)
            check_log(served)


def test_the_cookie_over_the_wire(
    serve: Callable[..., Served], issuer: Issuer, user_id: str
) -> None:
    """As the browser gets it, attribute by attribute."""

    def session_cookie(response: httpx.Response) -> str:
        (line,) = (
            line
            for line in response.headers.get_list("Set-Cookie")
            if not line.startswith("csrftoken=")
        )
        return line

    async def sign_in_and_out(served: Served) -> tuple[str, str]:
        async with transport_to(served) as transport:
            visitor = Visitor(served, transport, user_id)
            await visitor.expect(401, "GET", CURRENT)
            made = await visitor.expect(
                201, "POST", CREATE, Authorization=f"Bearer {issuer.token(user_id)}"
            )
            gone = await visitor.expect(204, "DELETE", CURRENT)
        return session_cookie(made), session_cookie(gone)

    with serve() as served:
        made, gone = asyncio.run(sign_in_and_out(served))
    name_and_value, *attributes = made.split("; ")
    assert re.fullmatch(r"__Host-session_token=sm1_[A-Za-z0-9_-]{64}", name_and_value)
    given = {name.lower(): value for name, _, value in (part.partition("=") for part in attributes)}
    assert given.pop("expires").endswith("GMT")
    assert abs(int(given.pop("max-age")) - 7 * 86400) < 30
    assert given == {"httponly": "", "secure": "", "path": "/", "samesite": "Lax"}
    name_and_value, *attributes = gone.split("; ")
    assert name_and_value == '__Host-session_token=""'
    assert {part.lower() for part in attributes} == {
        "expires=thu, 01 jan 1970 00:00:00 gmt",
        "httponly",
        "max-age=0",
        "path=/",
        "samesite=lax",
        "secure",
    }


class Traffic:
    """Requests without a break, and what they were answered."""

    PATHS = (CURRENT, "/ainfo/", "/avisit/")

    def __init__(self, served: Served, token: str) -> None:
        self._served = served
        self._token = token
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(p,)) for p in self.PATHS]
        self.answers: list[httpx.Response] = []
        self.failures: list[Exception] = []

    def _run(self, path: str) -> None:
        cookies = {settings.cookie_name: self._token}
        try:
            with httpx.Client(verify=self._served.context(), timeout=60, cookies=cookies) as http:
                while not self._stop.is_set():
                    self.answers.append(http.get(f"{self._served.url}{path}"))
        except Exception as failure:
            self.failures.append(failure)

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def codes(self, seconds: float = 0.5) -> set[int]:
        """The statuses from now on, for some time and at least one of each path."""
        start = len(self.answers)

        def enough() -> bool:
            paths = {answer.request.url.path for answer in self.answers[start:]}
            return paths == set(self.PATHS) or bool(self.failures)

        time.sleep(seconds)
        wait_for(enough, 30)
        assert self.failures == []
        return {answer.status_code for answer in self.answers[start:]}


@both_ways
def test_outages_without_a_restart(
    serve: Callable[..., Served],
    server: Server,
    redis_server: RedisServer,
    user_id: str,
    pool: bool,
) -> None:
    """Under traffic Redis stops, PostgreSQL stops, both come back: the same process serves on."""
    created = session_service.create(user_id, {"mine": user_id})
    connections.close_all()
    with serve(1 if pool else None) as served:
        # The pool opens its first connection in the background.
        with Traffic(served, created.token) as warm:
            wait_for(lambda: warm.codes() == {200}, 60)
        with Traffic(served, created.token) as traffic:
            assert traffic.codes() == {200}
            redis_server.stop()
            assert traffic.codes() == {200}
            assert {answer.status_code for answer in traffic.answers} == {200}
            server.stop()
            # Those on their way when it stopped may have had their answer.
            wait_for(lambda: traffic.codes() == {503}, 30)
            server.start()
            # A pool tries again after 1, 2, 4 seconds.
            wait_for(lambda: traffic.codes() == {200}, 30)
            redis_server.start()
            redis_server.wait_for_epoch()
            assert traffic.codes() == {200}
        assert {answer.status_code for answer in traffic.answers} == {200, 503}
        for answer in traffic.answers:
            # No outage is a verdict on the session.
            assert settings.cookie_name not in answer.headers.get("Set-Cookie", "")
            if answer.status_code == 503:
                assert answer.headers["Retry-After"] == "2"
            else:
                assert user_id in answer.text
        session_service.invalidate(created.token)
        cookies = {settings.cookie_name: created.token}
        with httpx.Client(verify=served.context(), timeout=60, cookies=cookies) as client:
            assert client.get(f"{served.url}{CURRENT}").status_code == 401
        assert served.process.poll() is None
