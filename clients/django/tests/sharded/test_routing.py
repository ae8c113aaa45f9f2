"""Sessions on four servers: where a call goes, and what happens where the map is wrong."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import Client, RequestFactory

from session_manager import administration, shards
from session_manager.conf import settings
from session_manager.exceptions import (
    InvalidArgument,
    LimitReached,
    ShardUnknown,
    WrongShard,
)
from session_manager.login import log_in
from session_manager.models import SessionEvent, UserSession
from session_manager.services import SessionService, session_service
from session_manager.store.shards import RETRY_SECONDS, bucket_of_id, bucket_of_user
from session_manager.types import LiveSession

from ..conftest import Browser
from ..pages import ROOT, _doc_blocks
from ..software_device import Key
from . import maps
from .conftest import SHARDS, Shard, user_on

pytestmark = pytest.mark.django_db(transaction=True)

IDS = ["", "a", "auth0|ada", "é", "日本語", "x" * 512, *(uuid.uuid4().hex for _ in range(200))]


def reference_bucket() -> Callable[[str], int]:
    """What docs/reference.md computes."""
    blocks = _doc_blocks().blocks(ROOT / "docs" / "reference.md", "Buckets")
    names: dict[str, Any] = {}
    for block in blocks:
        if block.language == "python":
            exec(block.text, names)
    return lambda user_id: names["siphash24"](b"session_bucketv1", user_id.encode()) & 0xFFFF


def test_the_bucket_is_the_extensions(servers: dict[str, Shard]) -> None:
    (found,) = servers["s1"].execute(
        "SELECT array_agg(session_bucket(id) ORDER BY n)"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS u (id, n)",
        [IDS],
    )
    reference = reference_bucket()
    assert [bucket_of_user(user_id) for user_id in IDS] == found[0]
    assert [reference(user_id) for user_id in IDS] == found[0]


def test_a_user_is_on_one_server(servers: dict[str, Shard]) -> None:
    for alias in SHARDS:
        user_id = user_on(alias)
        created = session_service.create(user_id)
        assert bucket_of_id(created.id) == bucket_of_user(user_id)
        assert {name: shard.count(user_id) for name, shard in servers.items()} == {
            name: int(name == alias) for name in SHARDS
        }


def test_what_the_package_says(servers: dict[str, Shard]) -> None:
    from session_manager.shards import alias_of_id, alias_of_token, alias_of_user

    for alias in SHARDS:
        created = session_service.create(user_on(alias))
        token = created.token
        assert alias_of_token(token) == alias_of_id(created.id) == alias_of_id(str(created.id))
        assert alias_of_id(created.id) == alias
    for wrong in (lambda: alias_of_token("sm1_short"), lambda: alias_of_id("x")):
        with pytest.raises(ValueError):
            wrong()
    assert alias_of_user(user_on("s3")) == "s3"


def test_any_length_and_repeats(configure: Callable[..., None]) -> None:
    user_ids = [uuid.uuid4().hex for _ in range(200)]
    expected = [shards.alias_of_user(user_id) for user_id in user_ids]
    configure(SHARDS=[alias for alias in SHARDS for _ in range(3)])
    assert [shards.alias_of_user(user_id) for user_id in user_ids] == expected
    configure(SHARDS=["s1", "s2", "s1"])
    found = [shards.alias_of_user(user_id) for user_id in user_ids]
    assert found == [["s1", "s2", "s1"][bucket_of_user(u) * 3 >> 16] for u in user_ids]
    assert shards.all_aliases() == ["s1", "s2"]


# Every method that is about a user or a session, on the wrong server.

KEY = Key()


def calls(user_id: str, created: Any) -> dict[str, Callable[[], Any]]:
    token, session_id = created.token, created.id
    s = session_service
    return {
        "create": lambda: s.create(user_id),
        "get": lambda: s.get(token),
        "get_id": lambda: s.get_id(session_id, user_id),
        "update": lambda: s.update(token, {"a": 1}),
        "update_user": lambda: s.update_user(user_id, {"a": 1}),
        "refresh": lambda: s.refresh(token, rotate=True),
        "elevate": lambda: s.elevate(token, {"amr": ["pwd"]}),
        "switch_tenant": lambda: s.switch_tenant(token, "globex"),
        "invalidate": lambda: s.invalidate(token),
        "invalidate_id": lambda: s.invalidate_id(session_id, user_id),
        "invalidate_all": lambda: s.invalidate_all(user_id),
        "end_reason": lambda: s.end_reason(token),
        "device_challenge": lambda: s.device_challenge(token),
        "device": lambda: s.device(token),
        "bind_device": lambda: s.bind_device(token, KEY.jwk, "sc1_" + "A" * 48),
        "prove_device": lambda: s.prove_device(token, "sc1_" + "A" * 48),
        "report_device": lambda: s.report_device(token, True, "unreachable"),
        "list": lambda: s.list(user_id),
        "history": lambda: s.history(session_id=session_id),
        "history of a user": lambda: s.history(user_id=user_id),
        "count_active": lambda: s.count_active(user_id=user_id),
        "bind": lambda: s.bind(token),
        "bind_id": lambda: s.bind_id(session_id, user_id),
        "assertion": lambda: s.assertion(token, "billing"),
        "assertion_id": lambda: s.assertion_id(session_id, user_id, "billing"),
    }


#: Methods that are about no user, or that any database answers.
OTHERS = {
    "activity",
    "audience",
    "bind_assertion",
    "critical_events",
    "estimate_active",
    "get_active_sessions_count",
}


def test_no_method_is_forgotten() -> None:
    public = {name for name in vars(SessionService) if not name.startswith("_")}
    methods = {name for name in public if not (name[0] == "a" and name[1:] in public)}
    of_users = {name.split()[0] for name in calls("", type("C", (), {"token": "", "id": ""}))}
    assert methods == of_users | OTHERS


def test_the_wrong_server_refuses_every_call(
    servers: dict[str, Shard], configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("session_manager.store.shards.RETRY_SECONDS", 0.0)
    user_id = user_on("s2")
    created = session_service.create(user_id)
    before = servers["s2"].execute("SELECT * FROM user_sessions WHERE user_id = %s", [user_id])
    configure(SHARDS=SHARDS[::-1])
    for name, call in calls(user_id, created).items():
        with pytest.raises(WrongShard, match="belongs to another server"):
            call()
            pytest.fail(name)
    browser = Browser().give(created.token)
    for method, path in (
        ("GET", "current/"),
        ("PATCH", "current/"),
        ("POST", "refresh/"),
        ("DELETE", "current/"),
        ("POST", "invalidate-all/"),
    ):
        response = browser.unsafe(method, f"/api/sessions/{path}", {"data": {"client": 1}})
        assert (response.status_code, response["Retry-After"]) == (503, "2")
        assert settings.cookie_name not in response.cookies
    configure(SHARDS=SHARDS)
    after = servers["s2"].execute("SELECT * FROM user_sessions WHERE user_id = %s", [user_id])
    assert after == before


def test_the_map_is_read_again(map_function: None, servers: dict[str, Shard]) -> None:
    user_id = user_on("s2")
    maps.change(["s1"], known=True)
    calls_before = maps.calls
    # A static list would be taken for right for five seconds.
    created = _after(0.3, lambda: maps.change(None), lambda: session_service.create(user_id))
    assert servers["s2"].count(user_id) == 1
    assert maps.calls > calls_before
    assert session_service.get(created.token) is not None


def test_the_map_is_read_again_by_a_login(map_function: None, servers: dict[str, Shard]) -> None:
    """Where no transaction is open that the older map would hold together."""
    user_id = user_on("s2")
    maps.change(["s1"], known=True)
    calls = maps.calls
    _after(0.3, lambda: maps.change(None), lambda: log_in(RequestFactory().post("/"), user_id))
    assert servers["s2"].count(user_id) == 1
    # Not again and again by the older one, until the time for that is over.
    assert maps.calls - calls < 20


def _after(seconds: float, change: Callable[[], None], call: Callable[[], Any]) -> Any:
    """What a call returns during which something changes."""
    timer = threading.Timer(seconds, change)
    timer.start()
    try:
        return call()
    finally:
        timer.join()


def test_a_function_that_fails_leaves_the_map(
    map_function: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    created = session_service.create(user_on("s4"))
    monkeypatch.setattr("session_manager.store.shards.MAP_SECONDS", 0.0)
    maps.change(["nowhere"])
    assert session_service.get(created.token) is not None
    assert "stays as it was" in caplog.text


def test_not_inside_a_transaction(map_function: None, servers: dict[str, Shard]) -> None:
    """What was done before would stay on the wrong server."""
    user_id = user_on("s2")
    maps.change(["s1"], known=True)
    began = time.monotonic()
    with pytest.raises(WrongShard), transaction.atomic(using="s1"):
        session_service.create(user_id)
    assert time.monotonic() - began < 1


def test_a_login_is_done_again_as_a_whole(map_function: None, servers: dict[str, Shard]) -> None:
    old, new = user_on("s2"), user_on("s3")
    presented = session_service.create(old)
    request = RequestFactory().post("/")
    request.COOKIES[settings.cookie_name] = presented.token
    # Neither is where this map says.
    maps.change(["s1", "s4", "s3", "s2"], known=True)
    created = _after(0.3, lambda: maps.change(None), lambda: log_in(request, new))
    assert session_service.get(presented.token) is None
    assert session_service.get(created.token) is not None
    assert (servers["s2"].count(old), servers["s3"].count(new)) == (0, 1)


def test_a_login_that_fails_leaves_the_older_session(
    servers: dict[str, Shard], database_setting: Callable[[str, str], None]
) -> None:
    database_setting("max_sessions_per_user", "1")
    database_setting("on_limit", "deny")
    old, new = user_on("s2"), user_on("s3")
    presented = session_service.create(old)
    session_service.create(new)
    request = RequestFactory().post("/")
    request.COOKIES[settings.cookie_name] = presented.token
    with pytest.raises(LimitReached) as caught:
        log_in(request, new)
    assert len(caught.value.sessions) == 1
    assert session_service.get(presented.token) is not None


def test_shares_and_map_change_while_requests_run(
    map_function: None, servers: dict[str, Shard]
) -> None:
    """A server gives up its share for a while, and the map gets finer: calls wait and succeed."""
    users = [user_on(alias) for alias in SHARDS for _ in range(3)]
    tokens = [session_service.create(user_id).token for user_id in users]
    problems: list[str] = []
    longest = [0.0]
    done = threading.Event()

    def run(seed: int) -> None:
        choose = random.Random(seed)
        try:
            while not done.is_set():
                began = called_at = time.monotonic()
                try:
                    if session_service.get(choose.choice(tokens)) is None:
                        problems.append("lost")
                    called_at = time.monotonic()
                    created = session_service.create(choose.choice(users))
                    called_at = time.monotonic()
                    if not session_service.invalidate(created.token):
                        problems.append("not ended")
                except WrongShard as error:
                    # On a busy machine the change may take longer than a call waits for it.
                    if time.monotonic() - called_at < RETRY_SECONDS:
                        problems.append(repr(error))
                except Exception as error:
                    problems.append(repr(error))
                longest[0] = max(longest[0], time.monotonic() - began)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    servers["s3"].give("1/4")
    maps.change([alias for alias in SHARDS for _ in range(2)])
    time.sleep(0.3)
    servers["s3"].give("3/4")
    time.sleep(0.5)
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert longest[0] > 0.2


# What the shards cannot do, and say.


def test_nobody_acts_across_shards(servers: dict[str, Shard]) -> None:
    actor = session_service.create(user_on("s1"))
    with pytest.raises(InvalidArgument, match="another shard"):
        session_service.create(user_on("s2"), actor_token=actor.token)
    same = session_service.create(user_on("s1"), actor_token=actor.token)
    assert session_service.get(same.token).actor is not None  # type: ignore[union-attr]


def test_what_is_another_shards_is_none_of_the_users(servers: dict[str, Shard]) -> None:
    ada, bob = session_service.create(user_on("s1")), session_service.create(user_on("s2"))
    owner = session_service.get(ada.token).user_id  # type: ignore[union-attr]
    (listed,) = session_service.list(owner, current_token=bob.token)
    assert not listed.is_current
    assert session_service.history(session_id=bob.id, user_id=owner) == []
    assert session_service.invalidate_all(owner, except_token=bob.token) == 1
    assert session_service.get(bob.token) is not None


def test_an_alias_by_name(servers: dict[str, Shard]) -> None:
    """Where ``using`` says so, and nowhere else."""
    created = session_service.create(user_on("s2"))
    with administration.using("s2"):
        assert session_service.get(created.token) is not None
    with administration.using("s1"), pytest.raises(WrongShard):
        session_service.get(created.token)
    for function in (administration.info, administration.list_keys, session_service.audience):
        with pytest.raises(ShardUnknown, match="each_shard"):
            function()


def test_models(servers: dict[str, Shard]) -> None:
    user_id, tenant = user_on("s4"), uuid.uuid4().hex
    created = session_service.create(user_id, tenant_id=tenant)
    assert UserSession.objects.get(pk=created.id).user_id == user_id
    assert UserSession.objects.for_user(user_id).active().count() == 1
    assert UserSession.objects.filter(tenant_id=tenant).filter(user_id=user_id).exists()
    assert UserSession.objects.filter(user_id__in=[user_id]).first() is not None
    assert SessionEvent.objects.for_session(created.id).count() == 1
    assert UserSession.objects.using("s4").filter(tenant_id=tenant).count() == 1
    counts = shards_count(tenant)
    assert counts == {"s1": 0, "s2": 0, "s3": 0, "s4": 1}
    for query in (
        UserSession.objects.all(),
        UserSession.objects.filter(tenant_id=tenant),
        UserSession.objects.exclude(user_id=user_id),
        UserSession.objects.filter(user_id__in=[user_id, user_on("s1")]),
        UserSession.objects.filter(user_id__startswith=user_id),
    ):
        with pytest.raises(ShardUnknown, match="neither a user nor a session"):
            query.count()
    assert UserSession.objects.for_user(user_id).revoke() == 1
    assert session_service.get(created.token) is None


def shards_count(tenant_id: str) -> dict[str, int]:
    return shards.each_shard(UserSession.objects.filter(tenant_id=tenant_id).all().count)


def test_an_id_for_work_beside_requests(servers: dict[str, Shard]) -> None:
    user_id = user_on("s3")
    created = session_service.create(user_id)
    found = session_service.get_id(created.id, user_id)
    assert isinstance(found, LiveSession)


def test_a_request(servers: dict[str, Shard]) -> None:
    for alias in SHARDS:
        user_id = user_on(alias)
        client = Client()
        client.cookies[settings.cookie_name] = session_service.create(user_id, {"n": 1}).token
        assert client.get("/info/").json() == {"exists": True, "user": user_id, "data": {"n": 1}}
