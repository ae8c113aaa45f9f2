"""The signal of a sign-in from a new device, and the link that ends that session."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.signing import TimestampSigner
from django.db import transaction
from django.test import Client
from django.utils.formats import date_format

from session_manager.links import end_session_path
from session_manager.services import session_service
from session_manager.signals import new_device
from session_manager.types import CreatedSession
from session_manager.user_agents import describe_user_agent

from .conftest import Browser, Heard, Superuser

pytestmark = pytest.mark.django_db(transaction=True)

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
)


#: What wrong tokens for a session leave.
NOISE = (
    "INSERT INTO session_events (at, event, session_id, user_id) SELECT"
    " clock_timestamp(), 'rejected', %s, %s FROM generate_series(1, %s)"
)


def sign_in(user_id: str, ip: str, user_agent: str) -> CreatedSession:
    return session_service.create(user_id, ip=ip, user_agent=user_agent)


@pytest.mark.parametrize("use_tz", [True, False])
def test_the_page_has_the_local_time(user_id: str, settings: Any, use_tz: bool) -> None:
    created = sign_in(user_id, "203.0.113.7", FIREFOX)
    settings.USE_TZ, settings.TIME_ZONE = use_tz, "Asia/Kathmandu"
    page = Client().get(end_session_path(created.id)).content.decode()
    local = created.created_at.astimezone(ZoneInfo("Asia/Kathmandu"))
    assert f"{date_format(local, 'DATETIME_FORMAT')} from Firefox" in page


@pytest.mark.parametrize("heard", [new_device], indirect=True)
def test_the_signal(heard: Heard, user_id: str) -> None:
    # Nothing is known of a new user.
    assert not sign_in(user_id, "203.0.113.7", FIREFOX).new_device
    assert not sign_in(user_id, "203.0.113.8", FIREFOX).new_device
    assert heard == []
    created = sign_in(user_id, "198.51.100.9", SAFARI)
    assert created.new_device
    assert heard == [
        {
            "session_id": created.id,
            "user_id": user_id,
            "tenant_id": None,
            "ip": "198.51.100.9",
            "user_agent": SAFARI,
            "created_at": created.created_at,
        }
    ]


@pytest.mark.parametrize("heard", [new_device], indirect=True)
def test_after_the_commit(heard: Heard, user_id: str) -> None:
    sign_in(user_id, "203.0.113.7", FIREFOX)
    with transaction.atomic():
        sign_in(user_id, "198.51.100.9", SAFARI)
        assert heard == []
    assert len(heard) == 1
    with transaction.atomic():
        sign_in(user_id, "192.0.2.1", "curl/8")
        transaction.set_rollback(True)
    assert len(heard) == 1


def test_the_link_asks_and_then_ends_one_session(user_id: str) -> None:
    created = sign_in(user_id, "198.51.100.9", SAFARI)
    other = sign_in(user_id, "203.0.113.7", FIREFOX)
    path = end_session_path(created.id)
    visitor = Client(enforce_csrf_checks=True)
    for method in (visitor.get, visitor.head, visitor.get):
        response = method(path)
        assert response.status_code == 200
        assert "no-store" in response["Cache-Control"]
        assert response["Referrer-Policy"] == "no-referrer"
        assert not response.cookies
    text = response.content.decode()
    assert "Safari on iPhone" in text
    assert "198.51.100.9" in text
    assert session_service.get(created.token)

    response = visitor.post(path)
    assert response.status_code == 200
    assert "The session has ended" in response.content.decode()
    assert session_service.get(created.token) is None
    assert session_service.end_reason(created.token) == "not_recognised"
    assert session_service.get(other.token)
    assert "had ended already" in visitor.post(path).content.decode()

    response = Browser().give(created.token).get("/api/sessions/current/")
    assert response.json()["reason"] == "not_recognised"


def test_it_ends_the_session_that_goes_on_in_another_tenant(user_id: str) -> None:
    created = sign_in(user_id, "198.51.100.9", SAFARI)
    first = session_service.switch_tenant(created.token, "globex", {})
    second = session_service.switch_tenant(first.token, "initech", {})
    assert session_service.get(second.token)
    response = Client().post(end_session_path(created.id))
    assert "The session has ended" in response.content.decode()
    assert session_service.get(second.token) is None


def test_wrong_tokens_do_not_hide_where_it_went(user_id: str, superuser: Superuser) -> None:
    created = sign_in(user_id, "198.51.100.9", SAFARI)
    gone_on = session_service.switch_tenant(created.token, "globex", {})
    superuser.execute(NOISE, [created.id, user_id, 200])
    response = Client().post(end_session_path(created.id))
    assert "The session has ended" in response.content.decode()
    assert session_service.get(gone_on.token) is None


def test_what_cannot_be_told_ends_with_all_the_rest(
    user_id: str, superuser: Superuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most, switches, noise in (("_MOST_EVENTS", 1, 20), ("_MOST_SWITCHES", 25, 0)):
        with monkeypatch.context() as patch:
            patch.setattr(f"session_manager.links.{most}", 20)
            created = sign_in(user_id, "198.51.100.9", SAFARI)
            other = sign_in(user_id, "203.0.113.7", FIREFOX)
            token = created.token
            for n in range(switches):
                token = session_service.switch_tenant(token, f"tenant{n}", {}).token
            superuser.execute(NOISE, [created.id, user_id, noise])
            response = Client().post(end_session_path(created.id))
            assert "All sessions have ended" in response.content.decode()
            assert session_service.get(token) is None
            assert session_service.get(other.token) is None


def test_a_link_that_is_none(created: CreatedSession) -> None:
    path = end_session_path(created.id)
    signed = path.split("/")[-2]
    other = TimestampSigner(sep=".").sign(created.id.hex)
    forged = uuid.uuid4().hex + signed[32:]
    for value in (signed[:-1], forged, other, created.id.hex, "x"):
        for method in ("GET", "POST"):
            response = Client().generic(method, path.replace(signed, value))
            assert response.status_code == 404
    assert session_service.get(created.token)
    assert Client().delete(path).status_code == 405


def test_a_link_that_has_expired(created: CreatedSession, configure: Callable[..., None]) -> None:
    path = end_session_path(created.id)
    configure(END_LINK_AGE=timedelta(0))
    for method in ("GET", "POST"):
        assert Client().generic(method, path).status_code == 410
    assert session_service.get(created.token)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FIREFOX, "Firefox on Linux"),
        (SAFARI, "Safari on iPhone"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/138.0.0.0 Safari/537.36 Edg/138.0.0.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/138.0.0.0 Mobile Safari/537.36",
            "Chrome on Android",
        ),
        ("curl/8.5.0", "curl"),
        ("<script>alert(1)</script>", "an unknown device"),
        ("", "an unknown device"),
        (None, "an unknown device"),
    ],
)
def test_a_user_agent_in_words(text: str | None, words: str) -> None:
    assert describe_user_agent(text) == words
