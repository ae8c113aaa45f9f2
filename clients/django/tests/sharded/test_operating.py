"""Checks, commands, the admin, users and identities with the sessions on four servers."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.test import Client

from session_manager.checks import check_servers, check_settings
from session_manager.exceptions import ShardsUnreachable
from session_manager.identity import bound_user_id, session_identity
from session_manager.services import session_service
from session_manager.store.fan_out import ranges_of

from ..conftest import Superuser
from ..pages import samples
from . import maps
from .conftest import SHARDS, Shard, user_on

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/session_manager/usersession/"
EVENTS = "/admin/session_manager/sessionevent/"


def run(*arguments: str, **options: Any) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=StringIO(), **options)
    return out.getvalue()


def found() -> dict[str, list[str]]:
    """What the checks say of the servers, without what tests are apt to be told."""
    messages: dict[str, list[str]] = {}
    for message in check_servers(None, databases=SHARDS):
        messages.setdefault(message.id.removeprefix("session_manager."), []).append(message.msg)
    messages.pop("W060", None)
    return messages


def test_checks_of_servers(servers: dict[str, Shard], configure: Callable[..., None]) -> None:
    # Each test database is an installation of its own.
    assert set(found()) == {"W076"}
    configure(SHARDS=SHARDS[::-1])
    wrong = found()
    assert len(wrong["E073"]) == 4
    assert "gives 's4' the share 1/4" in wrong["E073"][0]
    configure(SHARDS=[alias for alias in SHARDS for _ in range(2)])
    assert set(found()) == {"W076"}
    configure(SHARDS=SHARDS)
    servers["s2"].give(None)
    (message,) = found()["W074"]
    assert "takes every user" in message
    servers["s2"].give("1/2")
    (message,) = found()["W074"]
    assert "takes users of other shards" in message
    servers["s2"].give("2/4")
    servers["s4"].control("stop")
    assert "'s4' cannot be queried" in found()["W012"][0]
    assert check_servers(None, databases=["default"]) == []


def test_checks_of_settings(configure: Callable[..., None], settings: Any) -> None:
    def problems() -> set[str]:
        return {str(one.id).removeprefix("session_manager.") for one in check_settings(None)}

    before = problems()
    for given, problem in (
        ({"SHARDS": ["s1", "nowhere"]}, "E070"),
        ({"SHARDS": "tests.sharded.maps.nothing"}, "E070"),
        ({"REDIS_URL": {"nowhere": "unix:///x"}, "CACHE_KEY": "00" * 32}, "E071"),
        ({"SHARDS": []}, "E001"),
        ({"REDIS_URL": "unix:///x"}, "E001"),
        ({"SHARDS": None, "REDIS_URL": {"s1": "unix:///x"}}, "E001"),
    ):
        configure(**{"SHARDS": SHARDS, "REDIS_URL": None, "CACHE_KEY": None, **given})
        assert problems() - before == {problem}, given
    configure(SHARDS=SHARDS, REDIS_URL=None, CACHE_KEY=None)
    connections["s2"].settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert problems() - before == {"E072"}
    finally:
        connections["s2"].settings_dict["ATOMIC_REQUESTS"] = False


def test_commands(servers: dict[str, Shard]) -> None:
    for server in servers.values():
        server.execute("SELECT session_grant('webapp', 'admin')")
    user_id = user_on("s3")
    created = session_service.create(user_id, tenant_id="commanded")
    other = session_service.create(user_on("s2"), tenant_id="commanded")
    assert str(created.id) in run("sessions", "list", "--user", user_id)
    assert "live" in run("sessions", "show", str(created.id))
    assert run("sessions", "count", "--user", user_id) == "1\n"
    shown = run("sessions", "list", "--tenant", "commanded")
    assert [line for line in shown.splitlines() if line.endswith(":")] == [f"{a}:" for a in SHARDS]
    assert str(created.id) in shown
    assert str(other.id) in shown
    counted = run("sessions", "count", "--tenant", "commanded").split()
    assert counted == ["s1:", "0", "s2:", "1", "s3:", "1", "s4:", "0"]
    assert run("cleanup_sessions", "--dry-run").count("sessions are due") == 4
    assert run("cleanup_sessions").count("sessions deleted") == 4
    assert run("session_keys", "list").count("active") == 4
    with pytest.raises(CommandError, match="once"):
        run("sessions", "show", str(created.id), database=["s1", "s2"])
    servers["s2"].control("stop")
    for command in (["sessions", "list"], ["cleanup_sessions", "--dry-run"]):
        with pytest.raises(CommandError, match="Not done everywhere; run it again for\ns2: "):
            run(*command)
    with pytest.raises(CommandError, match="Not done everywhere; run it again for\ns2: "):
        run("sessions", "revoke", "--tenant", "commanded")
    assert session_service.get(created.token) is None
    servers["s2"].control("start")
    assert "1 sessions ended" in run("sessions", "revoke", "--tenant", "commanded")
    assert session_service.get(other.token) is None


def test_users(servers: dict[str, Shard], configure: Callable[..., None]) -> None:
    """They are in default: their sessions end right after its commit, wherever they are."""
    configure(USER_ID_FIELD="username")
    tokens = {}
    for alias in SHARDS:
        user = get_user_model().objects.create_user(user_on(alias))
        tokens[user.pk] = session_service.create(user.username).token
    first, second, third, _ = tokens
    get_user_model().objects.get(pk=first).delete()
    with transaction.atomic():
        get_user_model().objects.get(pk=second).delete()
        assert session_service.get(tokens[second]) is not None
    get_user_model().objects.filter(pk=third).update(is_active=False)
    assert "user_deactivated" in run("check_session_users")
    alive = [session_service.get(token) is not None for token in tokens.values()]
    assert alive == [False, False, False, True]
    # One that cannot be asked keeps no other from it.
    get_user_model().objects.update(is_active=False)
    servers["s2"].control("stop")
    with pytest.raises(CommandError, match="s2: "):
        run("check_session_users")
    assert session_service.get(list(tokens.values())[-1]) is None


def test_import(servers: dict[str, Shard], configure: Callable[..., None]) -> None:
    """Django's sessions are in default."""
    configure(
        USER_ID_FIELD="username",
        IMPORT_DJANGO_SESSIONS=True,
        IMPORT_DATA="tests.sharded.test_operating.import_data",
    )
    user = get_user_model().objects.create_user(user_on("s3"))
    client = Client()
    client.force_login(user)
    run("import_django_sessions")
    assert client.get("/info/").json()["user"] == user.username
    assert servers["s3"].count(user.username) == 1


