"""Whether a login is remembered: the cookie's kind and the session's lifetimes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory

from session_manager.conf import settings
from session_manager.login import log_in
from session_manager.services import session_service
from session_manager.types import ListedSession

from .conftest import Browser
from .issuer import Issuer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("backend")]

DAY = 86400
HOUR = 3600


def lasts(browser: Browser) -> int | None:
    """Seconds that the browser keeps the cookie; None: until it is closed."""
    cookie = browser.cookies[settings.cookie_name]
    assert not cookie["expires"] or cookie["max-age"]
    return int(cookie["max-age"]) if cookie["max-age"] else None


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=60)


def sign_in(browser: Browser, user_id: str, remember: str = "") -> ListedSession:
    assert browser.get("/login/", {"user": user_id, "remember": remember}).status_code == 204
    return session_service.list(user_id)[0]


def lifetimes(listed: ListedSession) -> tuple[float, float, timedelta | None]:
    """Unless refreshed, at most, and without use."""
    return (
        (listed.expires_at - listed.created_at).total_seconds(),
        (listed.absolute_expires_at - listed.created_at).total_seconds(),
        listed.idle_timeout,
    )


def test_kinds_of_cookies(user_id: str) -> None:
    for remember, seconds, ttl, kept in (
        ("", 7 * DAY, DAY, None),
        # As long as the extension allows.
        ("yes", 7 * DAY, 7 * DAY, True),
        ("no", None, DAY, False),
    ):
        browser = Browser()
        listed = sign_in(browser, user_id, remember)
        assert lasts(browser) == (None if seconds is None else about(seconds))
        assert (listed.auth, listed.remember) == ({"amr": ["pwd"]}, kept)
        assert lifetimes(listed) == (ttl, 7 * DAY, None)


def test_lifetimes_of_the_settings(user_id: str, configure: Callable[..., None]) -> None:
    configure(
        REMEMBERED={"MAX_LIFETIME": timedelta(days=5), "IDLE_TIMEOUT": timedelta(days=2)},
        NOT_REMEMBERED={"TTL": 2 * HOUR, "MAX_LIFETIME": 8 * HOUR, "IDLE_TIMEOUT": 1800},
    )
    browser = Browser()
    assert lifetimes(sign_in(browser, user_id, "yes")) == (5 * DAY, 5 * DAY, timedelta(days=2))
    assert lasts(browser) == about(5 * DAY)
    browser = Browser()
    listed = sign_in(browser, user_id, "no")
    assert lifetimes(listed) == (2 * HOUR, 8 * HOUR, timedelta(minutes=30))
    assert lasts(browser) is None
    assert lifetimes(sign_in(Browser(), user_id)) == (DAY, 7 * DAY, None)


def test_lifetimes_of_the_call_come_first(user_id: str, configure: Callable[..., None]) -> None:
    configure(NOT_REMEMBERED={"TTL": HOUR, "MAX_LIFETIME": 8 * HOUR, "IDLE_TIMEOUT": 1800})
    log_in(
        RequestFactory().get("/"),
        user_id,
        remember=False,
        ttl=timedelta(minutes=10),
        max_lifetime=timedelta(hours=3),
        idle_timeout=timedelta(minutes=5),
    )
    (listed,) = session_service.list(user_id)
    assert lifetimes(listed) == (600, 3 * HOUR, timedelta(minutes=5))


@pytest.mark.parametrize("remember", ["yes", "no"])
def test_the_kind_stays(user_id: str, remember: str, configure: Callable[..., None]) -> None:
    """Through all that gives the browser another token."""
    configure(
        ON_SWITCH_TENANT="tests.hooks.on_switch_tenant",
        REMEMBERED={"MAX_LIFETIME": 6 * DAY},
    )
    browser = Browser()
    sign_in(browser, user_id, remember)
    expected = None if remember == "no" else about(6 * DAY)
    tokens = {browser.token()}
    for number, (path, body) in enumerate(
        [
            ("/api/sessions/refresh/", None),
            ("/step-up/", None),
            ("/api/sessions/tenant/", {"tenant_id": "globex"}),
            ("/step-up/", None),
            ("/api/sessions/refresh/", None),
        ],
        start=2,
    ):
        assert browser.unsafe("POST", path, body).status_code == 200
        tokens.add(browser.token())
        assert (len(tokens), lasts(browser)) == (number, expected), path
    (listed,) = session_service.list(user_id)
    assert (listed.auth, listed.remember) == ({"amr": ["pwd", "otp"]}, remember == "yes")


@pytest.mark.parametrize(
    ("body", "seconds"),
    [({}, 7 * DAY), ({"remember": True}, 7 * DAY), ({"remember": False}, None)],
)
def test_create(browser: Browser, auth0: Issuer, body: Any, seconds: int | None) -> None:
    response = create(browser, auth0, body)
    assert response.status_code == 201
    assert lasts(browser) == (None if seconds is None else about(seconds))
    assert not any(name.startswith("_") for name in response.json()["session"]["auth"])
    assert session_service.list("auth0|ada")[0].remember is body.get("remember")


@pytest.mark.parametrize("value", ["false", 0, None, []])
def test_create_takes_true_and_false_alone(browser: Browser, auth0: Issuer, value: Any) -> None:
    response = create(browser, auth0, {"remember": value})
    assert response.status_code == 400
    assert response.json()["code"] == "invalid"


def test_the_application_decides(
    browser: Browser, auth0: Issuer, configure: Callable[..., None]
) -> None:
    configure(ON_LOGIN="tests.hooks.on_login_not_remembered")
    assert create(browser, auth0, {"remember": True}).status_code == 201
    assert lasts(browser) is None


def create(browser: Browser, auth0: Issuer, body: Any) -> Any:
    headers = {"Authorization": f"Bearer {auth0.token('auth0|ada')}"}
    return browser.unsafe("POST", "/api/sessions/create/", body, headers=headers)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be a dictionary"),
        ({"MAX": 1}, "unknown keys: MAX"),
        ({"TTL": 0}, "positive durations"),
        ({"IDLE_TIMEOUT": timedelta(seconds=-1)}, "positive durations"),
    ],
)
@pytest.mark.parametrize("name", ["REMEMBERED", "NOT_REMEMBERED"])
def test_settings_that_cannot_be_used(
    configure: Callable[..., None], name: str, value: Any, message: str
) -> None:
    configure(**{name: value})
    with pytest.raises(ImproperlyConfigured, match=f'"{name}".* {message}'):
        settings.cookie_name  # noqa: B018
