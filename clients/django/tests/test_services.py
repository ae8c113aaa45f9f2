"""SessionService against a real server, as the application's role."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from session_manager import exceptions, signals
from session_manager.services import session_service
from session_manager.store.tokens import digest_form
from session_manager.types import CreatedSession

from .conftest import Heard

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("backend")]


def near(moment: datetime | None, expected: timedelta) -> bool:
    assert moment is not None
    assert moment.utcoffset() == timedelta(0)
    return abs(moment - datetime.now(timezone.utc) - expected) < timedelta(seconds=30)


def test_a_session_s_life(user_id: str) -> None:
    created = session_service.create(
        user_id,
        {"plan": "free", "n": [1, None, "ü"]},
        ip="203.0.113.7",
        user_agent="Firefox",
        tenant_id="acme",
        auth={"amr": ["pwd"]},
    )
    assert near(created.expires_at, timedelta(days=1))
    assert near(created.absolute_expires_at, timedelta(days=7))

    session = session_service.get(created.token, ip="203.0.113.7")
    assert session is not None
    assert session.id == created.id
    assert (session.user_id, session.tenant_id) == (user_id, "acme")
    assert session.data == {"plan": "free", "n": [1, None, "ü"]}
    assert session.auth == {"amr": ["pwd"]}
    assert session.version == 1
    assert near(session.created_at, timedelta(0))

    updated = session_service.update(created.token, {"plan": None, "cart": {"a": 1}})
    assert updated is not None
    assert updated.version == 2
    assert updated.data == {"n": [1, None, "ü"], "cart": {"a": 1}}
    replaced = session_service.update(created.token, {"only": True}, replace=True)
    assert replaced is not None
    assert replaced.data == {"only": True}

    (listed,) = session_service.list(user_id, current_token=created.token)
    assert listed.is_current
    assert (listed.ip, listed.user_agent) == ("203.0.113.7", "Firefox")
    assert session_service.count_active(user_id=user_id) == 1
    # By its older name.
    assert session_service.get_active_sessions_count(user_id=user_id) == 1
    # exact, as the table is small
    assert session_service.estimate_active() == session_service.count_active()

    assert session_service.invalidate(created.token) is True
    assert session_service.invalidate(created.token) is False
    assert session_service.get(created.token) is None
    assert session_service.update(created.token, {}) is None
    events = [event.event for event in session_service.history(user_id=user_id)]
    assert events == ["invalidated", "updated", "updated", "created"]
    assert session_service.history(session_id=created.id)[0].detail == {"reason": "logout"}


@pytest.mark.django_db(transaction=True)
def test_times_are_right_without_use_tz(settings: Any, user_id: str) -> None:
    settings.USE_TZ = False
    connection.close()
    try:
        created = session_service.create(user_id)
        assert near(created.expires_at, timedelta(days=1))
        assert near(session_service.history(user_id=user_id)[0].at, timedelta(0))
    finally:
        settings.USE_TZ = True
        connection.close()


def test_ttl(user_id: str) -> None:
    created = session_service.create(user_id, ttl=timedelta(minutes=5))
    assert near(created.expires_at, timedelta(minutes=5))


def test_session_ttl_is_the_default(settings: Any, user_id: str) -> None:
    settings.SESSION_TTL = 600
    assert near(session_service.create(user_id).expires_at, timedelta(minutes=10))


@pytest.mark.parametrize("token", [None, "", "nonsense", "sm1_short"])
def test_what_is_no_token_asks_nobody(token: str | None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert session_service.get(token) is None
        assert session_service.update(token, {}) is None
        assert session_service.refresh(token).status == "ended"
        assert session_service.elevate(token, {}).status == "ended"
        assert session_service.invalidate(token) is False


def test_a_digest_form_is_no_token(created: CreatedSession) -> None:
    """Who reads a digest form in a log must not be able to use it as a cookie."""
    digest = digest_form(created.token)
    assert session_service.get(digest) is None
    assert session_service.invalidate(digest) is False
    assert session_service.get(created.token) is not None


@pytest.mark.server_only("it reads the statements")
def test_the_token_is_never_sent(created: CreatedSession, user_id: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        session_service.get(created.token)
        session_service.update(created.token, {"a": 1})
        session_service.list(user_id, current_token=created.token)
        session_service.invalidate_all(user_id, except_token=created.token)
        session_service.bind(created.token)
        refreshed = session_service.refresh(created.token, rotate=True)
        assert refreshed.token is not None
        elevated = session_service.elevate(refreshed.token, {"amr": ["otp"]})
        assert elevated.token is not None
        session_service.invalidate(elevated.token)
        session_service.get(elevated.token)
    sent = "\n".join(query["sql"] for query in queries)
    assert "sm1_" not in sent
    assert str(digest_form(created.token)) in sent


def test_nothing_shows_a_token_or_data(created: CreatedSession) -> None:
    session = session_service.get(created.token)
    refreshed = session_service.refresh(created.token, rotate=True)
    for value in (created, session, refreshed):
        assert "sm1_" not in repr(value)
        assert "cart" not in repr(value)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("heard", [signals.token_reused], indirect=True)
def test_refresh_and_replay(
    heard: Heard, created: CreatedSession, user_id: str, database_setting: Any
) -> None:
    assert session_service.refresh(created.token).status == "extended"
    rotated = session_service.refresh(created.token, rotate=True)
    assert rotated.status == "rotated"
    assert rotated.token not in (None, created.token)
    assert rotated.id == created.id
    again = session_service.refresh(created.token, rotate=True)
    assert (again.status, again.token) == ("already_rotated", None)
    assert again.live
    # The successor is used; then the grace ends.
    assert session_service.get(rotated.token) is not None
    database_setting("rotation_grace", "0")
    rotated_again = session_service.refresh(rotated.token, rotate=True)
    assert session_service.get(rotated_again.token) is not None
    assert heard == []
    replay = session_service.refresh(rotated.token, rotate=True, ip="198.51.100.1")
    assert (replay.status, replay.live) == ("reused", False)
    assert session_service.get(rotated_again.token) is None
    assert heard == [
        {
            "session_id": created.id,
            "user_id": user_id,
            "ip": "198.51.100.1",
            "user_agent": None,
        }
    ]


def test_elevate(created: CreatedSession) -> None:
    elevated = session_service.elevate(created.token, {"amr": ["pwd", "otp"]}, {"a": 1})
    assert elevated.status == "rotated"
    assert session_service.get(created.token) is None
    session = session_service.get(elevated.token)
    assert session is not None
    assert session.auth == {"amr": ["pwd", "otp"]}
    assert session.data == {"a": 1}


def test_invalidate_id_minds_the_user(created: CreatedSession, user_id: str) -> None:
    assert session_service.invalidate_id(created.id, "somebody else") is False
    assert session_service.invalidate_id(uuid.uuid4(), user_id) is False
    assert session_service.invalidate_id(str(created.id), user_id) is True


def test_invalidate_all(created: CreatedSession, user_id: str) -> None:
    other = session_service.create(user_id, tenant_id="other")
    third = session_service.create(user_id)
    assert session_service.invalidate_all(user_id, tenant_id="other") == 1
    assert session_service.get(other.token) is None
    assert session_service.invalidate_all(user_id, except_token=created.token) == 1
    assert session_service.get(third.token) is None
    assert session_service.get(created.token) is not None
    assert session_service.invalidate_all(user_id) == 1


def test_update_user(created: CreatedSession, user_id: str) -> None:
    session_service.create(user_id, {"plan": "free"})
    assert session_service.update_user(user_id, {"plan": "team"}) == 2
    session = session_service.get(created.token)
    assert session is not None
    assert session.data == {"cart": [1], "plan": "team"}


def test_list_pages(user_id: str) -> None:
    ids = [session_service.create(user_id).id for _ in range(5)]
    first = session_service.list(user_id, max_rows=2)
    second = session_service.list(user_id, max_rows=3, after=first[-1].id)
    assert [session.id for session in (*first, *second)] == sorted(ids, reverse=True)


def test_version_conflict_leaves_the_transaction_usable(created: CreatedSession) -> None:
    with transaction.atomic():
        with pytest.raises(exceptions.VersionConflict):
            session_service.update(created.token, {"a": 1}, expected_version=7)
        updated = session_service.update(created.token, {"a": 1}, expected_version=1)
        assert updated is not None
        assert updated.version == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"user_id": ""}, exceptions.InvalidArgument),
        ({"user_id": "a\0b"}, exceptions.InvalidArgument),
        ({"user_id": "a\ud800"}, exceptions.InvalidArgument),
        ({"user_id": "x" * 513}, exceptions.InvalidArgument),
        ({"data": {"a": "\0"}}, exceptions.InvalidArgument),
        ({"data": {"a": "\ud800"}}, exceptions.InvalidArgument),
        ({"data": {"a": float("nan")}}, exceptions.InvalidArgument),
        ({"data": {"a": object()}}, exceptions.InvalidArgument),
        ({"data": [1]}, exceptions.InvalidArgument),
        ({"data": {"a": "x" * 70000}}, exceptions.TooLarge),
        ({"ip": "nonsense"}, exceptions.InvalidArgument),
        ({"ttl": timedelta(days=400)}, exceptions.InvalidArgument),
    ],
)
def test_refused_arguments(user_id: str, arguments: dict[str, Any], error: type) -> None:
    with transaction.atomic():
        with pytest.raises(error):
            session_service.create(**{"user_id": user_id, **arguments})
        assert session_service.get_active_sessions_count(user_id=user_id) == 0


def test_a_strange_user_agent_is_stored(user_id: str) -> None:
    session_service.create(user_id, user_agent="a\0b\ud800" + "x" * 1000)
    (listed,) = session_service.list(user_id)
    assert listed.user_agent is not None
    assert listed.user_agent.startswith("ab?x")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("heard", [signals.session_created], indirect=True)
def test_session_created(heard: Heard, user_id: str) -> None:
    with transaction.atomic():
        session_service.create(user_id)
        transaction.set_rollback(True)
    assert heard == []
    with transaction.atomic():
        created = session_service.create(user_id, ip="203.0.113.7", user_agent="x")
        assert heard == []
    assert heard == [
        {
            "session_id": created.id,
            "user_id": user_id,
            "tenant_id": None,
            "ip": "203.0.113.7",
            "user_agent": "x",
        }
    ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("heard", [signals.session_invalidated], indirect=True)
def test_session_invalidated(heard: Heard, user_id: str) -> None:
    tokens = [session_service.create(user_id) for _ in range(4)]
    session_service.invalidate(tokens[0].token)
    session_service.invalidate(tokens[0].token)
    session_service.invalidate_id(tokens[1].id, reason="admin")
    session_service.invalidate_all(user_id)
    session_service.invalidate_all(user_id)
    assert [(h["session_id"], h["user_id"], h["reason"], h["count"]) for h in heard] == [
        (tokens[0].id, user_id, "logout", 1),
        (tokens[1].id, user_id, "admin", 1),
        (None, user_id, "logout_all", 2),
    ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("heard", [signals.client_changed], indirect=True)
def test_client_changed(heard: Heard, user_id: str) -> None:
    token = session_service.create(user_id, ip="203.0.113.7", user_agent="a").token
    session_service.refresh(token, ip="203.0.113.99", user_agent="a")
    assert heard == []
    session_service.refresh(token, ip="198.51.100.1", user_agent="b")
    session_service.refresh(token, ip="198.51.100.2", user_agent="b")
    (event,) = heard
    assert event["user_id"] == user_id
    assert (event["previous_ip"], event["ip"]) == ("203.0.113.99", "198.51.100.1")
    assert (event["previous_user_agent"], event["user_agent"]) == ("a", "b")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("heard", [signals.session_created], indirect=True)
def test_a_receiver_that_fails_does_not_undo(heard: Heard, user_id: str) -> None:
    def broken(**kwargs: Any) -> None:
        raise RuntimeError

    signals.session_created.connect(broken)
    try:
        token = session_service.create(user_id).token
    finally:
        signals.session_created.disconnect(broken)
    assert session_service.get(token) is not None
    assert len(heard) == 1


@pytest.mark.django_db(transaction=True)
async def test_asynchronous_twins(user_id: str) -> None:
    created = await session_service.acreate(user_id, {"a": 1}, ip="127.0.0.1")
    session = await session_service.aget(created.token)
    assert session is not None
    assert session.data == {"a": 1}
    updated = await session_service.aupdate(created.token, {"b": 2}, expected_version=1)
    assert updated is not None
    assert updated.version == 2
    assert (await session_service.arefresh(created.token)).status == "extended"
    assert len(await session_service.alist(user_id)) == 1
    assert await session_service.acount_active(user_id=user_id) == 1
    assert await session_service.aget_active_sessions_count(user_id=user_id) == 1
    assert await session_service.aestimate_active() == await session_service.acount_active()
    assert await session_service.ahistory(user_id=user_id)
    elevated = await session_service.aelevate(created.token, {"amr": ["otp"]})
    assert await session_service.ainvalidate(elevated.token) is True
    assert await session_service.ainvalidate_all(user_id) == 0
    await sync_to_async(connections.close_all)()


def test_every_method_has_a_twin() -> None:
    import inspect

    from session_manager.services import SessionService

    public = [
        name
        for name, member in vars(SessionService).items()
        if inspect.isfunction(member)
        and not name.startswith("_")
        and not inspect.iscoroutinefunction(member)
    ]
    assert "get" in public
    assert [
        n for n in public if not inspect.iscoroutinefunction(getattr(SessionService, f"a{n}"))
    ] == []


def test_activity(user_id: str) -> None:
    tenant = f"tenant of {user_id}"
    since = datetime.now(timezone.utc)
    first = session_service.create(user_id, tenant_id=tenant)
    session_service.create(user_id, tenant_id=tenant)
    session_service.create(user_id)
    session_service.invalidate(first.token, reason="over")
    numbers = {
        (one.event, one.reason): one.events
        for one in session_service.activity(since=since, tenant_id=tenant)
    }
    assert numbers == {("created", None): 2, ("invalidated", "over"): 1}
    (ended,) = (a for a in session_service.activity(tenant_id=tenant) if a.reason == "over")
    assert ended.hour <= since < ended.hour + timedelta(hours=2)
    assert ended.hour.utcoffset() == timedelta(0)
    assert (ended.hour.minute, ended.hour.second) == (0, 0)
    assert ended.hour < ended.until <= datetime.now(timezone.utc) + timedelta(seconds=30)
    created = [a for a in session_service.activity(since=since) if a.event == "created"]
    assert sum(a.events for a in created) >= 3
    assert session_service.activity(tenant_id=f"no {tenant}") == []
    with pytest.raises(exceptions.InvalidArgument):
        session_service.activity(tenant_id="")


def test_critical_events(user_id: str, database_setting: Any) -> None:
    database_setting("rotation_grace", "0")
    tenant = f"tenant of {user_id}"
    made = [session_service.create(user_id, tenant_id=tenant) for _ in range(2)]
    for created in made:
        successor = session_service.refresh(created.token, rotate=True)
        assert session_service.get(successor.token) is not None
        assert session_service.refresh(created.token).status == "reused"
    found = session_service.critical_events(tenant_id=tenant)
    assert [(e.event, e.severity, e.session_id) for e in found] == [
        ("token_reused", "critical", created.id) for created in reversed(made)
    ]
    (newest,) = session_service.critical_events(max_rows=1, tenant_id=tenant)
    assert newest == found[0]
    assert newest in session_service.critical_events(max_rows=1000)
    assert session_service.critical_events(tenant_id=f"no {tenant}") == []
    with pytest.raises(exceptions.InvalidArgument):
        session_service.critical_events(max_rows=0)
