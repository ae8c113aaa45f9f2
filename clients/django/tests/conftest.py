"""Fixtures: the database with the extension, an issuer of access tokens, clients."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from asgiref.sync import SyncToAsync, iscoroutinefunction
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.management import call_command
from django.db import ConnectionHandler, connection, connections
from django.test import Client

from session_manager.conf import settings
from session_manager.login import token_from
from session_manager.services import session_service
from session_manager.store.shards import alias_of, bucket_of_user
from session_manager.testing.in_memory import memory
from session_manager.types import CreatedSession

from . import apart as other_database
from .issuer import AUDIENCE, Issuer
from .peers.cannot_apply import cannot_apply

#: What cannot hold where several servers share the sessions.
CANNOT_APPLY = Path(__file__).parent / "sharded" / "cannot_apply.txt"

SERVER, STAND_IN = "server", "stand-in"

# Where the sessions are if the database is a router: hosts, each with a database of this name.
ROUTED = os.environ.get("SM_TEST_ROUTED", "").split()
ROUTED_DATABASE = "sessions"

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _connections_of_asynchronous_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Close what an asynchronous test leaves open in its thread: other tests stop the server."""
    asynchronous = iscoroutinefunction(request.function)
    yield
    if asynchronous:
        SyncToAsync.single_thread_executor.submit(connections.close_all).result()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _use_each_server(items)
    if ROUTED:
        _expect_of_a_router(items)


def _use_each_server(items: list[pytest.Item]) -> None:
    """Let each test use the servers that share the sessions, if they do."""
    for item in items if django_settings.SHARDS else []:
        marker = item.get_closest_marker("django_db")
        if marker is None and not {"db", "transactional_db"} & set(item.fixturenames):
            continue
        given = {} if marker is None else marker.kwargs
        item.add_marker(pytest.mark.django_db(**{**given, "databases": "__all__"}), append=False)
    if django_settings.SHARDS:
        reasons = cannot_apply((), CANNOT_APPLY)
        for item in items:
            for name, reason in reasons.items():
                if item.nodeid.startswith(name):
                    item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def _expect_of_a_router(items: list[pytest.Item]) -> None:
    """The tests that router.txt names must fail: it has the reason indented below them."""
    reasons: dict[str, str] = {}
    names: list[str] = []
    for line in Path(__file__).with_name("router.txt").read_text().splitlines():
        if line.startswith("tests/"):
            names.append(line)
        elif line.startswith(" "):
            reasons.update(dict.fromkeys(names, line.strip()))
            names = []
    for item in items:
        whole = item.nodeid.partition("[")[0]
        reason = reasons.get(item.nodeid) or reasons.get(whole)
        if reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    with Issuer() as running:
        yield running


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """A key of the test database's own: with the first key it becomes an installation."""
    for alias in () if ROUTED else ("default", *django_settings.SHARDS):
        with django_db_blocker.unblock(), Superuser(alias=alias) as superuser:
            superuser.execute("SELECT session_key_generate()")


@pytest.fixture(scope="module", autouse=True)
def _no_sessions_of_other_modules(django_db_blocker: Any) -> None:
    """Which modules share a server is left to chance: Django flushes only tables of its own."""
    if not connections["default"].settings_dict["NAME"].startswith("test_"):
        # No module has used the test database yet.
        return
    places: list[dict[str, str]] = [
        {"alias": alias} for alias in ("default", *django_settings.SHARDS)
    ]
    if ROUTED:
        places = [{"name": ROUTED_DATABASE, "host": host} for host in ROUTED]
    for place in places:
        with django_db_blocker.unblock(), Superuser(**place) as superuser:
            superuser.execute("SET lock_timeout = '20s'")
            superuser.execute("TRUNCATE user_sessions, session_events, session_activity")


class Superuser:
    """A connection of the database's superuser, through whichever psycopg Django uses."""

    def __init__(
        self, name: str | None = None, alias: str = "default", host: str | None = None
    ) -> None:
        server = connections[alias].settings_dict
        config = {
            **django_settings.PG_SUPERUSER,
            "HOST": host or server["HOST"],
            "NAME": name or server["NAME"],
        }
        self.connection = ConnectionHandler({"default": config})["default"]

    def __enter__(self) -> Superuser:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.connection.close()

    def execute(self, sql: str, params: Any = None) -> Any:
        cursor = self.connection.cursor()
        cursor.execute(sql, params)
        return cursor


