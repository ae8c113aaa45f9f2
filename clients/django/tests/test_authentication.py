"""Sessions and access tokens side by side in an application's own views."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model

from session_manager.conf import settings
from session_manager.services import session_service
from session_manager.types import CreatedSession

from .conftest import Browser
from .issuer import Issuer, bearer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("backend")]


def test_by_session(signed_in: Browser, user_id: str) -> None:
    assert signed_in.get("/protected/").json() == {"user": user_id}
    assert signed_in.unsafe("POST", "/protected/").json() == {"user": user_id}


def test_by_access_token(browser: Browser, auth0: Issuer, user_id: str) -> None:
    response = browser.get("/protected/", headers=bearer(auth0.token(user_id)))
    assert response.json() == {"user": user_id}


def test_neither(browser: Browser) -> None:
    response = browser.get("/protected/")
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == 'Session realm="api"'
    assert browser.get("/whoami/").json() == {"user": None}


def test_an_ended_session_and_a_token(
    signed_in: Browser, auth0: Issuer, created: CreatedSession
) -> None:
    session_service.invalidate(created.token)
    response = signed_in.get("/protected/", headers=bearer(auth0.token("auth0|other")))
    assert response.json() == {"user": "auth0|other"}
    assert settings.cookie_name not in response.cookies


def test_an_ended_session_does_not_close_open_pages(
    signed_in: Browser, created: CreatedSession
) -> None:
    session_service.invalidate(created.token)
    assert signed_in.get("/whoami/").json() == {"user": None}
    response = signed_in.get("/protected/")
    assert response.status_code == 401
    assert (response.json()["code"], response.json()["reason"]) == ("session_revoked", "logout")


def test_a_bad_token_beside_a_session(signed_in: Browser, auth0: Issuer, user_id: str) -> None:
    response = signed_in.get("/protected/", headers={"Authorization": "Bearer nonsense"})
    assert response.json() == {"user": user_id}


class TestUsers:
    def test_by_field(self, browser: Browser, configure: Any) -> None:
        configure(USER_ID_FIELD="username")
        get_user_model().objects.create_user("ada", "ada@example.com", first_name="Ada")
        browser.give(session_service.create("ada").token)
        assert browser.get("/protected/").json() == {"user": "ada"}
        assert browser.get("/api/sessions/current/").json()["user"] == {
            "id": "ada",
            "username": "ada",
            "email": "ada@example.com",
            "name": "Ada",
        }

    def test_by_key(self, browser: Browser, configure: Any) -> None:
        configure(USER_ID_FIELD="pk")
        user = get_user_model().objects.create_user("ada")
        browser.give(session_service.create(str(user.pk)).token)
        assert browser.get("/protected/").json() == {"user": "ada"}

    @pytest.mark.parametrize("stranger", ["999999999", "auth0|x", "9" * 100])
    def test_nobody(self, browser: Browser, configure: Any, stranger: str) -> None:
        configure(USER_ID_FIELD="pk")
        browser.give(session_service.create(stranger).token)
        response = browser.get("/api/sessions/current/")
        assert (response.status_code, response.json()["code"]) == (401, "session_expired")
        # The session lives, and so does its cookie; after a refresh as well.
        assert settings.cookie_name not in response.cookies
        response = browser.unsafe("POST", "/api/sessions/refresh/")
        assert (response.status_code, response.json()["code"]) == (401, "session_expired")
        assert settings.cookie_name not in response.cookies

    @pytest.mark.parametrize("loader", [False, True])
    @pytest.mark.parametrize("end", ["deactivated", "deleted"])
    def test_a_session_without_its_user_is_none(
        self, browser: Browser, configure: Any, loader: bool, end: str
    ) -> None:
        """In views of Django's own, in asynchronous ones, in DRF, and for row-level security."""
        if loader:
            configure(USER_LOADER="tests.hooks.load_by_name")
        else:
            configure(USER_ID_FIELD="username")
        user = get_user_model().objects.create_user("ada")
        created = session_service.create("ada", {"cart": [1]})
        browser.give(created.token)
        paths = ("/info/", "/ainfo/")
        for path in paths:
            assert browser.get(path).json()["exists"] is True
        assert browser.get("/bound/").json() == {"user": "ada"}
        if end == "deleted":
            user.delete()
        else:
            user.is_active = False
            user.save()
        for path in paths:
            response = browser.get(path)
            assert response.json() == {"exists": False, "user": None, "data": {}}
            # The user may come back.
            assert settings.cookie_name not in response.cookies
        assert browser.get("/bound/").status_code == 401
        assert browser.get("/protected/").status_code == 401
        assert browser.get("/whoami/").json() == {"user": None}
        # What signs out still does.
        assert browser.get("/logout/").cookies[settings.cookie_name].value == ""
        assert session_service.get(created.token) is None

    @pytest.mark.server_only("it counts queries")
    def test_one_look_up_of_the_user(self, ada: Browser, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(2):
            ada.get("/protected/")
        with django_assert_num_queries(2):
            ada.get("/info/")
        with django_assert_num_queries(0):
            ada.get("/plain/")

    def test_logged_in_without_being_active(self, browser: Browser, configure: Any) -> None:
        configure(USER_ID_FIELD="username")
        get_user_model().objects.create_user("ada", is_active=False)
        browser.get("/login/?user=ada")
        assert browser.get("/info/").json()["exists"] is False

    def test_several(self, browser: Browser, configure: Any) -> None:
        """Nobody is taken for one of several."""
        configure(USER_ID_FIELD="email")
        for name in ("ada", "bob"):
            get_user_model().objects.create_user(name, "both@example.com")
        browser.give(session_service.create("both@example.com").token)
        assert browser.get("/protected/").status_code == 401

    def test_inactive(self, browser: Browser, configure: Any, auth0: Issuer) -> None:
        configure(USER_ID_FIELD="username")
        get_user_model().objects.create_user("ada", is_active=False)
        browser.give(session_service.create("ada").token)
        assert browser.get("/protected/").status_code == 401
        authorization = bearer(auth0.token("ada"))
        assert Browser().get("/protected/", headers=authorization).status_code == 401
        response = browser.unsafe("POST", "/api/sessions/create/", headers=authorization)
        assert (response.status_code, response.json()["code"]) == (403, "user_not_found")
        assert browser.unsafe("DELETE", "/api/sessions/current/").status_code == 204

    def test_the_server_s_word_on_a_user_wins(
        self, browser: Browser, configure: Any, auth0: Issuer
    ) -> None:
        configure(USER_ID_FIELD="username")
        get_user_model().objects.create_user("ada", "ada@example.com")
        response = browser.unsafe(
            "POST",
            "/api/sessions/create/",
            {"user": {"email": "boss@example.com", "id": "boss", "username": "boss"}},
            headers=bearer(auth0.token("ada")),
        )
        user = response.json()["user"]
        assert (user["id"], user["username"], user["email"]) == ("ada", "ada", "ada@example.com")
