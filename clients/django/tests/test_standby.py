"""Reads from a streaming standby: what is asked of it, what is believed, and what ends well.

On a pair of servers of its own.  ``elsewhere`` is another worker process as far as this package can
tell: it does not know what the test has just written.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test.utils import CaptureQueriesContext

from session_manager import standby_checks
from session_manager.backends.sessions import SessionStore
from session_manager.checks import check_servers, check_settings
from session_manager.conf import load_settings, settings
from session_manager.exceptions import StoreUnavailable
from session_manager.middleware import RequestSessionMiddleware
from session_manager.services import session_service
from session_manager.store import standby as reads
from session_manager.testing.in_memory import memory

from .apart import remove_alias
from .conftest import Browser, RedisServer, wait_for
from .pages import ROOT, run, samples
from .pair import Pair, Server

T = TypeVar("T")

CURRENT = "/api/sessions/current/"
#: Seconds that a standby may be behind here.
LAG = 0.6
TIMEOUT = 0.5
#: Seconds by which this machine may be late.
SLACK = 1.0


@pytest.fixture(scope="module")
def pair(django_db_blocker: Any) -> Iterator[Pair]:
    # Nothing of this is the test database's.
    with django_db_blocker.unblock():
        pair = Pair()
        try:
            yield pair
        finally:
            pair.end()


def add_alias(alias: str, server: Server, **options: Any) -> None:
    connections.settings[alias] = {
        **connections["default"].settings_dict,
        "HOST": str(server.directory),
        "NAME": "app",
        "OPTIONS": {"connect_timeout": 2, **options},
        "CONN_MAX_AGE": None,
    }


@pytest.fixture
def aliases(pair: Pair, configure: Callable[..., None]) -> Iterator[Pair]:
    """``main`` and its standby ``copy``, with settings that make the tests short."""
    add_alias("main", pair.primary)
    add_alias("copy", pair.standby)
    configure(
        DATABASE="main",
        READ_DATABASE="copy",
        READ_MAX_LAG=LAG,
        READ_TIMEOUT=TIMEOUT,
        BREAKER_SECONDS=0.2,
    )
    pair.catch_up()
    try:
        yield pair
    finally:
        configure(DATABASE="default", READ_DATABASE=None)
        # What waits for the standby to come back ends with its settings.
        reads.standby_of_user("default", "")
        wait_for(lambda: not any(t.name == "session_manager copy" for t in threading.enumerate()))
        for alias in ("main", "copy"):
            remove_alias(alias)


def elsewhere(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return Context().run(function, *args, **kwargs)


def get(token: str, **kwargs: Any) -> Any:
    return elsewhere(session_service.get, token, **kwargs)


@contextmanager
def counting(*, primary: int, standby: int) -> Iterator[None]:
    """What the block asks, apart from how far the servers are."""
    with (
        CaptureQueriesContext(connections["main"]) as main,
        CaptureQueriesContext(connections["copy"]) as copy,
    ):
        yield
    asked = [
        sum("_lsn()" not in query["sql"] for query in queries.captured_queries)
        for queries in (main, copy)
    ]
    assert asked == [primary, standby]


def age(*tokens: str) -> None:
    """Let sessions be as old as a standby's must be, and the standby be known to have them."""
    time.sleep(LAG)
    wait_for(lambda: all(_is_read_from_standby(token) for token in tokens))


def _is_read_from_standby(token: str) -> bool:
    with CaptureQueriesContext(connections["main"]) as main:
        get(token, touch=False)
    return not any("session_get" in query["sql"] for query in main.captured_queries)


@pytest.fixture
def token(aliases: Pair, user_id: str) -> str:
    """Of a session that is read from the standby."""
    token = session_service.create(user_id, {"cart": [1]}).token
    age(token)
    return token


# What is asked.


def test_a_read(token: str, user_id: str) -> None:
    with counting(primary=0, standby=1):
        session = get(token)
    assert (session.user_id, session.data) == (user_id, {"cart": [1]})


def test_a_fresh_read(token: str) -> None:
    with counting(primary=1, standby=0):
        assert get(token, fresh=True)


def test_asynchronously(token: str) -> None:
    async def read() -> Any:
        return await session_service.aget(token), await session_service.alist("nobody")

    session, listed = async_to_sync(read)()
    assert session is not None
    assert listed == []


