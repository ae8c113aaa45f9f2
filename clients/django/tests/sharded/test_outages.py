"""A server that is down, one that is frozen, and a Redis that is killed: the others go on."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connections

from session_manager import administration
from session_manager.exceptions import ShardsUnreachable, StoreUnavailable
from session_manager.services import session_service
from session_manager.shards import each_shard
from session_manager.store.aliases import chosen_alias

from ..apart import add_alias, remove_alias
from ..conftest import Browser, RedisServer, wait_for
from . import maps
from .conftest import SHARDS, Shard, user_on

pytestmark = pytest.mark.django_db(transaction=True)

#: Seconds that pgbouncer waits for a server, and more than which no request may take.
LIMIT, AT_MOST = 2, 4.0


def tenants(name: str) -> dict[str, str]:
    """A session of a tenant on each server."""
    return {a: session_service.create(user_on(a), tenant_id=name).token for a in SHARDS}


def as_administrator() -> None:
    """Let the application end the sessions of a tenant, for which it has no right by itself."""
    for alias in SHARDS:
        Shard(alias).execute("SELECT session_grant('webapp', 'admin')")


def ends_the_rest(tenant_id: str) -> bool:
    try:
        administration.invalidate_tenant(tenant_id)
    except ShardsUnreachable:
        return False
    return True


def get(token: str) -> Any:
    return Browser().give(token).get("/api/sessions/current/")


def test_each_of_them(servers: dict[str, Shard]) -> None:
    as_administrator()
    tokens = tenants("acme")
    before = each_shard(session_service.count_active)
    assert set(before) == set(SHARDS)
    assert session_service.count_active() == sum(before.values())
    assert session_service.count_active(tenant_id="acme") == 4
    assert session_service.estimate_active() >= 0
    events = session_service.history(max_rows=4)
    assert {event.session_id for event in events} == {
        session_service.get(token).id  # type: ignore[union-attr]
        for token in tokens.values()
    }
    assert [event.at for event in events] == sorted((e.at for e in events), reverse=True)
    assert administration.invalidate_tenant("acme") == 4
    assert [session_service.get(token) for token in tokens.values()] == [None] * 4
    assert administration.cleanup().events_moved >= 0


def test_one_is_down(servers: dict[str, Shard]) -> None:
    as_administrator()
    tokens = tenants("down")
    servers["s2"].control("stop")
    for alias in SHARDS:
        assert get(tokens[alias]).status_code == (503 if alias == "s2" else 200)
    with pytest.raises(ShardsUnreachable, match="not done on s2") as caught:
        administration.invalidate_tenant("down")
    assert dict(caught.value.results) == {"s1": 1, "s3": 1, "s4": 1}
    assert set(caught.value.failed) == {"s2"}
    for alias in SHARDS:
        assert get(tokens[alias]).status_code == (503 if alias == "s2" else 401)
    with pytest.raises(ShardsUnreachable):
        session_service.count_active()
    servers["s2"].control("start")
    # Whoever was left is ended by the second call.
    assert get(tokens["s2"]).status_code == 200
    assert administration.invalidate_tenant("down") == 1
    assert get(tokens["s2"]).status_code == 401


def test_a_share_that_has_been_given_away(
    servers: dict[str, Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sessions may be live on another server, which no map names yet."""
    as_administrator()
    tokens = tenants("moving")
    monkeypatch.setattr("session_manager.store.shards.RETRY_SECONDS", 0.2)
    servers["s3"].give("5/8")
    with pytest.raises(ShardsUnreachable, match="s3") as caught:
        administration.invalidate_tenant("moving")
    assert dict(caught.value.results) == {"s1": 1, "s2": 1, "s4": 1}
    with pytest.raises(CommandError, match="s3"):
        call_command("sessions", "revoke", "--tenant", "moving", stdout=StringIO())
    servers["s3"].give("3/4")
    assert administration.invalidate_tenant("moving") == 0
    assert [session_service.get(token) for token in tokens.values()] == [None] * 4


def test_the_map_changes_meanwhile(map_function: None, servers: dict[str, Shard]) -> None:
    """s2 gives its share to s5, which is another name of its server."""
    add_alias("s5", connections["s2"].settings_dict["NAME"])
    connections["s5"].settings_dict["HOST"] = connections["s2"].settings_dict["HOST"]
    visited = []

    def work() -> None:
        alias = chosen_alias()
        visited.append(alias)
        if alias == "s1":
            maps.change(["s1", "s5", "s3", "s4"], known=True)

    try:
        assert set(each_shard(work)) == {"s1", "s2", "s3", "s4", "s5"}
    finally:
        maps.change(None, known=True)
        remove_alias("s5")
    assert visited == ["s1", "s2", "s3", "s4", "s5"]


