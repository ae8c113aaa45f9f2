"""Reads through a real Redis, which the extension's worker keeps honest."""

from __future__ import annotations

import itertools
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import redis
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from session_manager.exceptions import StoreUnavailable
from session_manager.services import session_service
from session_manager.store import cache as cache_module
from session_manager.store import channel
from session_manager.store.breaker import Breaker
from session_manager.store.cache import session_cache
from session_manager.store.channel import Channel
from session_manager.store.tokens import session_id_of
from session_manager.types import Session

from .conftest import Browser, RedisServer, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def documented_rights(version: int = 7) -> str:
    """The rights of a reader's Redis user in docs/cache-protocol.md."""
    text = (Path(__file__).parents[3] / "docs/cache-protocol.md").read_text(encoding="utf-8")
    seven, six = re.findall(r"^    ACL SETUSER webapp (.*)$", text, re.MULTILINE)
    return str(seven if version == 7 else six)


@pytest.fixture
def token(redis_server: RedisServer, user_id: str) -> str:
    """A session that Redis holds."""
    token = session_service.create(
        user_id,
        {"big": 12345678901234567890, "ü": [1.5]},
        ip="127.0.0.1",
        auth={"amr": ["by-telegraph"]},
    ).token
    fill(token)
    return token


def fill(token: str) -> None:
    def cached() -> bool:
        session = session_service.get(token, touch=False)
        return session is not None and session.cached

    wait_for(cached)


def key_of(token: str) -> str:
    return f"session:{session_id_of(token)}"


