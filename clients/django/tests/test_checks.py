"""The system checks: each finds what it is for, says what to do, and is silent otherwise."""

from __future__ import annotations

import secrets
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.core.checks import run_checks
from django.db import connection, connections

from session_manager.checks import check_servers, check_settings

from .conftest import RedisServer, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def static() -> set[str]:
    return collect(check_settings(None))


def servers() -> set[str]:
    return collect(check_servers(None, databases=["default"]))


def collect(messages: Any) -> set[str]:
    for message in messages:
        assert message.hint
        assert message.id.startswith("session_manager.")
    return {message.id.removeprefix("session_manager.") for message in messages}


def test_nothing_to_say() -> None:
    assert static() == set()
    assert servers() == set()
    messages = run_checks(databases=["default"])
    assert [m for m in messages if (m.id or "").startswith("session_manager")] == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"NO_SUCH_KEY": 1}, "E001"),
        ({"AUTH0": {"ISSUER": "https://x/"}}, "E001"),
        ({"TTL": "soon"}, "E001"),
        ({"DATABASE": "nowhere"}, "E011"),
        ({"LISTEN_DATABASE": "nowhere"}, "E011"),
        ({"ON_LOGIN": "no.such.hook"}, "E002"),
        ({"USER_LOADER": "tests.hooks.__name__"}, "E002"),
        ({"USER_ID_FIELD": "email"}, "E022"),
        ({"USER_ID_FIELD": "no_such_field"}, "E022"),
        ({"AUTH0": None}, "W024"),
        ({"AUTH0": None, "LOGIN_AUTHENTICATION": "tests.hooks.on_login"}, "E002"),
        ({"AUTH0": None, "LOGIN_AUTHENTICATION": "tests.nothing.here"}, "E002"),
        ({"USER_ID_FIELD": "username"}, "W025"),
        ({"THROTTLE_RATES": {"create": "20/fortnight"}}, "E026"),
        ({"THROTTLE_RATES": {"create": "many"}}, "E026"),
        ({"THROTTLE_RATES": {"login": "20/min"}}, "E026"),
        ({"CACHE_KEY_FILE": "/etc/key"}, "W027"),
        ({"REDIS_DB": 2}, "W027"),
        ({"COOKIE_NAME": "sessionid", "COOKIE_HOST_PREFIX": False}, "E003"),
        ({"COOKIE_SECURE": False}, "W004"),
        ({"COOKIE_HOST_PREFIX": True, "COOKIE_DOMAIN": "example.com"}, "E005"),
        ({"COOKIE_SAMESITE": "none", "COOKIE_SECURE": False}, "E006"),
        ({"COOKIE_SAMESITE": "whatever"}, "E006"),
        ({"REDIS_URL": "redis://localhost"}, "E010"),
        ({"REDIS_URL": "redis://localhost", "CACHE_KEY": "short"}, "E010"),
        ({"REDIS_URL": "redis://localhost", "CACHE_KEY_FILE": "/nonexistent"}, "E010"),
    ],
)
def test_settings(configure: Any, values: dict[str, Any], expected: str) -> None:
    configure(**values)
    assert expected in static()


@pytest.mark.parametrize("name", ["pk", "id", "username"])
def test_unique_fields(configure: Any, name: str) -> None:
    configure(USER_ID_FIELD=name, ON_LOGIN="tests.hooks.on_login")
    assert static() == set()


def test_the_same_cookie_in_debug(settings: Any) -> None:
    settings.SESSION_COOKIE_NAME = "session_token"
    assert static() == set()
    settings.DEBUG = True
    assert static() == {"E003"}


def test_a_database_of_redis_alone(settings: Any) -> None:
    settings.REDIS_SESSION_DB = 1
    assert static() == {"W027"}


def test_no_rates(configure: Any) -> None:
    configure(THROTTLE_RATES=None)
    assert static() == set()


def test_sign_in_by_forms_alone(configure: Any, settings: Any) -> None:
    settings.ROOT_URLCONF = "django.contrib.auth.urls"
    configure(AUTH0=None)
    assert static() == set()