def test_after_a_login(aliases: Pair, user_id: str) -> None:
    created = session_service.create(user_id)
    with counting(primary=1, standby=0):
        assert get(created.token)


def test_after_a_write(token: str, user_id: str) -> None:
    def write() -> Any:
        session_service.update(token, {"a": 1})
        return session_service.get(token), session_service.list(user_id)

    with counting(primary=3, standby=0):
        session, listed = elsewhere(write)
    assert session.data["a"] == 1
    assert len(listed) == 1


def test_in_a_transaction(token: str) -> None:
    with transaction.atomic(using="main"):
        with counting(primary=0, standby=1):
            assert get(token)
        session_service.update(token, {"a": 1})
        # Whatever the request's other threads know: this transaction has changed it.
        with counting(primary=1, standby=0):
            assert get(token).data["a"] == 1
        transaction.set_rollback(True, using="main")


def test_in_a_transaction_of_the_standby(token: str) -> None:
    with transaction.atomic(using="copy"), counting(primary=1, standby=0):
        assert get(token)


def test_a_list(token: str, user_id: str) -> None:
    with counting(primary=0, standby=1):
        (listed,) = elsewhere(session_service.list, user_id, current_token=token)
    assert listed.is_current
    with counting(primary=0, standby=1):
        assert len(elsewhere(session_service.list, user_id)) == 1
    with counting(primary=1, standby=1):
        assert elsewhere(session_service.list, "nobody") == []
    with counting(primary=1, standby=0):
        assert elsewhere(session_service.list, user_id, fresh=True)


def test_what_the_primary_alone_answers(token: str, user_id: str) -> None:
    session = get(token)
    with counting(primary=6, standby=0):
        assert elsewhere(session_service.get_id, session.id, user_id)
        assert elsewhere(session_service.end_reason, token) is None
        assert elsewhere(session_service.history, user_id=user_id)
        assert elsewhere(session_service.count_active, user_id=user_id) == 1
        assert elsewhere(session_service.estimate_active) >= 0
        assert elsewhere(session_service.assertion, token, "elsewhere")


def test_several_standbys(token: str, configure: Callable[..., None], aliases: Pair) -> None:
    """A session is read from one of them; from another one where that is down."""
    add_alias("other", aliases.standby)
    try:
        configure(READ_DATABASE=["copy", "other"])
        tokens = [session_service.create(f"{i}").token for i in range(16)]
        age(*tokens)
        asked = {alias: set[str]() for alias in ("copy", "other")}
        for _ in range(2):
            for one in tokens:
                for alias, found in asked.items():
                    with CaptureQueriesContext(connections[alias]) as queries:
                        assert get(one)
                    if any("session_get" in query["sql"] for query in queries.captured_queries):
                        found.add(one)
        assert asked["copy"] | asked["other"] == set(tokens)
        assert not asked["copy"] & asked["other"]
        assert all(asked.values())
    finally:
        remove_alias("other")


def test_a_standby_of_a_shard(token: str, user_id: str, configure: Callable[..., None]) -> None:
    configure(SHARDS=["main"], READ_DATABASE={"main": "copy"})
    # W074: nobody has told the server that it is a shard.
    assert found() == {"W074"}
    age(token)
    with counting(primary=0, standby=1):
        assert get(token)
    with counting(primary=0, standby=1):
        assert elsewhere(session_service.list, user_id, current_token=token)


# What is believed.


def test_a_miss(token: str) -> None:
    forged = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    with counting(primary=1, standby=1):
        assert get(forged) is None


