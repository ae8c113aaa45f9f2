"""Four servers, each with a quarter of the users, and what can happen to them."""

from __future__ import annotations

import itertools
import os
import secrets
import shlex
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from session_manager.shards import alias_of_user

from ..conftest import RedisServer, Superuser, wait_for
from . import maps

SHARDS: list[str] = settings.SHARDS


def user_on(alias: str, prefix: str = "") -> str:
    """A new user whose sessions an alias has, by the map as it should be."""
    ids = (f"{prefix}{uuid.uuid4().hex}" for _ in itertools.count())
    return next(user_id for user_id in ids if alias_of_user(user_id) == alias)


class Shard:
    """One of the servers."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.directory = Path(settings.DATABASES[alias]["HOST"])

    def execute(self, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        with Superuser(alias=self.alias) as superuser:
            cursor = superuser.execute(sql, params)
            return cursor.fetchall() if cursor.description else []

    def count(self, user_id: str) -> int:
        """Sessions of a user that have not been revoked."""
        sql = "SELECT count(*) FROM user_sessions WHERE user_id = %s AND revoked_at IS NULL"
        return int(self.execute(sql, [user_id])[0][0])

    def give(self, share: str | None) -> None:
        """Change session_manager.shard; None: the server takes every user."""
        self.execute("LOAD 'session_manager'")
        self.execute(f"ALTER SYSTEM SET session_manager.shard = '{share or ''}'")
        self.execute("SELECT pg_reload_conf()")
        wait_for(lambda: self.share() == (share or ""))

    def share(self) -> str:
        return str(
            self.execute(
                "SELECT CASE WHEN session_bucket(''::text) IS NOT NULL"
                " THEN current_setting('session_manager.shard') END"
            )[0][0]
        )

    def pids(self) -> list[int]:
        """The postmaster, and after it all its processes."""
        postmaster = int((self.directory / "data/postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]

    def control(self, action: str) -> None:
        data, log = self.directory / "data", self.directory / "log"
        command = [*shlex.split(os.environ["SM_TEST_PG_CTL"]), "-D", data, "-l", log, action]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def running(self) -> bool:
        return (self.directory / "data/postmaster.pid").exists()


@pytest.fixture
def servers(transactional_db: None) -> Iterator[dict[str, Shard]]:
    """The servers by their aliases; afterwards they run with the shares that they have had."""
    found = {alias: Shard(alias) for alias in SHARDS}
    yield found
    maps.change(None)
    for n, shard in enumerate(found.values(), 1):
        if not shard.running():
            shard.control("start")
        if shard.share() != f"{n}/{len(SHARDS)}":
            shard.give(f"{n}/{len(SHARDS)}")
    connections.close_all()


@pytest.fixture
def map_function(configure: Callable[..., None]) -> Iterator[None]:
    """SHARDS is a function, and the map is what maps.change() says."""
    configure(SHARDS=maps.PATH)
    yield
    maps.change(None)


@pytest.fixture
def redis_servers(
    servers: dict[str, Shard], configure: Callable[..., None]
) -> Iterator[dict[str, RedisServer]]:
    """A Redis beside each server."""
    found = {
        alias: RedisServer(str(shard.directory.parent / f"redis-{alias}" / "s"))
        for alias, shard in servers.items()
    }
    for server in found.values():
        server.start()
    configure(
        REDIS_URL={alias: f"unix://{server.socket}" for alias, server in found.items()},
        CACHE_KEY=secrets.token_hex(32),
        # The machine may be slow.
        REDIS_TIMEOUT=2.0,
    )
    for server in found.values():
        server.wait_for_epoch()
    yield found
    for server in found.values():
        server.stop()
