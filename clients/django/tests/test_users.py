"""``request.user`` and ``request.auser`` in views of Django's own."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model

from session_manager.middleware import AuthenticationMiddleware
from session_manager.services import session_service
from session_manager.store.users import load_user, user_id_of

from .conftest import Browser

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("backend")]

OURS = f"{AuthenticationMiddleware.__module__}.{AuthenticationMiddleware.__name__}"
DJANGO = "django.contrib.auth.middleware.AuthenticationMiddleware"
PATHS = ("/members/", "/members-too/", "/greeting/", "/amember/")


@pytest.fixture(params=["beside Django's", "alone"])
def chain(settings: Any, request: pytest.FixtureRequest) -> None:
    names = [*settings.MIDDLEWARE, OURS]
    if request.param == "alone":
        names.remove(DJANGO)
    settings.MIDDLEWARE = names


@pytest.mark.usefixtures("chain")
class TestUser:
    @pytest.mark.parametrize("field", [None, "username"])
    def test_signed_in(self, browser: Browser, configure: Any, field: str | None) -> None:
        configure(USER_ID_FIELD=field)
        get_user_model().objects.create_user("ada")
        browser.give(session_service.create("ada").token)
        for path in PATHS:
            response = browser.get(path)
            assert (response.status_code, response.content) == (200, b"ada"), path
            assert "Cookie" in response["Vary"]

    @pytest.mark.parametrize("cookie", [None, "nonsense", "ended", "inactive"])
    def test_nobody(self, browser: Browser, configure: Any, cookie: str | None) -> None:
        configure(USER_ID_FIELD="username")
        user = get_user_model().objects.create_user("ada", is_active=cookie != "inactive")
        created = session_service.create(user.username)
        if cookie == "ended":
            session_service.invalidate(created.token)
        if cookie is not None:
            browser.give("nonsense" if cookie == "nonsense" else created.token)
        for path in PATHS[:2]:
            response = browser.get(path)
            assert (response.status_code, response["Location"].split("?")[0]) == (
                302,
                "/accounts/login/",
            )
        for path in PATHS[2:]:
            assert browser.get(path).content == b"nobody"

    def test_follows_login_and_logout(self, browser: Browser) -> None:
        response = browser.get("/login-and-tell/?user=ada")
        assert response.json() == {"users": ["AnonymousUser", "ada", "AnonymousUser"]}

    @pytest.mark.server_only("it counts queries")
    def test_costs_nothing_until_used(self, ada: Browser, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(0):
            assert "Cookie" not in ada.get("/plain/").get("Vary", "")
        with django_assert_num_queries(2):
            ada.get("/members/")


def test_django_s_login_goes_on(browser: Browser, settings: Any) -> None:
    """Without a session of ours the user is Django's; with one it is the session's."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, OURS]
    browser.force_login(get_user_model().objects.create_user("bob"))
    for path in PATHS:
        assert browser.get(path).content == b"bob"
    browser.give(session_service.create("ada").token)
    for path in PATHS:
        assert browser.get(path).content == b"ada"


@pytest.mark.parametrize("name", ["pk:5", "guest:1"])
def test_a_name_like_a_reserved_id(configure: Any, name: str) -> None:
    """It would share sessions with the user of that key, or with a guest."""
    configure(USER_ID_FIELD="username")
    user = get_user_model().objects.create_user(name)
    with pytest.raises(ValueError, match="reserved"):
        user_id_of(user)
    assert load_user(name) is None