def test_which_cookie_line_to_delete(configure: Any, settings: Any) -> None:
    settings.SESSION_COOKIE_NAME = "session_token"
    settings.DEBUG = True
    (message,) = check_settings(None)
    assert "Delete SESSION_COOKIE_NAME = 'session_token'" in str(message.hint)
    configure(COOKIE_NAME="session_token")
    (message,) = check_settings(None)
    assert 'Delete "COOKIE_NAME"' in str(message.hint)


def test_middleware(settings: Any, configure: Any) -> None:
    ours = "session_manager.middleware.SessionMiddleware"
    update = "django.middleware.cache.UpdateCacheMiddleware"
    settings.MIDDLEWARE = [update, *settings.MIDDLEWARE]
    assert static() == set()
    settings.MIDDLEWARE = [ours, update]
    assert static() == {"E008"}
    settings.MIDDLEWARE = []
    assert static() == set()
    configure(IMPORT_DJANGO_SESSIONS=True)
    assert static() == {"E007"}


def test_where_the_user_is_set(settings: Any) -> None:
    ours = "session_manager.middleware.AuthenticationMiddleware"
    chain = settings.MIDDLEWARE
    settings.MIDDLEWARE = [*chain, ours]
    assert static() == set()
    settings.MIDDLEWARE = [ours, *chain]
    assert static() == {"E023"}
    settings.MIDDLEWARE = [*chain[:-1], ours, chain[-1]]
    assert static() == {"E023"}
    # Also without SessionMiddleware, which the session engine does not need.
    users = "django.contrib.auth.middleware.AuthenticationMiddleware"
    settings.MIDDLEWARE = ["session_manager.middleware.RequestSessionMiddleware", users, ours]
    settings.SESSION_ENGINE = "session_manager.backends.sessions"
    assert "E023" not in static()
    settings.MIDDLEWARE = ["session_manager.middleware.RequestSessionMiddleware", ours, users]
    assert "E023" in static()


def test_who_loads_the_user(settings: Any, configure: Any) -> None:
    configure(USER_ID_FIELD="pk", LAZY_USER=True, ON_LOGIN="tests.hooks.on_login")
    settings.REST_FRAMEWORK = {
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"]
    }
    assert static() == {"W045"}
    chain = settings.MIDDLEWARE
    settings.MIDDLEWARE = [*chain, "session_manager.middleware.AuthenticationMiddleware"]
    assert static() == set()
    settings.MIDDLEWARE = chain
    settings.REST_FRAMEWORK = {
        "DEFAULT_AUTHENTICATION_CLASSES": ["session_manager.authentication.SessionAuthentication"]
    }
    assert static() == set()
    # Without Django's nobody loads the row.
    settings.REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": []}
    settings.MIDDLEWARE = [name for name in chain if not name.endswith(".AuthenticationMiddleware")]
    assert static() == set()


def test_proxies(settings: Any, configure: Any) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert static() == {"W009"}
    configure(TRUSTED_PROXIES=1)
    assert static() == set()


def test_key_file(configure: Any, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(secrets.token_hex(32) + "\n")
    path.chmod(0o644)
    configure(REDIS_URL="redis://localhost", CACHE_KEY_FILE=str(path))
    assert static() == {"W020"}
    path.chmod(0o600)
    assert static() == set()


@pytest.fixture
def elsewhere(transactional_db: None) -> Any:
    """Look at another database, user or engine through the alias default."""
    original = dict(connection.settings_dict)

    def change(**values: Any) -> None:
        connections.close_all()
        connection.settings_dict.update(values)

    yield change
    connections.close_all()
    connection.settings_dict.update(original)


def test_another_alias() -> None:
    assert check_servers(None, databases=["other"]) == []


def test_servers_are_not_asked_unless_told_to(elsewhere: Any) -> None:
    elsewhere(HOST="/nonexistent")
    assert check_servers(None) == []
    assert [m for m in run_checks() if (m.id or "").startswith("session_manager")] == []


def test_websockets_without_notifications(
    settings: Any, database_setting: Callable[[str, str], None]
) -> None:
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "channels"]
    assert servers() == {"W060"}
    database_setting("notify", "on")
    assert servers() == set()


def test_unreachable(elsewhere: Any) -> None:
    elsewhere(HOST="/nonexistent")
    assert servers() == {"W012"}