@contextmanager
def pooler(shard: Shard) -> Iterator[str]:
    """A directory with the socket of a pgbouncer before a server."""
    directory = Path(tempfile.mkdtemp(prefix="sm"))
    settings = directory / "pgbouncer.ini"
    (directory / "users.txt").write_text('"webapp" ""\n')
    settings.write_text(
        f"""
[databases]
* = host={shard.directory} port={django_settings.DATABASES["s1"]["PORT"]}
[pgbouncer]
unix_socket_dir = {directory}
listen_addr =
listen_port = {django_settings.DATABASES["s1"]["PORT"]}
auth_type = trust
auth_file = {directory}/users.txt
pool_mode = transaction
query_timeout = {LIMIT}
query_wait_timeout = {LIMIT}
server_connect_timeout = {LIMIT}
server_login_retry = 1
ignore_startup_parameters = extra_float_digits
"""
    )
    command = ["pgbouncer", "-q", str(settings)]
    if os.getuid() == 0:
        shutil.chown(directory, "postgres")
        command[1:1] = ["-u", "postgres"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: list(directory.glob(".s.PGSQL.*")))
        yield str(directory)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory)


@pytest.fixture
def pooled(servers: dict[str, Shard], configure: Callable[..., None]) -> Iterator[str]:
    """The alias of s4 behind pgbouncer, in the place of s4."""
    with pooler(servers["s4"]) as directory:
        add_alias("pooled", connections["s4"].settings_dict["NAME"])
        connections["pooled"].settings_dict["HOST"] = directory
        configure(SHARDS=[*SHARDS[:3], "pooled"])
        try:
            yield "pooled"
        finally:
            remove_alias("pooled")


def test_one_is_frozen(servers: dict[str, Shard], pooled: str) -> None:
    as_administrator()
    aliases = [*SHARDS[:3], pooled]
    users = {alias: user_on(alias) for alias in aliases}
    tokens = {a: session_service.create(users[a], tenant_id="cold").token for a in aliases}
    pids = servers["s4"].pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(2):
            # On a connection that there was, and on a new one.
            for alias in aliases:
                began = time.monotonic()
                assert get(tokens[alias]).status_code == (503 if alias == pooled else 200)
                assert time.monotonic() - began < (AT_MOST if alias == pooled else 1.5)
        with pytest.raises(StoreUnavailable):
            session_service.create(users[pooled])
        with pytest.raises(ShardsUnreachable, match="not done on pooled") as caught:
            administration.invalidate_tenant("cold")
        assert dict(caught.value.results) == {"s1": 1, "s2": 1, "s3": 1}
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    # Once the pooler has found the server again.
    wait_for(lambda: ends_the_rest("cold"), 30)
    assert [session_service.get(token) for token in tokens.values()] == [None] * 4


def test_one_redis_each(servers: dict[str, Shard], redis_servers: dict[str, RedisServer]) -> None:
    """Each caches its own users; with one killed the others' revocations wait for nobody."""
    tokens = {alias: session_service.create(user_on(alias)).token for alias in SHARDS}
    for alias, token in tokens.items():
        wait_for(lambda token=token: session_service.get(token).cached)  # type: ignore[union-attr, misc]
        names = redis_servers[alias].client.keys("session:0*")
        assert len(names) == 1
    assert session_service.invalidate(tokens["s1"])
    assert session_service.get(tokens["s1"]) is None
    many = [session_service.create(user_on(a)).token for a in SHARDS[:3] for _ in range(20)]

    def median_time(tokens: list[str]) -> float:
        took = []
        for token in tokens:
            began = time.monotonic()
            assert session_service.invalidate(token)
            took.append(time.monotonic() - began)
        return statistics.median(took)

    usual = median_time(many[::2])
    redis_servers["s4"].stop()
    assert median_time(many[1::2]) <= 5 * usual + 0.02
    # In strict mode it waits until the epoch has ended, of which Redis has not been told.
    assert session_service.invalidate(tokens["s4"])
    assert session_service.get(tokens["s4"]) is None
    assert session_service.get(tokens["s2"]).cached  # type: ignore[union-attr]