def psql(text: str) -> str:
    """Run what was printed as docs/django.md does, connected to no database of the application."""
    server = django_settings.DATABASES["default"]
    done = subprocess.run(
        ["psql", "-X", "-h", server["HOST"], "-p", server["PORT"], "-U", "postgres", "postgres"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    return done.stdout


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses ``backend`` on the extension and on the stand-in for it."""
    if "backend" in metafunc.fixturenames:
        alone = metafunc.definition.get_closest_marker("server_only")
        # The stand-in does not know of a router.
        backends = [SERVER] if alone or ROUTED else [SERVER, STAND_IN]
        metafunc.parametrize("backend", backends, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """What the service's calls are answered by."""
    if request.param == STAND_IN:
        request.getfixturevalue("in_memory")
    return str(request.param)


@pytest.fixture
def in_memory(configure: Callable[..., None]) -> Iterator[None]:
    configure(IN_MEMORY={})
    yield
    memory.flush()


@pytest.fixture(autouse=True)
def _clean_cache() -> None:
    cache.clear()


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    """Override members of SESSION_MANAGER."""

    def override(**values: Any) -> None:
        settings.SESSION_MANAGER = {**settings.SESSION_MANAGER, **values}

    return override


@pytest.fixture
def auth0(issuer: Issuer, configure: Callable[..., None]) -> Issuer:
    """The settings name the running issuer."""
    issuer.reset()
    configure(AUTH0={"ISSUER": issuer.url, "AUDIENCE": AUDIENCE, "JWKS_URL": issuer.jwks_url})
    return issuer


@pytest.fixture
def user_id() -> str:
    """A user whom no other test has."""
    return f"auth0|{uuid.uuid4().hex}"


@pytest.fixture
def created(db: None, user_id: str) -> CreatedSession:
    return session_service.create(
        user_id, {"cart": [1]}, ip="127.0.0.1", user_agent="tests", tenant_id="acme"
    )


class Heard(list[dict[str, Any]]):
    def __call__(self, **kwargs: Any) -> None:
        kwargs.pop("signal")
        kwargs.pop("sender")
        self.append(kwargs)


@pytest.fixture
def heard(request: pytest.FixtureRequest) -> Any:
    receiver = Heard()
    request.param.connect(receiver)
    yield receiver
    request.param.disconnect(receiver)


@pytest.fixture
def superuser(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[Superuser]:
    """A connection of the database's superuser, in autocommit mode.

    With several servers it is to the one that has the sessions of the test's user.
    """
    alias = "default"
    if django_settings.SHARDS and "user_id" in request.fixturenames:
        alias = alias_of(bucket_of_user(request.getfixturevalue("user_id")))
    with Superuser(alias=alias) as superuser:
        yield superuser


@pytest.fixture
def database_setting(
    request: pytest.FixtureRequest, superuser: Superuser
) -> Iterator[Callable[[str, str], None]]:
    """Set settings of the extension for the database; they hold for new connections."""
    if "backend" in request.fixturenames and request.getfixturevalue("backend") == STAND_IN:
        yield request.getfixturevalue("stand_in_setting")
        return
    name = ROUTED_DATABASE if ROUTED else connection.settings_dict["NAME"]
    servers: list[dict[str, str]] = [
        {"alias": alias} for alias in django_settings.SHARDS or ["default"]
    ]
    if ROUTED:
        servers = [{"name": name, "host": host} for host in ROUTED]

    def on_each_server(sql: str) -> None:
        for server in servers:
            with Superuser(**server) as one:
                # A setting is known once the library is loaded.
                one.execute("LOAD 'session_manager'")
                one.execute(sql)
        connections.close_all()

    yield lambda setting, value: on_each_server(
        f"ALTER DATABASE {name} SET session_manager.{setting} = '{value}'"
    )
    on_each_server(f"ALTER DATABASE {name} RESET ALL")


@pytest.fixture
def stand_in_setting(settings: Any) -> Callable[[str, str], None]:
    """The same for the stand-in."""

    def change(setting: str, value: str) -> None:
        given = {
            **settings.SESSION_MANAGER["IN_MEMORY"],
            setting: int(value) if value.isdigit() else value,
        }
        settings.SESSION_MANAGER = {**settings.SESSION_MANAGER, "IN_MEMORY": given}

    return change


class RedisServer:
    """A real Redis at the socket that the extension's worker knows."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(unix_socket_path=socket, db=1)

    def start(self) -> None:
        options = {
            "port": "0",
            "unixsocket": self.socket,
            "unixsocketperm": "777",
            "save": "",
            "appendonly": "no",
            "dir": os.path.dirname(self.socket),
        }
        self.process = subprocess.Popen(
            ["redis-server", *(part for k, v in options.items() for part in (f"--{k}", v))],
            stdout=subprocess.DEVNULL,
        )
        wait_for(self.answers)

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def epoch(self) -> bytes | None:
        keys = self.client.keys("session:epoch:*")
        return self.client.get(keys[0]) if keys else None

    def wait_for_epoch(self) -> None:
        wait_for(self.epoch)


def wait_for(condition: Callable[[], T], seconds: float = 180) -> T:
    """What a condition says once that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def _redis() -> Iterator[RedisServer]:
    socket = os.environ.get("SM_TEST_REDIS_SOCKET")
    if not socket:
        pytest.skip("SM_TEST_REDIS_SOCKET is not set")
    server = RedisServer(socket)
    yield server
    server.stop()


@pytest.fixture
def redis_server(
    _redis: RedisServer, configure: Callable[..., None], transactional_db: None
) -> Iterator[RedisServer]:
    """Redis with the extension's worker at it, and the settings that use it."""
    if _redis.process is None:
        _redis.start()
    configure(
        REDIS_URL=f"unix://{_redis.socket}",
        CACHE_KEY=secrets.token_hex(32),
        # The machine may be slow; what 20 ms are good for is tested on its own.
        REDIS_TIMEOUT=2.0,
    )
    _redis.wait_for_epoch()
    yield _redis
    # A test that has failed may have left it frozen.
    if _redis.process is not None:
        _redis.thaw()


class Browser(Client):
    """Django's client as a browser: CSRF is enforced, unsafe requests carry the token."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(enforce_csrf_checks=True, **kwargs)

    def token(self) -> str | None:
        morsel = self.cookies.get(settings.cookie_name)
        return morsel.value if morsel is not None and morsel.value else None

    def give(self, token: str) -> Browser:
        self.cookies[settings.cookie_name] = token
        return self

    def unsafe(self, method: str, path: str, data: Any = None, **extra: Any) -> Any:
        secret = "a" * 32
        self.cookies[django_settings.CSRF_COOKIE_NAME] = secret
        headers = {"X-CSRFToken": secret, "Sec-Fetch-Site": "same-origin"}
        headers.update(extra.pop("headers", {}))
        return self.generic(
            method,
            path,
            b"" if data is None else self._encode_json(data, "application/json"),
            content_type=extra.pop("content_type", "application/json"),
            headers={name: value for name, value in headers.items() if value is not None},
            **extra,
        )


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def signed_in(browser: Browser, created: CreatedSession) -> Browser:
    return browser.give(created.token)


@pytest.fixture
def ada(browser: Browser, configure: Callable[..., None], db: None) -> Browser:
    """A browser that is signed in as a user whom the application has."""
    configure(USER_ID_FIELD="username")
    get_user_model().objects.create_user("ada")
    return browser.give(session_service.create("ada").token)


__all__ = ["Browser", "token_from"]


@pytest.fixture
def apart(superuser: Any, configure: Any) -> Iterator[str]:
    """The alias of a database of its own for sessions; the users are in default."""
    superuser.execute(f"DROP DATABASE IF EXISTS {other_database.NAME} WITH (FORCE)")
    superuser.execute(f"CREATE DATABASE {other_database.NAME} OWNER webapp")
    other_database.add_alias("apart", other_database.NAME)
    configure(
        DATABASE="apart", USER_ID_FIELD="username", ON_LOGIN="tests.hooks.on_login_that_writes"
    )
    try:
        with Superuser(other_database.NAME) as other:
            other.execute("SELECT session_key_generate()")
        call_command("migrate", "session_manager", database="apart", verbosity=0)
        yield "apart"
    finally:
        other_database.remove_alias("apart")
        superuser.execute(f"DROP DATABASE IF EXISTS {other_database.NAME} WITH (FORCE)")