def test_extension_missing(elsewhere: Any, superuser: Any) -> None:
    superuser.execute("DROP DATABASE IF EXISTS sm_bare")
    superuser.execute("CREATE DATABASE sm_bare OWNER webapp TEMPLATE template0")
    try:
        elsewhere(NAME="sm_bare")
        # A warning before the first migration, which makes the extension.
        assert servers() == {"W013"}
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE django_migrations (id int, app text, name text, applied timestamptz)"
            )
            cursor.execute(
                "INSERT INTO django_migrations VALUES (1, 'session_manager', '0001_initial', now())"
            )
        assert servers() == {"E013"}
    finally:
        elsewhere()
        superuser.execute("DROP DATABASE sm_bare WITH (FORCE)")


def test_another_version(superuser: Any) -> None:
    superuser.execute(
        "UPDATE pg_extension SET extversion = '2.0' WHERE extname = 'session_manager'"
    )
    try:
        assert servers() == {"E014"}
        superuser.execute(
            "UPDATE pg_extension SET extversion = '1.99' WHERE extname = 'session_manager'"
        )
        assert servers() == {"W015"}
    finally:
        superuser.execute(
            "UPDATE pg_extension SET extversion = default_version FROM pg_available_extensions"
            " WHERE name = extname AND extname = 'session_manager'"
        )


def test_superuser(elsewhere: Any) -> None:
    elsewhere(USER=django_settings.PG_SUPERUSER["USER"])
    assert servers() == {"W016"}


def test_a_role_without_privileges(elsewhere: Any, superuser: Any, configure: Any) -> None:
    superuser.execute("DROP ROLE IF EXISTS sm_stranger; CREATE ROLE sm_stranger LOGIN")
    try:
        elsewhere(USER="sm_stranger")
        assert servers() == {"E017"}
    finally:
        elsewhere()
        superuser.execute("DROP ROLE sm_stranger")


def test_not_on_the_search_path(configure: Any) -> None:
    configure(SCHEMA="elsewhere")
    assert servers() == {"E017"}


def test_no_active_key(superuser: Any) -> None:
    superuser.execute("UPDATE session_keys SET state = 'inactive' WHERE state = 'active'")
    try:
        assert servers() == {"E018"}
    finally:
        superuser.execute(
            "UPDATE session_keys SET state = 'active'"
            " WHERE key_id = (SELECT max(key_id) FROM session_keys WHERE state = 'inactive')"
        )


def test_redis_that_is_busy(redis_server: RedisServer, configure: Any) -> None:
    configure(REDIS_TIMEOUT=0.02)

    def nothing_to_say() -> bool:
        redis_server.wait_for_epoch()
        redis_server.client.execute_command("CLIENT", "PAUSE", 500)
        return servers() == set()

    wait_for(nothing_to_say, 30)


def test_redis(redis_server: RedisServer) -> None:
    wait_for(lambda: servers() == set())
    redis_server.stop()
    assert servers() == {"W019"}


def answers(path: str) -> bool:
    try:
        return bool(redis.Redis(unix_socket_path=path).ping())
    except redis.RedisError:
        return False


@pytest.mark.parametrize("db", [0, 1])
def test_redis_cluster(redis_server: RedisServer, configure: Any, tmp_path: Any, db: int) -> None:
    # By default its bus has the same port wherever the server has none.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--port 0 --cluster-enabled yes --cluster-port {port}"
    options += f" --dir {tmp_path} --unixsocket {tmp_path}/s"
    command = ["redis-server", *options.split(), "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: answers(f"{tmp_path}/s"))
            configure(REDIS_URL=f"unix://{tmp_path}/s", REDIS_DB=db)
            (warning,) = check_servers(None, databases=["default"])
            assert warning.id == "session_manager.W019"
            assert ("Redis Cluster" if db == 0 else "cluster mode") in warning.msg
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("MAX_LIFETIME", 7 * 86400), ("IDLE_TIMEOUT", 7 * 86400), ("IDLE_TIMEOUT", 3600)],
)
def test_a_lifetime_that_the_extension_refuses(
    configure: Any, database_setting: Any, name: str, allowed: int
) -> None:
    if allowed == 3600:
        database_setting("idle_timeout", "1h")
    for kind in ("REMEMBERED", "NOT_REMEMBERED"):
        configure(**{kind: {name: allowed}})
        assert servers() == set()
        configure(**{kind: {name: allowed + 1}})
        assert servers() == {"E044"}
        configure(**{kind: {}})