def test_an_ended_session_keeps_its_verdict(token: str, aliases: Pair) -> None:
    elsewhere(session_service.invalidate, token)
    aliases.catch_up()
    with counting(primary=1, standby=1):
        assert get(token) is None


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_logins_read_at_once(aliases: Pair, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """By a worker whose clock is ahead, so that it takes no session for a young one."""
    age(session_service.create("somebody").token)
    now = time.time
    monkeypatch.setattr(reads.time, "time", lambda: now() + 3600)
    with CaptureQueriesContext(connections["copy"]) as copy:
        found = [get(session_service.create(f"{i}").token) for i in range(count)]
    assert None not in found
    asked = [query for query in copy.captured_queries if "session_get" in query["sql"]]
    assert len(asked) > 0.9 * count


def test_rotations_read_at_once(token: str) -> None:
    for _ in range(100):
        rotated = elsewhere(session_service.refresh, token, rotate=True)
        assert rotated.token is not None
        token = rotated.token
        assert get(token) is not None


def test_the_first_use_of_a_new_token_is_recorded(token: str, aliases: Pair) -> None:
    """Or the old token would work on, and its replay look like a lost answer."""
    aliases.primary.set(session_manager__rotation_grace="0")
    try:
        rotated = elsewhere(session_service.refresh, token, rotate=True)
        aliases.catch_up()
        with counting(primary=1, standby=1):
            assert get(rotated.token)
        assert elsewhere(session_service.refresh, token, rotate=True).status == "reused"
    finally:
        aliases.primary.set(session_manager__rotation_grace="30s")


def test_a_session_in_use_is_not_idle(aliases: Pair) -> None:
    """The standby tells that a use is to be recorded, and the primary records it."""
    idle_timeout = timedelta(minutes=10)
    used = session_service.create("used", idle_timeout=idle_timeout)
    unused = session_service.create("unused", idle_timeout=idle_timeout)

    def let_pass(minutes: int) -> None:
        aliases.primary.query(
            "UPDATE user_sessions SET last_seen_at = last_seen_at - %s"
            " WHERE session_id IN (%s, %s)",
            [timedelta(minutes=minutes), used.id, unused.id],
        )
        aliases.catch_up()
        wait_for(lambda: _is_read_from_standby(used.token))

    def is_recorded() -> bool:
        ((recorded,),) = aliases.primary.query(
            "SELECT last_seen_at >= created_at FROM user_sessions WHERE session_id = %s", [used.id]
        )
        return bool(recorded)

    time.sleep(LAG)
    let_pass(0)
    with counting(primary=0, standby=1):
        assert get(used.token)
    let_pass(6)
    with counting(primary=1, standby=1):
        assert get(used.token)
    wait_for(is_recorded)
    let_pass(6)
    assert get(used.token)
    assert get(unused.token) is None


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_remote_apply(aliases: Pair, count: int) -> None:
    """Nobody is served a session that has been revoked."""
    aliases.primary.set(
        synchronous_standby_names="standby", synchronous_commit="local",
        session_manager__revoke_commit="remote_apply",
    )  # fmt: skip
    connections["main"].close()
    try:
        tokens = [session_service.create(f"{i % 50}").token for i in range(count)]
        age(tokens[-1])
        with CaptureQueriesContext(connections["copy"]) as copy:
            for token in tokens:
                assert elsewhere(session_service.invalidate, token)
                assert get(token) is None
        asked = [query for query in copy.captured_queries if "session_get" in query["sql"]]
        assert len(asked) > 0.9 * count
    finally:
        aliases.primary.set(synchronous_standby_names="", session_manager__revoke_commit="local")


def test_a_standby_that_does_not_replay(
    aliases: Pair, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it has is believed no longer than READ_MAX_LAG, and no read waits."""
    with aliases.paused():
        began = time.monotonic()
        assert elsewhere(session_service.invalidate, token)
        longest = 0.0
        while time.monotonic() < began + LAG + SLACK:
            asked_at = time.monotonic()
            session = get(token)
            longest = max(longest, time.monotonic() - asked_at)
            assert session is None or asked_at < began + LAG
        assert longest < SLACK
        created = session_service.create("meanwhile")
        time.sleep(LAG)
        assert get(created.token)
        assert "is more than" in caplog.text
    age(created.token)


def test_a_revocation_that_no_standby_confirms(aliases: Pair, token: str) -> None:
    """When it gives up waiting, no reader believes the standby any more."""
    aliases.primary.set(
        synchronous_standby_names="standby", synchronous_commit="local",
        session_manager__revoke_commit="remote_apply",
        session_manager__revoke_commit_timeout="1s",
    )  # fmt: skip
    connections["main"].close()
    try:
        with aliases.paused():
            began = time.monotonic()
            assert elsewhere(session_service.invalidate, token)
            assert 1 <= time.monotonic() - began < 1 + SLACK
            assert get(token) is None
    finally:
        aliases.primary.set(synchronous_standby_names="", session_manager__revoke_commit="local")


# A standby that is not there.


def longest_read(token: str, seconds: float) -> float:
    """Of reads one after the other, all of which have to find the session."""
    longest = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        assert get(token) is not None
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.01)
    return longest


def test_a_stopped_standby(aliases: Pair, token: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "session_manager")
    aliases.standby.stop()
    try:
        assert longest_read(token, 1) < SLACK
        assert [message for message in caplog.messages if "does not answer" in message]
        assert len(caplog.messages) < 4
        # Nobody who waits tries it any more.
        assert get(token)
        assert connections["copy"].connection is None
    finally:
        aliases.standby.start()
    age(token)


@pytest.mark.parametrize("connected", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_frozen_standby(aliases: Pair, token: str, connected: bool) -> None:
    if not connected:
        connections["copy"].close()
    with aliases.standby.frozen():
        # libpq waits for a connection for at least 2 s.
        assert longest_read(token, 1 if connected else 3) < (TIMEOUT if connected else 2) + SLACK
        # Now nobody who reads tries it.
        assert longest_read(token, 1) < SLACK
        assert connections["copy"].connection is None
    age(token)


def test_a_primary_that_is_down(aliases: Pair, token: str) -> None:
    """Sessions are read on; what needs the primary is no verdict."""
    aliases.primary.stop()
    try:
        assert get(token)
        with pytest.raises(StoreUnavailable):
            elsewhere(session_service.update, token, {})
        with pytest.raises(StoreUnavailable):
            get(token[:-2] + "AA")
        time.sleep(LAG)
        assert get(token)
    finally:
        aliases.primary.start()
    wait_for(lambda: elsewhere(session_service.update, token, {"a": 2}))


def test_a_conflict_with_replay_is_the_primarys_read(aliases: Pair, token: str) -> None:
    """A lock that is replayed ends reads there; the standby is not taken to be down."""
    aliases.standby.set(max_standby_streaming_delay="50ms")
    try:
        aliases.primary.query("BEGIN; LOCK user_sessions IN ACCESS EXCLUSIVE MODE; COMMIT")
        for _ in range(20):
            assert get(token)
    finally:
        aliases.standby.query("ALTER SYSTEM RESET max_standby_streaming_delay")


# Requests.


def test_requests(token: str, aliases: Pair) -> None:
    browser = Browser().give(token)
    with counting(primary=0, standby=1):
        assert elsewhere(browser.get, CURRENT).status_code == 200
    # What may change something: the primary says who asks.
    with counting(primary=2, standby=0):
        response = elsewhere(browser.unsafe, "PATCH", CURRENT, {"client": {"a": 1}})
    assert response.status_code == 200
    # The new request does not know; the thread does not keep what it knew.
    aliases.catch_up()
    with counting(primary=0, standby=1):
        assert browser.get(CURRENT).json()["session"]["data"]["client"] == {"a": 1}


def test_an_ended_session_changes_nothing(token: str, aliases: Pair, user_id: str) -> None:
    browser = Browser().give(token)
    other = session_service.create(user_id)
    with aliases.paused():
        elsewhere(session_service.invalidate, token)
        response = elsewhere(browser.unsafe, "DELETE", f"/api/sessions/{other.id}/")
        assert response.status_code == 401
    assert get(other.token)


def test_with_nothing_lost_the_cookie_stays(aliases: Pair) -> None:
    """Signed in, and read by another worker at once."""
    for i in range(50):
        browser = Browser().give(session_service.create(f"{i}").token)
        response = elsewhere(browser.get, CURRENT)
        assert response.status_code == 200
        assert settings.cookie_name not in response.cookies


def test_request_session(aliases: Pair, settings: Any, rf: Any) -> None:
    """SESSION_ENGINE: what a GET reads, and what it writes on the primary."""
    settings.SESSION_ENGINE = "session_manager.backends.sessions"
    settings.SESSION_COOKIE_SECURE = False
    store = SessionStore()
    store["seen"] = 1
    elsewhere(store.save)
    assert store.session_key is not None
    age(store.session_key)

    def request(method: str) -> HttpRequest:
        request: HttpRequest = getattr(rf, method)("/")
        request.COOKIES[django_settings.SESSION_COOKIE_NAME] = store.session_key or ""
        RequestSessionMiddleware(lambda request: HttpResponse()).process_request(request)
        return request

    def count(request: HttpRequest) -> int:
        request.session["seen"] += 1
        request.session.save()
        return int(request.session["seen"])

    with counting(primary=0, standby=1):
        assert elsewhere(lambda: request("get").session["seen"]) == 1
    with counting(primary=1, standby=1):
        assert elsewhere(lambda: count(request("get"))) == 2
    # Read and written on the primary: no count is lost, however far the standby is behind.
    with aliases.paused():
        with counting(primary=6, standby=0):
            for expected in (3, 4, 5):
                assert elsewhere(lambda: count(request("post"))) == expected
        assert not elsewhere(SessionStore().exists, "x")


# The cache in Redis.


@pytest.fixture
def cached(
    aliases: Pair, configure: Callable[..., None], tmp_path_factory: Any
) -> Iterator[RedisServer]:
    server = RedisServer(str(aliases.directory / "redis"))
    server.start()
    aliases.primary.set(session_manager__redis_mode="strict")
    configure(
        REDIS_URL=f"unix://{server.socket}", CACHE_KEY=secrets.token_hex(32), REDIS_TIMEOUT=2.0
    )
    try:
        server.wait_for_epoch()
        yield server
    finally:
        configure(REDIS_URL=None)
        aliases.primary.set(session_manager__redis_mode="off")
        server.stop()


def test_what_redis_does_not_have_is_the_primarys(
    cached: RedisServer, aliases: Pair, user_id: str
) -> None:
    """What a standby says cannot be cached, and after a tombstone it may be wrong."""
    token = session_service.create(user_id).token
    time.sleep(LAG)
    # Nobody else's settings are asked for meanwhile.
    wait_for(lambda: get(token).cached)
    with counting(primary=0, standby=0):
        assert get(token).cached
    with aliases.paused():
        elsewhere(session_service.invalidate, token)
        with counting(primary=1, standby=0):
            assert get(token) is None


def test_a_redis_that_is_down_leaves_reads_to_the_standby(
    cached: RedisServer, aliases: Pair, token: str
) -> None:
    cached.stop()
    # It takes some failures until the cache is left alone.
    for _ in range(10):
        assert get(token)
    with counting(primary=0, standby=1):
        assert get(token)
    cached.start()


# Settings.


def test_the_stand_in_has_no_standby(
    aliases: Pair, configure: Callable[..., None], user_id: str
) -> None:
    configure(IN_MEMORY={})
    try:
        token = session_service.create(user_id).token
        with counting(primary=0, standby=0):
            assert get(token)
            assert elsewhere(session_service.list, user_id)
    finally:
        memory.flush()


@pytest.mark.parametrize(
    "wrong",
    [
        {"READ_DATABASE": 7},
        {"READ_DATABASE": ["copy", 7]},
        {"READ_DATABASE": {"main": "copy"}},
        {"READ_MAX_LAG": 0},
        {"READ_TIMEOUT": -1},
    ],
)
def test_wrong_settings(configure: Callable[..., None], wrong: dict[str, Any]) -> None:
    configure(**wrong)
    with pytest.raises(ImproperlyConfigured, match=next(iter(wrong))):
        load_settings()


def found() -> set[str]:
    messages = [*check_settings(None), *check_servers(None, databases=["main"])]
    assert all(message.hint for message in messages)
    return {str(message.id).removeprefix("session_manager.") for message in messages}


def test_checks(aliases: Pair, configure: Callable[..., None]) -> None:
    assert found() == set()
    configure(READ_DATABASE="nowhere")
    assert found() == {"E011"}
    configure(READ_DATABASE="main")
    assert "E080" in found()
    add_alias("other", aliases.standby)
    connections.settings["other"] |= {"NAME": "postgres", "OPTIONS": {}}
    configure(READ_DATABASE="other")
    assert found() == {"W082", "E083"}
    remove_alias("other")
    configure(READ_DATABASE="copy", DATABASE="main")
    config = connections["copy"].settings_dict
    config["ATOMIC_REQUESTS"] = True
    assert found() == {"E081"}
    config["ATOMIC_REQUESTS"] = False
    config["HOST"] += ",elsewhere"
    assert [message.id for message in check_settings(None)] == ["session_manager.E085"]
    config["HOST"] = str(aliases.standby.directory)
    config["OPTIONS"] = {"connect_timeout": 2, "pool": True}
    assert [message.id for message in check_settings(None)] == ["session_manager.W082"]
    config["OPTIONS"] = {"connect_timeout": 2}
    aliases.standby.stop()
    try:
        connections["copy"].close()
        assert found() == {"W012"}
    finally:
        aliases.standby.start()


def test_check_of_servers_that_have_changed_places(
    aliases: Pair, configure: Callable[..., None]
) -> None:
    configure(DATABASE="copy", READ_DATABASE="main")
    messages = list(standby_checks.server_problems("copy"))
    assert [message.id for message in messages] == ["session_manager.E084"]


def test_the_sample(aliases: Pair, configure: Callable[..., None], user_id: str) -> None:
    """That of docs/django.md, with the hosts of this test."""
    (text,) = samples("Reading from standbys")
    hosts = {"db1.example.com": aliases.primary, "db2.example.com": aliases.standby}
    for host, server in hosts.items():
        text = text.replace(host, str(server.directory))
    sample = run(text)
    assert list(sample["DATABASES"]) == ["default", "standby"]
    for alias, name in (("default", "main"), ("standby", "copy")):
        given = sample["DATABASES"][alias]
        connections[name].close()
        del connections[name]
        test = connections.settings[name]["TEST"]
        connections.settings[name] |= {**given, "NAME": "app", "TEST": test}
    # What is not in the sample: other names for the aliases, and a short test.
    assert sample["SESSION_MANAGER"] == {"READ_DATABASE": "standby"}
    assert found() == set()
    token = session_service.create(user_id).token
    age(token)
    with counting(primary=0, standby=1):
        assert get(token)


# Failover.


@pytest.mark.long
def test_failover(configure: Callable[..., None], aliases: Pair) -> None:
    """The primary is killed and the standby promoted; DATABASES has both hosts.

    What the primary has acknowledged and the standby not received is lost, and what a revocation
    has ended is live again, until all sessions are ended.
    """
    pair = Pair()
    try:
        add_alias("main", pair.primary, target_session_attrs="read-write")
        add_alias("copy", pair.standby)
        for alias in ("main", "copy"):
            connections[alias].close()
            del connections[alias]
        hosts = [pair.primary.directory, pair.standby.directory]
        connections.settings["main"] |= {"HOST": ",".join(map(str, hosts)), "PORT": "5432,5432"}
        kept, revoked = (session_service.create(f"{i}").token for i in range(2))
        age(kept, revoked)
        # The standby receives nothing any more.
        pair.standby.set(primary_conninfo="host=/nowhere")
        wait_for(lambda: pair.primary.query("SELECT FROM pg_stat_replication") == [])
        assert session_service.invalidate(revoked)
        late = session_service.create("late").token
        pair.primary.kill()
        # Reads go on, and what cannot be told is no verdict.
        assert get(kept)
        with pytest.raises(StoreUnavailable):
            get(late)
        pair.standby.control("promote")
        assert found() <= {"W012"}
        assert elsewhere(session_service.update, kept, {"after": "failover"})
        assert get(kept).data == {"after": "failover"}
        assert get(late) is None
        assert get(revoked), "the revocation is lost"
        # What docs/deployment.md says to do then.
        (end,) = re.findall(
            r"`(SELECT session_invalidate_everything\(.*?\);)`",
            (ROOT / "docs" / "deployment.md").read_text(),
        )
        pair.standby.query(end)
        assert get(revoked) is None
        # The former primary comes back as it was: nobody believes it.
        pair.primary.start()
        configure(DATABASE="copy", READ_DATABASE="main")
        connections.settings["main"] |= {"HOST": str(pair.primary.directory), "PORT": "5432"}
        connections["main"].close()
        del connections["main"]
        assert get(revoked) is None
        assert [m.id for m in standby_checks.server_problems("copy")] == ["session_manager.E084"]
        assert get(kept) is None
        assert get(session_service.create("new").token)
    finally:
        pair.end()