def queries(token: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        session_service.get(token, touch=False)
    return len(captured)


def cached(token: str) -> bool:
    session = session_service.get(token, touch=False)
    assert session is not None
    return session.cached


def test_a_cached_session_is_the_same(redis_server: RedisServer, token: str) -> None:
    wait_for(lambda: queries(token) == 0)

    def read() -> Session | None:
        session = session_service.get(token)
        assert session is not None
        return session if session.cached else None

    from_redis = wait_for(read)
    redis_server.client.flushdb()
    from_postgresql = session_service.get(token, touch=False)
    assert from_redis is not None
    assert from_postgresql is not None
    assert not from_postgresql.cached
    for name in {field.name for field in fields(Session)} - {"cached"}:
        assert getattr(from_redis, name) == getattr(from_postgresql, name), name


def test_redis_learns_nothing(redis_server: RedisServer, token: str, user_id: str) -> None:
    value = wait_for(lambda: cached(token) and redis_server.client.get(key_of(token)))
    dump = b"".join((*redis_server.client.keys("*"), value))
    for secret in (token, token[4:], user_id, "12345678901234567890", "by-telegraph"):
        assert secret.encode() not in dump


@pytest.mark.parametrize("how", ["invalidate", "invalidate_id", "all", "psql"])
def test_a_revoked_session_is_never_served(
    redis_server: RedisServer, user_id: str, superuser: Any, how: str
) -> None:
    for _ in range(5):
        created = session_service.create(user_id)
        fill(created.token)
        if how == "invalidate":
            session_service.invalidate(created.token)
        elif how == "invalidate_id":
            session_service.invalidate_id(created.id)
        elif how == "all":
            session_service.invalidate_all(user_id)
        else:
            superuser.execute("DELETE FROM user_sessions WHERE session_id = %s", [created.id])
        for _ in range(10):
            assert session_service.get(created.token) is None


def test_changes_are_seen_at_once(redis_server: RedisServer, token: str) -> None:
    for n in range(20):
        session_service.update(token, {"n": n})
        session = session_service.get(token)
        assert session is not None
        assert session.data["n"] == n


def test_rotation(redis_server: RedisServer, token: str) -> None:
    rotated = session_service.refresh(token, rotate=True).token
    assert rotated is not None
    assert session_service.get(rotated) is not None
    assert not cached(token)
    wait_for(lambda: redis_server.client.ttl("x") == -2)
    assert session_service.get(token) is not None


def test_not_after_a_change_in_the_same_transaction(token: str, user_id: str) -> None:
    other = session_service.create(user_id).token
    fill(other)
    with transaction.atomic():
        wait_for(lambda: cached(token))
        session_service.update(token, {"n": 1})
        session = session_service.get(token, touch=False)
        assert session is not None
        assert (session.cached, session.data["n"]) == (False, 1)
        wait_for(lambda: cached(other))
        session_service.update_user(user_id, {"all": 1})
        assert not cached(other)
        transaction.set_rollback(True)
    with transaction.atomic():
        session_service.invalidate(token)
        assert session_service.get(token) is None
        transaction.set_rollback(True)
    with transaction.atomic():
        wait_for(lambda: cached(other))


def test_a_wrong_secret_opens_nothing(token: str) -> None:
    wrong = token[:-6] + ("AAAAAA" if not token.endswith("AAAAAA") else "BBBBBB")

    def untouched() -> bool:
        fill(token)
        assert session_service.get(wrong) is None
        return cached(token)

    wait_for(untouched)


def test_another_key_misses(token: str, configure: Any) -> None:
    configure(CACHE_KEY="00" * 32)
    assert not cached(token)


def test_requests_are_served_from_redis(token: str, user_id: str) -> None:
    browser = Browser().give(token)

    def unasked() -> bool:
        with CaptureQueriesContext(connection) as captured:
            response = browser.get("/api/sessions/current/")
        assert response.json()["user"]["id"] == user_id
        return len(captured) == 0

    wait_for(unasked)
    browser.unsafe("DELETE", "/api/sessions/current/")
    assert Browser().give(token).get("/api/sessions/current/").status_code == 401


class Reader(threading.Thread):
    """Reads a session until it has ended, and whether it is there for some times after."""

    def __init__(self, token: str, ended: threading.Event) -> None:
        super().__init__()
        self._token = token
        self._ended = ended
        #: It has been found once.
        self.found = threading.Event()
        self.after: list[bool] = []

    def run(self) -> None:
        try:
            while len(self.after) < 20:
                ended = self._ended.is_set()
                found = session_service.get(self._token, touch=False) is not None
                if ended:
                    self.after.append(found)
                elif found:
                    self.found.set()
        finally:
            connections.close_all()


def test_readers_and_a_revocation(redis_server: RedisServer, user_id: str) -> None:
    """Eight readers fill and read while the session ends; none sees it afterwards."""
    for _ in range(5):
        token = session_service.create(user_id).token
        ended = threading.Event()
        readers = [Reader(token, ended) for _ in range(8)]
        for reader in readers:
            reader.start()
        try:
            for reader in readers:
                assert reader.found.wait(60)
            assert session_service.invalidate(token)
        finally:
            ended.set()
        for reader in readers:
            reader.join()
        # So many reads of each began after the end.
        assert [reader.after for reader in readers] == [[False] * 20] * 8


def clients(redis_server: RedisServer) -> set[int]:
    """The connections that Redis knows."""
    return {int(client["id"]) for client in redis_server.client.client_list()}


@pytest.fixture
def asked_redis(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When Redis was asked for something."""
    times: list[float] = []
    command = Channel.command

    def counted(self: Channel, *words: Any) -> Any:
        times.append(time.monotonic())
        return command(self, *words)

    monkeypatch.setattr(Channel, "command", counted)
    return times


#: Redis is given up for good at a late answer, and at nothing else: to connect may take long, too.
LATE: dict[str, Any] = {"REDIS_TIMEOUT": 0.1, "BREAKER_SECONDS": 3600, "BREAKER_FAILURES": 1000}


class TestOutage:
    def test_redis_down(
        self, redis_server: RedisServer, token: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        redis_server.stop()
        browser = Browser().give(token)
        for _ in range(10):
            assert browser.get("/api/sessions/current/").status_code == 200
        cache = session_cache()
        assert cache is not None
        assert cache.breaker.is_open
        assert caplog.text.count("Redis does not answer") == 1
        redis_server.start()
        redis_server.wait_for_epoch()
        wait_for(lambda: cached(token))
        assert not cache.breaker.is_open

    def test_a_revocation_while_redis_is_down(
        self, redis_server: RedisServer, token: str, user_id: str
    ) -> None:
        """It is acknowledged although Redis does not come back, and so is the next one."""
        other = session_service.create(user_id).token
        redis_server.stop()
        ended = threading.Event()

        def sign_out() -> None:
            try:
                if session_service.invalidate(token) and session_service.invalidate(other):
                    ended.set()
            finally:
                connections.close_all()

        thread = threading.Thread(target=sign_out)
        thread.start()
        try:
            wait_for(ended.is_set, 30)
        finally:
            redis_server.start()
            thread.join()
        redis_server.wait_for_epoch()
        assert session_service.get(token) is None
        assert session_service.get(other) is None

    def test_redis_hangs(
        self, redis_server: RedisServer, token: str, configure: Any, asked_redis: list[float]
    ) -> None:
        """One read waits, and then one more for each BREAKER_SECONDS."""
        configure(REDIS_TIMEOUT=0.02, BREAKER_SECONDS=0.3)
        fill(token)
        redis_server.freeze()
        asked_redis.clear()
        try:
            before = time.monotonic()
            for _ in range(200):
                assert not cached(token)
            took = time.monotonic() - before
        finally:
            redis_server.thaw()
        assert 1 <= len(asked_redis) <= 1 + took / 0.3

    def test_a_late_answer_is_not_used(
        self, redis_server: RedisServer, token: str, user_id: str, configure: Any
    ) -> None:
        """It would be taken for the answer to the next command."""
        configure(REDIS_TIMEOUT=0.1)
        other = session_service.create(user_id, {"other": True}).token
        wait_for(lambda: cached(token) and cached(other))
        redis_server.freeze()
        assert not cached(token)
        redis_server.thaw()
        wait_for(lambda: cached(other))
        for _ in range(50):
            session = session_service.get(other, touch=False)
            assert session is not None
            assert session.data == {"other": True}

    def test_a_late_answer_shows_that_redis_is_alive(
        self,
        redis_server: RedisServer,
        token: str,
        configure: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Redis is used again as soon as it has come, over the same connection."""
        configure(**LATE)
        fill(token)
        cache = session_cache()
        assert cache is not None

        def reader() -> int | None:
            """The connection that is read over; the worker's are among the others."""
            with suppress(redis.TimeoutError):
                return int(cache._channel.command("CLIENT", "ID"))
            return None

        mine = wait_for(reader)
        redis_server.freeze()
        for _ in range(5):
            assert not cached(token)
        assert cache.breaker.is_open
        redis_server.thaw()
        wait_for(lambda: cached(token), 30)
        assert not cache.breaker.is_open
        assert mine in clients(redis_server)
        assert caplog.text == ""

    def test_a_busy_redis_is_waited_for(
        self,
        redis_server: RedisServer,
        token: str,
        configure: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """After a late answer, and only then, for longer than the time limit."""
        monkeypatch.setattr(channel, "PATIENT_SECONDS", 3600.0)
        configure(**{**LATE, "REDIS_TIMEOUT": 0.5})
        fill(token)
        redis_server.freeze()
        assert not cached(token)
        redis_server.thaw()

        def waited_for() -> bool:
            wait_for(lambda: cached(token), 30)
            redis_server.freeze()
            thaw = threading.Timer(0.8, redis_server.thaw)
            thaw.start()
            try:
                return cached(token)
            finally:
                thaw.join()

        wait_for(waited_for, 60)

    def test_threads_that_are_late_at_once(
        self, redis_server: RedisServer, token: str, configure: Any
    ) -> None:
        configure(**LATE)
        fill(token)
        redis_server.freeze()
        late = threading.Barrier(8, timeout=60)
        found: list[bool] = []

        def read() -> None:
            try:
                late.wait()
                found.append(cached(token))
                late.wait()
                wait_for(lambda: cached(token), 30)
                found.extend(cached(token) for _ in range(20))
            finally:
                connections.close_all()

        threads = [threading.Thread(target=read) for _ in range(7)]
        for thread in threads:
            thread.start()
        late.wait()
        late.wait()
        redis_server.thaw()
        for thread in threads:
            thread.join()
        assert found[:7] == [False] * 7
        assert len(found) == 7 * 21

    def test_a_child_leaves_late_answers_to_its_parent(
        self, redis_server: RedisServer, token: str, configure: Any
    ) -> None:
        configure(**LATE)
        fill(token)
        cache = session_cache()
        assert cache is not None
        redis_server.freeze()
        assert not cached(token)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = int(cache._channel.collect() is not None or cache._channel.owes)
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        redis_server.thaw()
        wait_for(lambda: cached(token), 30)

    def test_a_connection_that_redis_has_closed(self, redis_server: RedisServer) -> None:
        """It is replaced before it is used: nobody notices."""
        cache = session_cache()
        assert cache is not None
        mine = cache._channel.command("CLIENT", "ID")
        redis_server.client.client_kill_filter(_id=mine)
        other = cache._channel.command("CLIENT", "ID")
        assert other != mine
        assert cache._channel.command("CLIENT", "ID") == other

    def test_a_child_has_connections_of_its_own(self, redis_server: RedisServer) -> None:
        cache = session_cache()
        assert cache is not None
        mine = cache._channel.command("CLIENT", "ID")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = int(cache._channel.command("CLIENT", "ID") == mine)
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert cache._channel.command("CLIENT", "ID") == mine

    def test_threads_share_connections(self, redis_server: RedisServer) -> None:
        """One at a time, each gets the answer to its own command, and none is left over."""
        cache = session_cache()
        assert cache is not None
        before = clients(redis_server)

        def ask(number: int) -> bool:
            assert cache is not None
            return bool(cache._channel.command("ECHO", number) == str(number).encode())

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(2000)))
        assert len(clients(redis_server) - before) <= 8

    def test_an_error_reply_is_a_miss(self, redis_server: RedisServer, token: str) -> None:
        key = key_of(token)
        redis_server.client.delete(key)
        redis_server.client.lpush(key, "not a string")
        for _ in range(5):
            assert session_service.get(token) is not None
        redis_server.client.delete(key)
        cache = session_cache()
        assert cache is not None
        assert not cache.breaker.is_open

    def test_garbage_is_a_miss(self, redis_server: RedisServer, token: str) -> None:
        epoch = wait_for(redis_server.epoch)
        assert epoch is not None
        for value in (b"", b"V", b"X" * 500, b"V" + epoch, b"V" + epoch + b"x" * 400):
            redis_server.client.set(key_of(token), value)
            assert session_service.get(token) is not None

    def test_flushed(self, redis_server: RedisServer, token: str) -> None:
        redis_server.client.flushall()
        assert session_service.get(token) is not None
        redis_server.wait_for_epoch()
        wait_for(lambda: cached(token))


@pytest.fixture
def acl(redis_server: RedisServer, configure: Any) -> Iterator[Callable[..., None]]:
    """Be a Redis user with the rights that the documentation gives readers, and changes of them."""

    def change(*rules: str, rights: str = documented_rights()) -> None:
        client = redis_server.client
        client.execute_command("ACL", "SETUSER", "webapp", "reset", *rights.split(), *rules)
        client.execute_command("ACL", "LOG", "RESET")
        client.script_flush()

    configure(REDIS_URL=f"unix://webapp:password@{redis_server.socket}")
    yield change
    redis_server.client.execute_command("ACL", "DELUSER", "webapp")


def reads_in_one_epoch(redis_server: RedisServer, user_id: str) -> list[bool]:
    """Whether each of the first three reads of a session was served by Redis.

    Redis counts its commands from the first of them on.
    """

    while True:
        token = session_service.create(user_id).token
        before = wait_for(redis_server.epoch)
        redis_server.client.config_resetstat()
        reads = [cached(token) for _ in range(3)]
        if redis_server.epoch() == before:
            return reads


class TestRights:
    @pytest.mark.parametrize("rights", [documented_rights(), documented_rights(6)])
    def test_those_that_are_documented_suffice(
        self,
        redis_server: RedisServer,
        acl: Any,
        user_id: str,
        rights: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        acl(rights=rights)
        assert reads_in_one_epoch(redis_server, user_id) == [False, True, True]
        # Redis has the scripts now, and they are sent by their digests.
        assert reads_in_one_epoch(redis_server, user_id) == [False, True, True]
        stats = redis_server.client.info("commandstats")
        assert stats["cmdstat_evalsha"]["calls"] == 2
        assert stats["cmdstat_evalsha"]["failed_calls"] == 0
        # What client libraries say of themselves when they connect needs no right to be answered.
        refused = [entry["object"] for entry in redis_server.client.acl_log()]
        assert [name for name in refused if not name.startswith("client")] == []
        assert caplog.text == ""

    def test_and_they_are_the_least(self, redis_server: RedisServer, acl: Any) -> None:
        acl()
        epoch = wait_for(lambda: redis_server.client.keys("session:epoch:*"))[0].decode()
        own = redis.Redis(
            unix_socket_path=redis_server.socket, db=1, username="webapp", password="password"
        )
        write = "return redis.call('SET', KEYS[1], 'x')"
        for command in (
            ("SET", epoch, "x"),
            ("EVAL", write, 1, epoch),
            ("SET", "other", "x"),
            ("GET", "other"),
            ("EVAL", write, 1, "other"),
            ("EVAL", "return redis.call('DEL', KEYS[1])", 1, epoch),
            ("DEL", epoch),
            ("KEYS", "*"),
            ("FLUSHDB",),
            ("PUBLISH", "channel", "x"),
        ):
            with pytest.raises(redis.ResponseError, match=r"permission|executing the script"):
                own.execute_command(*command)

    @pytest.mark.parametrize("rule", ["-mget", "-set", "-getrange", "clearselectors"])
    def test_missing_ones_are_told(
        self, acl: Any, user_id: str, rule: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        acl(rule)
        token = session_service.create(user_id).token

        def refusals() -> list[logging.LogRecord]:
            return [r for r in caplog.records if "Redis refuses the command" in r.getMessage()]

        # Without an epoch nothing is asked that is refused.
        wait_for(lambda: not cached(token) and refusals())
        for _ in range(10):
            assert not cached(token)
        cache = session_cache()
        assert cache is not None
        assert not cache.breaker.is_open
        (record,) = refusals()
        assert record.levelname == "WARNING"
        assert "permission" in record.getMessage() or "executing the script" in record.getMessage()
        assert "password" not in record.getMessage()

    def test_the_check_finds_them(self, acl: Any, configure: Any) -> None:
        from .test_checks import servers

        acl()
        wait_for(lambda: servers() == set())
        for rule in ("-mget", "-get", "-set", "-getrange", "-time", "clearselectors"):
            acl(rule)
            assert servers() == {"W019"}, rule
        for seconds, *rules in ((1.9, "-select"), (1.8, ">another", "<password")):
            acl(*rules)
            configure(REDIS_TIMEOUT=seconds)  # other settings, another connection
            assert servers() == {"W019"}, rules


def test_the_check_finds_another_redis_database(redis_server: RedisServer, configure: Any) -> None:
    from .test_checks import servers

    wait_for(lambda: servers() == set())
    configure(REDIS_DB=2)
    assert servers() == {"W019"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When PostgreSQL was asked for the settings of the cache."""
    times: list[float] = []
    ask = cache_module._fetch_installation

    def counted() -> Any:
        cache = session_cache()
        assert cache is not None
        assert cache._fetched_at is not None
        times.append(cache._fetched_at)
        return ask()

    monkeypatch.setattr(cache_module, "_fetch_installation", counted)
    return times


def gaps(times: list[float]) -> list[float]:
    return [later - sooner for sooner, later in itertools.pairwise(times)]


class Reads:
    """Reads of a session, and when each began of those in doubt whether there is a cache."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.times: list[float] = []

    def __call__(self) -> bool:
        cache = session_cache()
        assert cache is not None
        if cache._doubtful:
            self.times.append(time.monotonic())
        return cached(self._token)

    def late(self, last: float, asked: float) -> int:
        """How many reads it took, once the settings were due again, until they were asked for."""
        return len([moment for moment in self.times if last + 5 <= moment <= asked])


class TestSettingsAreAskedAgain:
    """Every 5 s while there is a doubt, and every 60 s otherwise."""

    def test_switched_off_and_on(
        self, redis_server: RedisServer, superuser: Any, user_id: str, asked: list[float]
    ) -> None:
        def switch(value: str) -> None:
            superuser.execute(value)
            superuser.execute("SELECT pg_reload_conf()")

        token = session_service.create(user_id).token
        fill(token)
        read = Reads(token)
        try:
            switch("ALTER SYSTEM SET session_manager.redis_mode = off")
            # The epoch of a cache in use may end, too, and another one begins.
            info = "SELECT value FROM session_info() WHERE key = 'cache'"
            wait_for(lambda: superuser.execute(info).fetchone()[0] == "off")
            wait_for(lambda: redis_server.epoch() is None)
            before = time.monotonic()
            wait_for(lambda: read() or (asked and asked[-1] > before), 30)
            assert not read()
            switch("ALTER SYSTEM RESET session_manager.redis_mode")
            redis_server.wait_for_epoch()
            wait_for(read, 30)
        finally:
            switch("ALTER SYSTEM RESET session_manager.redis_mode")
            redis_server.wait_for_epoch()
        assert min(gaps(asked)) >= 5
        assert all(read.late(*pair) <= 1 for pair in itertools.pairwise(asked))

    def test_a_failed_question(
        self, redis_server: RedisServer, user_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is known stays good: an epoch that has ended never comes back."""
        token = session_service.create(user_id).token
        fill(token)
        cache = session_cache()
        assert cache is not None
        monkeypatch.setattr(cache_module, "_fetch_installation", fail)
        cache._fetched_at = None
        wait_for(lambda: cached(token))
        monkeypatch.undo()

    def test_a_failed_first_question(
        self,
        redis_server: RedisServer,
        user_id: str,
        monkeypatch: pytest.MonkeyPatch,
        asked: list[float],
    ) -> None:
        token = session_service.create(user_id).token
        with monkeypatch.context() as failing:
            failing.setattr(cache_module, "_fetch_installation", fail)
            assert not cached(token)
        cache = session_cache()
        assert cache is not None
        failed_at = cache._fetched_at
        assert failed_at is not None
        read = Reads(token)
        wait_for(read, 30)
        # Without an epoch they are asked for once more.
        assert asked[0] - failed_at >= 5
        assert read.late(failed_at, asked[0]) <= 1

    def test_not_while_all_is_well(
        self, redis_server: RedisServer, token: str, asked: list[float]
    ) -> None:
        def is_well() -> bool:
            asked.clear()
            end = time.monotonic() + 6
            while time.monotonic() < end:
                if not cached(token):
                    return False
                time.sleep(0.05)
            return True

        # (the epoch ends where the worker does not get to run)
        wait_for(is_well, 60)
        assert asked == []


def fail() -> Any:
    raise StoreUnavailable("no answer")


def test_off_on_the_server(user_id: str, configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(REDIS_URL="unix:///nonexistent", CACHE_KEY="00" * 32)
    monkeypatch.setattr(cache_module, "_fetch_installation", lambda: None)
    token = session_service.create(user_id).token
    assert session_service.get(token) is not None
    assert cache_module.session_cache() is not None
    assert not cache_module.session_cache().breaker.is_open  # type: ignore[union-attr]


def test_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("session_manager.store.breaker.time.monotonic", lambda: now)
    breaker = Breaker(3, 1)
    for _ in range(2):
        breaker.failed()
    assert breaker.allows()
    breaker.succeeded()
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    assert breaker.is_open
    assert not breaker.allows()
    now += 1
    assert [breaker.allows() for _ in range(5)] == [True, False, False, False, False]
    now += 1
    assert breaker.allows()
    breaker.succeeded()
    assert [breaker.allows() for _ in range(3)] == [True] * 3
    breaker.open()
    assert not breaker.allows()
    now += 1
    assert [breaker.allows() for _ in range(2)] == [True, False]
    breaker.succeeded()
    assert not breaker.is_open


def test_nothing_is_stored_under_the_epoch_of_another_server(
    redis_server: RedisServer, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a failover, or an old map of shards, leads to another than the settings are of."""
    cache = session_cache()
    assert cache is not None
    own = wait_for(cache.installation)
    other = cache_module._Installation(str(uuid.uuid4()), own.max_age)
    redis_server.client.set(other.epoch_key, "0" * 32, px=60_000)
    redis_server.client.delete(key_of(token))
    cache._installation = other
    cache._fetched_at = time.monotonic()
    for _ in range(5):
        assert not cached(token)
        assert redis_server.client.get(key_of(token))[:1] in (b"L", b"T")
    # It asks again in some seconds, and goes by the server that answers.
    assert cache.installation() == other
    monkeypatch.setattr(cache_module, "DOUBT_SECONDS", 0.0)
    redis_server.client.delete(key_of(token))
    wait_for(lambda: not cached(token) and cache.installation() == own)
    fill(token)