def import_data(user: Any, data: dict[str, Any]) -> dict[str, Any]:
    """IMPORT_DATA."""
    return {"n": 1}


def test_admin(servers: dict[str, Shard], configure: Callable[..., None]) -> None:
    configure(USER_ID_FIELD="username")
    get_user_model().objects.create_superuser("root", password="x")
    client = Client()
    assert client.login(username="root", password="x")
    users = {a: user_on(a, "admin-") for a in SHARDS}
    created = {alias: session_service.create(users[alias]) for alias in SHARDS}
    get_user_model().objects.create_user(users["s4"], "dora@example.com")

    def page(path: str = LIST, **query: str) -> str:
        response = client.get(path, query or None)
        assert response.status_code == 200
        return str(response.content.decode())

    assert "database s1 of s1, s2, s3, s4" in page()
    assert str(created["s1"].id) in page()
    assert str(created["s2"].id) not in page()
    assert str(created["s2"].id) in page(database="s2")
    for alias in SHARDS:
        assert str(created[alias].id) in page(q=str(created[alias].id))
        assert str(created[alias].id) in page(q=users[alias])
        assert "created" in page(f"{LIST}{created[alias].id}/change/")
    assert str(created["s4"].id) in page(q="dora@example.com")
    assert users["s2"] in page(EVENTS, database="s2")
    link = re.search(rf'href="({EVENTS}\d+/change/\?[^"]*)"', page(EVENTS, database="s2"))
    assert link is not None
    assert users["s2"] in page(html.unescape(link[1]))
    client.post(
        f"{LIST}?database=s3", {"action": "revoke", "_selected_action": [str(created["s3"].id)]}
    )
    assert session_service.get(created["s3"].token) is None
    client.post(f"{LIST}{created['s2'].id}/change/", {"_revoke_all": "1"})
    assert session_service.get(created["s2"].token) is None


def test_identity(servers: dict[str, Shard]) -> None:
    """The application's own database believes the shards."""
    with Superuser() as superuser:
        for server in servers.values():
            ((keys,),) = server.execute("SELECT session_assertion_keys()::text")
            superuser.execute("SELECT session_trust(%s::jsonb)", [keys])
    for alias in SHARDS:
        user_id = user_on(alias)
        created = session_service.create(user_id)
        with session_identity(created.token):
            assert bound_user_id() == user_id
        session = session_service.get_id(created.id, user_id)
        assert session is not None
        with session_identity(session, using="default"):
            assert bound_user_id() == user_id


def test_the_page(
    servers: dict[str, Shard], map_function: None, settings: Any, monkeypatch: Any
) -> None:
    """docs/django.md, "Several databases"."""
    texts = samples("Several databases")
    names: dict[str, Any] = {}
    exec(texts[0], names)
    assert names["SESSION_MANAGER"]["SHARDS"] == ["sessions1", "sessions2"]
    assert set(names["SESSION_MANAGER"]["REDIS_URL"]) == set(names["DATABASES"]) - {"default"}
    maps.change(None)
    for server in servers.values():
        server.execute("SELECT session_grant('webapp', 'admin')")
    user_id = user_on("s2")
    created = session_service.create(user_id, tenant_id="acme")
    names = {"user": user_id, "token": created.token, "session_id": created.id}
    for text in texts[1:]:
        exec(text, names)
    assert session_service.get(created.token) is None
    servers["s1"].control("stop")
    with pytest.raises(ShardsUnreachable):
        exec(texts[-1], names)


@pytest.mark.parametrize(
    ("share", "ranges"),
    [
        ("1/4", [(0, 16384)]),
        ("1/8, 2/8", [(0, 16384)]),
        ("3/3", [(43691, 65536)]),
        ("49152-65535,0-16383", [(0, 16384), (49152, 65536)]),
        ("1/4, 16384-20479", [(0, 20480)]),
        ("none", []),
    ],
)
def test_ranges_of_a_share(share: str, ranges: list[tuple[int, int]]) -> None:
    assert ranges_of(share) == ranges
