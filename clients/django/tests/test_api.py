"""The session endpoints, line by line."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections, transaction
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from django.test.utils import CaptureQueriesContext
from rest_framework.exceptions import PermissionDenied

from session_manager.conf import settings
from session_manager.login_policy import LoginDecision
from session_manager.services import session_service
from session_manager.types import CreatedSession

from .conftest import Browser
from .issuer import Issuer, bearer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("backend")]

API = "/api/sessions/"
CREATE, CURRENT, REFRESH = f"{API}create/", f"{API}current/", f"{API}refresh/"
ALL, TENANT = f"{API}invalidate-all/", f"{API}tenant/"
DEEP: Any = {}
for _ in range(700):
    DEEP = {"a": DEEP}
SESSION_MEMBERS = {
    "id",
    "created_at",
    "authenticated_at",
    "last_seen_at",
    "expires_at",
    "absolute_expires_at",
    "version",
    "tenant_id",
    "auth",
    "actor",
    "device_bound",
    "data",
}


def create(browser: Browser, token: str, body: Any = None, **headers: Any) -> Any:
    return browser.unsafe("POST", CREATE, body, headers={**bearer(token), **headers})


def cleared(response: Any) -> bool:
    morsel = response.cookies.get(settings.cookie_name)
    return morsel is not None and morsel.value == "" and morsel["max-age"] == 0


def kept(response: Any) -> bool:
    return settings.cookie_name not in response.cookies


class TestCreate:
    def test_makes_a_session(self, auth0: Issuer, browser: Browser, user_id: str) -> None:
        token = auth0.token(user_id, acr="aal2", amr=["pwd", "otp"], org_id="org_acme")
        response = create(
            browser,
            token,
            {
                "user": {"sub": user_id, "name": "Ada", "email": "ada@example.com", "x": 1},
                "data": {"client": {"theme": "dark"}},
            },
        )
        assert response.status_code == 201
        body = response.json()
        assert set(body) == {"session", "user", "server_time"}
        assert set(body["session"]) == SESSION_MEMBERS
        assert body["user"] == {"id": user_id, "name": "Ada", "email": "ada@example.com"}
        assert body["session"]["tenant_id"] == "org_acme"
        assert body["session"]["auth"] == {
            "method": "oidc",
            "acr": "aal2",
            "amr": ["pwd", "otp"],
        }
        assert body["session"]["data"] == {
            "client": {"theme": "dark"},
            "profile": {"name": "Ada", "email": "ada@example.com"},
        }
        assert response["Cache-Control"] == "private, no-store"
        assert response["ETag"] == '"1"'
        assert "sm1_" not in response.content.decode()
        session = session_service.get(browser.token())
        assert session is not None
        assert (session.user_id, str(session.id)) == (user_id, body["session"]["id"])

    def test_the_cookie(self, auth0: Issuer, browser: Browser, user_id: str) -> None:
        response = create(browser, auth0.token(user_id))
        cookie = response.cookies["__Host-session_token"]
        assert cookie.value.startswith("sm1_")
        assert cookie["httponly"] is True
        assert cookie["secure"] is True
        assert cookie["samesite"] == "Lax"
        assert cookie["path"] == "/"
        assert cookie["domain"] == ""
        assert abs(cookie["max-age"] - 7 * 86400) < 30

    def test_the_cookie_in_debug(
        self, auth0: Issuer, browser: Browser, user_id: str, settings: Any
    ) -> None:
        settings.DEBUG = True
        cookie = create(browser, auth0.token(user_id)).cookies["session_token"]
        assert cookie["secure"] == ""

    def test_the_cookie_without_prefix(
        self, auth0: Issuer, browser: Browser, user_id: str, configure: Any
    ) -> None:
        configure(COOKIE_HOST_PREFIX=False, COOKIE_DOMAIN="example.com")
        cookie = create(browser, auth0.token(user_id)).cookies["session_token"]
        assert cookie["secure"] is True
        assert cookie["domain"] == "example.com"

    def test_the_cookie_s_name(
        self, auth0: Issuer, browser: Browser, user_id: str, settings: Any
    ) -> None:
        settings.SESSION_COOKIE_NAME = "adopted"
        assert "__Host-adopted" in create(browser, auth0.token(user_id)).cookies

    def test_the_token_may_be_in_the_body(
        self, auth0: Issuer, browser: Browser, user_id: str
    ) -> None:
        response = browser.unsafe("POST", CREATE, {"access_token": auth0.token(user_id, "ec")})
        assert response.status_code == 201

    def test_the_user_is_the_token_s(self, auth0: Issuer, browser: Browser, user_id: str) -> None:
        response = create(browser, auth0.token(user_id), {"user_id": "root", "sub": "root"})
        assert response.json()["user"]["id"] == user_id
        response = create(browser, auth0.token(user_id), {"user": {"sub": "root"}})
        assert (response.status_code, response.json()["code"]) == (400, "user_mismatch")

    @pytest.mark.parametrize(
        "data",
        [
            {"plan": "enterprise"},
            {"is_admin": True, "role": "admin", "scopes": ["*"]},
            {"client": {}, "permissions": ["*"]},
            {"profile": {"email": "root@example.com"}},
            {"Client": {}},
            {"__proto__": {"is_admin": True}},
            {"": 1},
        ],
    )
    def test_what_only_the_server_may_set(
        self, auth0: Issuer, browser: Browser, user_id: str, data: Any
    ) -> None:
        response = create(browser, auth0.token(user_id), {"data": data})
        assert (response.status_code, response.json()["code"]) == (400, "protected_data")
        assert session_service.get_active_sessions_count(user_id=user_id) == 0

    def test_no_token(self, auth0: Issuer, browser: Browser) -> None:
        response = browser.unsafe("POST", CREATE, {})
        assert response.status_code == 401
        assert response["WWW-Authenticate"] == 'Bearer realm="api"'
        assert response.json()["code"] == "not_authenticated"

    def test_a_bad_token(self, auth0: Issuer, browser: Browser) -> None:
        response = create(browser, "nonsense")
        assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
        assert response["WWW-Authenticate"].startswith("Bearer")
        assert response["Cache-Control"] == "private, no-store"

    @pytest.mark.parametrize(
        "body", ["[1]", '"x"', "{", "nul", '{"data": 1}', '{"data": {"a": NaN}}']
    )
    def test_a_bad_body(self, auth0: Issuer, browser: Browser, user_id: str, body: str) -> None:
        response = browser.unsafe("POST", CREATE, headers=bearer(auth0.token(user_id)))
        assert response.status_code == 201
        response = browser.generic(
            "POST",
            CREATE,
            body,
            content_type="application/json",
            headers={
                **bearer(auth0.token(user_id)),
                "X-CSRFToken": browser.cookies["csrftoken"].value,
                "Sec-Fetch-Site": "same-origin",
            },
        )
        assert response.status_code == 400
        assert set(response.json()) == {"detail", "code"}

    def test_no_fixation(self, auth0: Issuer, browser: Browser, user_id: str) -> None:
        """An older session that is presented ends, whoever's it is."""
        planted = session_service.create("auth0|attacker").token
        response = create(browser.give(planted), auth0.token(user_id))
        assert response.status_code == 201
        assert browser.token() not in (None, planted)
        assert session_service.get(planted) is None

    def test_a_made_up_token_is_not_adopted(
        self, auth0: Issuer, browser: Browser, user_id: str
    ) -> None:
        planted = "sm1_" + "A" * 64
        create(browser.give(planted), auth0.token(user_id))
        assert browser.token() != planted

    def test_a_refused_login_leaves_the_older_session(
        self, auth0: Issuer, signed_in: Browser, created: CreatedSession, user_id: str
    ) -> None:
        response = create(signed_in, auth0.token(user_id), {"data": {"client": "y" * 66000}})
        assert (response.status_code, response.json()["code"]) == (413, "too_large")
        assert session_service.get(created.token) is not None
        assert kept(response)

    def test_what_the_application_decides(
        self,
        auth0: Issuer,
        browser: Browser,
        user_id: str,
        configure: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        configure(ON_LOGIN="tests.hooks.on_login")
        response = create(browser, auth0.token(user_id), {"data": {"client": {"theme": "dark"}}})
        body = response.json()["session"]
        assert body["tenant_id"] == "acme"
        assert body["data"] == {"client": {"theme": "dark"}, "plan": "team"}
        response = create(browser, auth0.token("auth0|blocked"))
        assert (response.status_code, response.json()["code"]) == (403, "blocked")


class TestLimit:
    pytestmark = pytest.mark.django_db(transaction=True)

    def test_limit(
        self, auth0: Issuer, browser: Browser, user_id: str, database_setting: Any
    ) -> None:
        database_setting("max_sessions_per_user", "1")
        database_setting("on_limit", "deny")
        assert create(browser, auth0.token(user_id)).status_code == 201
        other = Browser()
        response = create(other, auth0.token(user_id))
        assert (response.status_code, response.json()["code"]) == (409, "session_limit_reached")
        assert other.token() is None
        # To choose from; a login would end the first one, so the others count.
        (listed,) = response.json()["sessions"]
        assert (listed["user_agent"], listed["is_current"]) == (None, False)
        assert "sm1_" not in response.content.decode()
        # The one who presents the session replaces it.
        assert create(browser, auth0.token(user_id)).status_code == 201

    def test_limit_of_a_form(self, browser: Browser, user_id: str, database_setting: Any) -> None:
        """log_in in a view of Django's own."""
        database_setting("max_sessions_per_user", "1")
        database_setting("on_limit", "deny")
        first = session_service.create(user_id, user_agent="a phone")
        presented = session_service.create(f"{user_id} is another")
        response = browser.give(presented.token).get(f"/login/?user={user_id}")
        assert (response.status_code, response.json()["code"]) == (409, "session_limit_reached")
        (listed,) = response.json()["sessions"]
        assert (listed["id"], listed["user_agent"]) == (str(first.id), "a phone")
        assert kept(response)
        assert session_service.get(presented.token) is not None
        # The choice.
        assert session_service.invalidate_id(listed["id"], user_id)
        assert browser.get(f"/login/?user={user_id}").status_code == 204


@pytest.mark.server_only("the stand-in is never in recovery")
class TestNoWrites:
    """A database in recovery refuses as one whose transactions are read-only does."""

    pytestmark = pytest.mark.django_db(transaction=True)

    @pytest.fixture
    def read_only(self, superuser: Any) -> Iterator[Callable[[], None]]:
        name = connection.settings_dict["NAME"]

        def begin() -> None:
            superuser.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            connections.close_all()

        yield begin
        superuser.execute(f"ALTER DATABASE {name} RESET ALL")
        connections.close_all()

    @pytest.mark.parametrize("hook", [None, "tests.hooks.on_login_that_writes"])
    def test_login(
        self,
        auth0: Issuer,
        browser: Browser,
        user_id: str,
        configure: Any,
        read_only: Any,
        hook: str | None,
    ) -> None:
        configure(ON_LOGIN=hook)
        read_only()
        response = create(browser, auth0.token(user_id))
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
        assert response["Retry-After"] == "2"

    def test_switch(self, signed_in: Browser, configure: Any, read_only: Any) -> None:
        configure(ON_SWITCH_TENANT="tests.hooks.on_switch_tenant_that_writes")
        read_only()
        response = signed_in.unsafe("POST", TENANT, {"tenant_id": "globex"})
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
        assert kept(response)


class TestCurrent:
    def test_get(self, signed_in: Browser, created: CreatedSession, user_id: str) -> None:
        response = signed_in.get(CURRENT)
        assert response.status_code == 200
        body = response.json()
        assert set(body) == {"session", "user", "server_time"}
        assert set(body["session"]) == SESSION_MEMBERS
        assert body["session"]["id"] == str(created.id)
        assert body["session"]["data"] == {"cart": [1]}
        assert body["session"]["tenant_id"] == "acme"
        assert body["user"] == {"id": user_id}
        for name in ("created_at", "last_seen_at", "expires_at", "absolute_expires_at"):
            moment = datetime.fromisoformat(body["session"][name])
            assert moment.utcoffset() is not None
        assert datetime.fromisoformat(body["session"]["expires_at"]) == created.expires_at
        assert response["ETag"] == '"1"'
        assert response["Cache-Control"] == "private, no-store"
        assert "Cookie" in response["Vary"]
        assert kept(response)

    @pytest.mark.server_only("it counts queries")
    def test_never_writes(self, signed_in: Browser, created: CreatedSession) -> None:
        with CaptureQueriesContext(connection) as queries:
            signed_in.get(CURRENT)
        assert len(queries) == 1
        assert "session_get" in queries[0]["sql"]

    def test_without_a_cookie_nothing_is_asked(
        self, browser: Browser, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(0):
            response = browser.get(CURRENT)
        assert response.status_code == 401
        assert response.json()["code"] == "not_authenticated"
        assert response["WWW-Authenticate"] == 'Session realm="api"'
        assert kept(response)

    @pytest.mark.parametrize("value", ["nonsense", "sd1_" + "A" * 64, "sm1_" + "A" * 63])
    def test_a_cookie_that_is_no_token_asks_nobody(
        self, browser: Browser, value: str, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(0):
            response = browser.give(value).get(CURRENT)
        assert response.status_code == 401
        assert kept(response)

    def test_an_ended_session(self, signed_in: Browser, created: CreatedSession) -> None:
        session_service.invalidate(created.token)
        response = signed_in.get(CURRENT)
        assert response.status_code == 401
        assert response.json() == {
            "detail": "The session was revoked.",
            "code": "session_revoked",
            "reason": "logout",
        }
        assert response["WWW-Authenticate"] == 'Session realm="api"'
        assert kept(response)

    def test_patch(self, signed_in: Browser) -> None:
        response = signed_in.unsafe("PATCH", CURRENT, {"client": {"x": None, "a": {"b": 1}}})
        assert response.status_code == 200
        data = response.json()["session"]["data"]
        assert data == {"cart": [1], "client": {"a": {"b": 1}}}
        assert response.json()["session"]["version"] == 2
        assert response["ETag"] == '"2"'
        response = signed_in.unsafe(
            "PATCH",
            CURRENT,
            {"client": {"a": {"c": 2}}},
            content_type="application/merge-patch+json",
        )
        data = response.json()["session"]["data"]
        assert data == {"cart": [1], "client": {"a": {"b": 1, "c": 2}}}

    @pytest.mark.parametrize(
        ("if_match", "code"),
        [
            ('"1"', 200),
            ("*", 200),
            ('"7", "1"', 200),
            ('"2"', 412),
            ('W/"1"', 412),
            ("1", 412),
            ("", 412),
            ('"99999999999999999999"', 412),
        ],
    )
    def test_if_match(self, signed_in: Browser, if_match: str, code: int) -> None:
        response = signed_in.unsafe("PATCH", CURRENT, {"client": 1}, headers={"If-Match": if_match})
        assert response.status_code == code
        if code == 412:
            assert response.json()["code"] == "version_conflict"
            assert kept(response)

    @pytest.mark.parametrize(
        "patch",
        [
            '{"client": "\\u0000"}',
            '{"client": {"\\u0000": 1}}',
            '{"client": "\\ud800"}',
            '{"client": 1e999}',
            '{"\\ud800": 1}',
            '{"client\\u0000": 1}',
            "[]",
            "1",
            "null",
            "{",
            '{"client":' * 5000,
        ],
    )
    def test_bad_patch(self, signed_in: Browser, patch: str) -> None:
        response = signed_in.generic(
            "PATCH",
            CURRENT,
            patch,
            content_type="application/json",
            headers={"X-CSRFToken": "a" * 32, "Sec-Fetch-Site": "same-origin", "Cookie2": "x"},
        )
        assert response.status_code == 403  # the CSRF cookie is missing
        signed_in.cookies["csrftoken"] = "a" * 32
        response = signed_in.generic(
            "PATCH",
            CURRENT,
            patch,
            content_type="application/json",
            headers={"X-CSRFToken": "a" * 32, "Sec-Fetch-Site": "same-origin"},
        )
        assert response.status_code == 400
        assert set(response.json()) == {"detail", "code"}

    @pytest.mark.parametrize(
        "text",
        [
            *(
                '{"client":' * depth + "1" + "}" * depth
                for depth in (50, 101, 300, 600, 900, 950, 970)
            ),
            *('{"client":' + "[" * depth + "]" * depth + "}" for depth in (50, 101, 900, 970)),
            *(f'{{"client": {number}}}' for number in ("1e308", "9" * 4000, "9" * 5000, "1e-400")),
            '{"profile": {"sub": "x"}}',
            '{"profile": {"sub": null}}',
            '{"profile": 7}',
            '{"profile": {"name": 7, "email": ["x"], "picture": {}}}',
            '{"": {"": ""}}',
            '{"client": {"": {"": ""}, "__proto__": {"constructor": {"prototype": 1}}}}',
        ],
    )
    def test_a_patch_is_written_or_refused(
        self, signed_in: Browser, created: CreatedSession, text: str
    ) -> None:
        """And whatever has been sent, the session can be read, and is as the answer says."""
        signed_in.cookies["csrftoken"] = "a" * 32
        response = signed_in.generic(
            "PATCH",
            CURRENT,
            text,
            content_type="application/json",
            headers={"X-CSRFToken": "a" * 32, "Sec-Fetch-Site": "same-origin"},
        )
        assert response.status_code in (200, 400)
        session = session_service.get(created.token)
        assert session is not None
        assert (session.version == 1) is (response.status_code == 400)
        read = signed_in.get(CURRENT)
        assert read.status_code == 200
        assert read.json()["session"]["data"] == session.data
        assert signed_in.unsafe("POST", REFRESH).status_code == 200

    def test_a_profile_of_another_that_is_there_already(
        self, signed_in: Browser, created: CreatedSession, user_id: str
    ) -> None:
        """Written by an older version, or by the application: it is read, and shown as it is."""
        session_service.update(created.token, {"profile": {"sub": "x", "name": "Ada"}})
        for response in (signed_in.get(CURRENT), signed_in.unsafe("POST", REFRESH)):
            assert response.status_code == 200
            assert response.json()["user"] == {"id": user_id, "name": "Ada"}

    def test_no_depth_makes_a_session_unreadable(self, signed_in: Browser) -> None:
        """Where the stack ends depends on who calls: what one may write, another must read."""
        signed_in.cookies["csrftoken"] = "a" * 32
        for depth in range(800, 1000, 2):
            response = signed_in.generic(
                "PATCH",
                CURRENT,
                '{"client":' * depth + "1" + "}" * depth,
                content_type="application/json",
                headers={"X-CSRFToken": "a" * 32, "Sec-Fetch-Site": "same-origin"},
            )
            assert response.status_code == 400
            assert signed_in.get(CURRENT).status_code == 200

    @pytest.mark.parametrize(
        "data", [{"profile": {"sub": "auth0|somebody else"}}, {"client": DEEP}, {"client": 1}]
    )
    def test_a_login_is_done_or_refused(
        self, auth0: Issuer, browser: Browser, user_id: str, data: Any
    ) -> None:
        response = create(browser, auth0.token(user_id), {"data": data})
        assert response.status_code in (201, 400)
        count = session_service.get_active_sessions_count(user_id=user_id)
        assert count == (1 if response.status_code == 201 else 0)

    @pytest.mark.parametrize(
        "patch",
        [
            {"plan": "enterprise", "client": 1},
            {"is_admin": True, "role": "admin", "scopes": ["*"]},
            {"cart": None},
            {"cart": [1]},
            {"profile": {"email": "root@example.com"}},
            {"profile": None},
            {"__proto__": {"is_admin": True}},
            {"client ": 1},
            {"": None},
        ],
    )
    def test_protected_patch(self, signed_in: Browser, created: CreatedSession, patch: Any) -> None:
        """What is not named is the server's: to write, and to remove."""
        response = signed_in.unsafe("PATCH", CURRENT, patch)
        assert (response.status_code, response.json()["code"]) == (400, "protected_data")
        assert response.json()["detail"] == (
            "A browser may write only these members of the session's data: client."
        )
        session = session_service.get(created.token)
        assert session is not None
        assert (session.data, session.version) == ({"cart": [1]}, 1)

    @pytest.mark.parametrize(
        ("patch", "data"),
        [
            ({"client": None}, {"cart": [1]}),
            ({"client": "text"}, {"cart": [1], "client": "text"}),
            ({"client": []}, {"cart": [1], "client": []}),
            ({"client": {"a": None}}, {"cart": [1], "client": {"b": {"c": 1}}}),
            (
                {"client": {"a": {"b": {"c": None}}}},
                {"cart": [1], "client": {"a": {"b": {}}, "b": {"c": 1}}},
            ),
            (
                {"client": {"__proto__": {"plan": "x"}, "plan": "x"}},
                {
                    "cart": [1],
                    "client": {"a": 1, "b": {"c": 1}, "__proto__": {"plan": "x"}, "plan": "x"},
                },
            ),
            ({}, {"cart": [1], "client": {"a": 1, "b": {"c": 1}}}),
        ],
    )
    def test_what_is_the_browser_s(
        self, signed_in: Browser, created: CreatedSession, patch: Any, data: Any
    ) -> None:
        """Whole: of any form, and the rest stays as it is."""
        session_service.update(created.token, {"client": {"a": 1, "b": {"c": 1}}})
        response = signed_in.unsafe("PATCH", CURRENT, patch)
        assert response.status_code == 200
        assert response.json()["session"]["data"] == data

    def test_other_members(
        self, auth0: Issuer, browser: Browser, user_id: str, configure: Any
    ) -> None:
        configure(CLIENT_DATA=["theme", "language"])
        response = create(browser, auth0.token(user_id), {"data": {"theme": "dark"}})
        assert response.json()["session"]["data"] == {"theme": "dark"}
        response = browser.unsafe("PATCH", CURRENT, {"theme": None, "language": "de"})
        assert response.json()["session"]["data"] == {"language": "de"}
        response = browser.unsafe("PATCH", CURRENT, {"client": {}})
        assert (response.status_code, response.json()["code"]) == (400, "protected_data")

    def test_nothing(self, auth0: Issuer, browser: Browser, user_id: str, configure: Any) -> None:
        configure(CLIENT_DATA=())
        assert create(browser, auth0.token(user_id), {"data": {"client": 1}}).status_code == 400
        response = create(browser, auth0.token(user_id), {"data": {}, "user": {"name": "Ada"}})
        assert response.json()["user"]["name"] == "Ada"
        assert browser.unsafe("PATCH", CURRENT, {}).status_code == 200
        assert browser.unsafe("PATCH", CURRENT, {"client": 1}).status_code == 400

    def test_the_server_s_word(
        self, auth0: Issuer, browser: Browser, user_id: str, configure: Any
    ) -> None:
        """An account without an e-mail address does not show the one that the browser sent."""
        get_user_model().objects.create_user(user_id)
        configure(USER_ID_FIELD="username")
        profile = {"email": "root@example.com", "username": "root", "is_staff": True, "name": "Ada"}
        response = create(browser, auth0.token(user_id), {"user": profile})
        expected = {"id": user_id, "username": user_id, "name": "Ada"}
        assert response.json()["user"] == expected
        assert browser.get(CURRENT).json()["user"] == expected

    def test_too_large(self, signed_in: Browser, configure: Any) -> None:
        response = signed_in.unsafe("PATCH", CURRENT, {"client": "x" * 70000})
        assert (response.status_code, response.json()["code"]) == (413, "too_large")
        configure(MAX_BODY_SIZE=1000)
        response = signed_in.unsafe("PATCH", CURRENT, {"client": "x" * 2000})
        assert (response.status_code, response.json()["code"]) == (413, "too_large")

    def test_patch_of_an_ended_session(self, signed_in: Browser, created: CreatedSession) -> None:
        session_service.invalidate(created.token)
        response = signed_in.unsafe("PATCH", CURRENT, {"client": 1})
        assert (response.status_code, response.json()["code"]) == (401, "session_revoked")
        assert kept(response)

    def test_another_media_type(self, signed_in: Browser) -> None:
        response = signed_in.unsafe("PATCH", CURRENT, {}, content_type="text/plain")
        assert response.status_code == 415

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({"CONTENT_TYPE": MULTIPART_CONTENT}, 415),
            ({"CONTENT_TYPE": "application/x-www-form-urlencoded"}, 415),
            # As a server hands over what comes in chunks.
            ({"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}, 400),
        ],
    )
    def test_a_body_is_not_taken_for_an_empty_one(
        self, signed_in: Browser, created: CreatedSession, headers: Any, expected: int
    ) -> None:
        body = {"except_current": "true"}
        text = json.dumps({"except_current": True})
        if headers.get("CONTENT_TYPE") == MULTIPART_CONTENT:
            text = encode_multipart(BOUNDARY, body)
        response = signed_in.unsafe(
            "POST", ALL, text, **{"CONTENT_TYPE": "application/json", **headers}
        )
        assert response.status_code == expected
        assert session_service.get(created.token) is not None

    def test_delete(self, signed_in: Browser, created: CreatedSession) -> None:
        for _ in range(2):
            response = signed_in.unsafe("DELETE", CURRENT)
            assert response.status_code == 204
            assert cleared(response)
        assert session_service.get(created.token) is None

    def test_delete_without_a_cookie(
        self, browser: Browser, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(0):
            response = browser.unsafe("DELETE", CURRENT)
        assert response.status_code == 204
        assert cleared(response)


class TestRefresh:
    def test_rotates(self, signed_in: Browser, created: CreatedSession) -> None:
        response = signed_in.unsafe("POST", REFRESH)
        assert response.status_code == 200
        body = response.json()
        assert body["status"] == "rotated"
        assert set(body) == {"session", "user", "server_time", "status"}
        assert "sm1_" not in response.content.decode()
        assert signed_in.token() not in (None, created.token)
        assert signed_in.get(CURRENT).status_code == 200

    def test_extends(self, signed_in: Browser, created: CreatedSession) -> None:
        response = signed_in.unsafe("POST", REFRESH, {"rotate": False})
        assert response.json()["status"] == "extended"
        assert kept(response)

    @pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain"])
    def test_rotates_whatever_an_empty_body_is_called(
        self, signed_in: Browser, media_type: str
    ) -> None:
        """Django's client leaves the header out of a request without a body; jQuery does not."""
        headers = {"CONTENT_TYPE": media_type, "CONTENT_LENGTH": "0"}
        response = signed_in.unsafe("POST", REFRESH, **headers)
        assert (response.status_code, response.json()["status"]) == (200, "rotated")

    def test_two_at_once(self, created: CreatedSession) -> None:
        first, second = Browser().give(created.token), Browser().give(created.token)
        assert first.unsafe("POST", REFRESH).json()["status"] == "rotated"
        response = second.unsafe("POST", REFRESH)
        assert (response.status_code, response.json()["status"]) == (200, "already_rotated")
        assert kept(response)

    def test_ended(self, signed_in: Browser, created: CreatedSession) -> None:
        session_service.invalidate(created.token)
        response = signed_in.unsafe("POST", REFRESH)
        assert (response.status_code, response.json()["code"]) == (401, "session_revoked")
        assert response.json()["reason"] == "logout"
        assert response["WWW-Authenticate"] == 'Session realm="api"'
        assert kept(response)

    def test_no_cookie(self, browser: Browser, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(0):
            response = browser.unsafe("POST", REFRESH)
        assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")


@pytest.mark.django_db(transaction=True)
class TestReplay:
    def test_replay(self, created: CreatedSession, database_setting: Any, settings: Any) -> None:
        """ATOMIC_REQUESTS or not: the session ends."""
        connection.settings_dict["ATOMIC_REQUESTS"] = True
        try:
            owner, thief = Browser().give(created.token), Browser().give(created.token)
            database_setting("rotation_grace", "0")
            owner.unsafe("POST", REFRESH)
            assert owner.get(CURRENT).status_code == 200
            response = thief.unsafe("POST", REFRESH)
            assert (response.status_code, response.json()["code"]) == (401, "token_reused")
            assert kept(response)
            assert session_service.get(owner.token()) is None
            for browser in (owner, thief):
                body = browser.get(CURRENT).json()
                assert (body["code"], body["reason"]) == ("session_revoked", "token_reused")
        finally:
            connection.settings_dict["ATOMIC_REQUESTS"] = False

    def test_a_lost_answer_is_no_replay(
        self, created: CreatedSession, database_setting: Any
    ) -> None:
        """The answer to a refresh got lost: the browser has the old token and tries again."""
        database_setting("rotation_grace", "0")
        browser = Browser().give(created.token)
        lost = Browser().give(created.token).unsafe("POST", REFRESH)
        assert lost.status_code == 200
        for _ in range(2):
            assert browser.get(CURRENT).status_code == 200
        response = browser.unsafe("POST", REFRESH)
        assert (response.status_code, response.json()["status"]) == (200, "rotated")

    def test_strict_binding(self, user_id: str, database_setting: Any) -> None:
        database_setting("client_binding", "strict")
        created = session_service.create(user_id, ip="127.0.0.1")
        browser = Browser().give(created.token)
        assert browser.get(CURRENT).status_code == 200
        assert browser.unsafe("POST", REFRESH).status_code == 200
        moved = Browser(REMOTE_ADDR="198.51.100.7").give(browser.token() or "")
        assert moved.get(CURRENT).status_code == 401
        assert browser.get(CURRENT).status_code == 200


class TestListAndEnd:
    def test_list(self, signed_in: Browser, created: CreatedSession, user_id: str) -> None:
        other = session_service.create(user_id, auth={"amr": ["pwd"]})
        session_service.create("somebody else")
        response = signed_in.get(API)
        assert response.status_code == 200
        body = response.json()
        assert body["next"] is None
        assert {entry["id"] for entry in body["results"]} == {str(other.id), str(created.id)}
        mine = {entry["id"]: entry for entry in body["results"]}[str(created.id)]
        assert mine["is_current"] is True
        assert (mine["ip"], mine["user_agent"]) == ("127.0.0.1", "tests")
        assert "data" not in mine
        assert "sm1_" not in response.content.decode()

    def test_pages(self, signed_in: Browser, user_id: str) -> None:
        for _ in range(4):
            session_service.create(user_id)
        seen: list[str] = []
        path: str | None = f"{API}?limit=2"
        while path:
            body = signed_in.get(path).json()
            seen += [entry["id"] for entry in body["results"]]
            path = body["next"]
        assert len(seen) == len(set(seen)) == 5

    @pytest.mark.parametrize("query", ["after=x", "limit=0", "limit=101", "limit=x"])
    def test_bad_query(self, signed_in: Browser, query: str) -> None:
        response = signed_in.get(f"{API}?{query}")
        assert response.status_code == 400
        assert set(response.json()) == {"detail", "code"}

    def test_end_one(self, signed_in: Browser, user_id: str) -> None:
        other = session_service.create(user_id)
        response = signed_in.unsafe("DELETE", f"{API}{other.id}/")
        assert response.status_code == 204
        assert kept(response)
        assert session_service.get(other.token) is None
        assert signed_in.unsafe("DELETE", f"{API}{other.id}/").status_code == 404

    def test_end_this_one(self, signed_in: Browser, created: CreatedSession) -> None:
        response = signed_in.unsafe("DELETE", f"{API}{created.id}/")
        assert response.status_code == 204
        assert cleared(response)

    def test_another_s_session(self, signed_in: Browser) -> None:
        other = session_service.create("somebody else")
        response = signed_in.unsafe("DELETE", f"{API}{other.id}/")
        unknown = signed_in.unsafe("DELETE", f"{API}{uuid.uuid4()}/")
        assert (response.status_code, response.json()) == (404, unknown.json())
        assert session_service.get(other.token) is not None

    def test_end_all(self, signed_in: Browser, user_id: str) -> None:
        session_service.create(user_id)
        response = signed_in.unsafe("POST", ALL, {"except_current": True})
        assert (response.status_code, response.json()) == (200, {"invalidated": 1})
        assert kept(response)
        session_service.create(user_id)
        response = signed_in.unsafe("POST", ALL, {"except_current": False})
        assert response.json() == {"invalidated": 2}
        assert cleared(response)

    def test_end_all_by_default(self, signed_in: Browser) -> None:
        response = signed_in.unsafe("POST", ALL)
        assert response.json() == {"invalidated": 1}
        assert cleared(response)

    def test_end_all_wants_a_boolean(self, signed_in: Browser) -> None:
        response = signed_in.unsafe("POST", ALL, {"except_current": "perhaps"})
        assert response.status_code == 400

    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", API), ("DELETE", f"{API}{uuid.uuid4()}/"), ("POST", ALL), ("POST", TENANT)],
    )
    def test_without_a_session(
        self, browser: Browser, method: str, path: str, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(0):
            response = browser.unsafe(method, path)
        assert response.status_code == 401
        assert response["WWW-Authenticate"] == 'Session realm="api"'


class TestTenant:
    def test_nobody_changes_by_default(self, signed_in: Browser, created: CreatedSession) -> None:
        response = signed_in.unsafe("POST", TENANT, {"tenant_id": "globex"})
        assert (response.status_code, response.json()["code"]) == (403, "tenant_refused")
        assert session_service.get(created.token) is not None

    def test_change(self, signed_in: Browser, created: CreatedSession, configure: Any) -> None:
        configure(ON_SWITCH_TENANT="tests.hooks.on_switch_tenant")
        assert signed_in.unsafe("POST", TENANT, {"tenant_id": "evil"}).status_code == 403
        response = signed_in.unsafe("POST", TENANT, {"tenant_id": "globex"})
        assert response.status_code == 200
        body = response.json()["session"]
        assert body["tenant_id"] == "globex"
        assert body["data"] == {"cart": [1], "plan": "of globex"}
        assert session_service.get(created.token) is None
        assert session_service.get(signed_in.token()) is not None

    def test_a_change_does_not_prolong_the_login(
        self, browser: Browser, user_id: str, configure: Any
    ) -> None:
        configure(ON_SWITCH_TENANT="tests.hooks.on_switch_tenant")
        created = session_service.create(user_id, max_lifetime=timedelta(hours=1))
        limit = created.absolute_expires_at
        browser.give(created.token)
        for path, body in ((TENANT, {"tenant_id": "globex"}), (REFRESH, {}), (REFRESH, {})):
            response = browser.unsafe("POST", path, body)
            assert response.status_code == 200
            session = browser.get(CURRENT).json()["session"]
            assert datetime.fromisoformat(session["absolute_expires_at"]) == limit
            assert datetime.fromisoformat(session["expires_at"]) == limit


class TestAddresses:
    def test_stored(self, auth0: Issuer, user_id: str, configure: Any) -> None:
        configure(TRUSTED_PROXIES=1)
        browser = Browser()
        create(
            browser,
            auth0.token(user_id),
            **{"X-Forwarded-For": "192.0.2.66, 203.0.113.9", "User-Agent": "Firefox"},
        )
        (listed,) = session_service.list(user_id)
        assert (listed.ip, listed.user_agent) == ("203.0.113.9", "Firefox")


def test_errors_have_one_form(signed_in: Browser) -> None:
    response = signed_in.put(CURRENT)
    body = json.loads(response.content)
    assert set(body) == {"detail", "code"}
    assert response["Cache-Control"] == "private, no-store"


@pytest.mark.parametrize("path", [CURRENT, CREATE, "/api/sessions/"])
def test_an_error_leaves_the_transaction_around_it(browser: Browser, path: str) -> None:
    """A test's, for example: where views are in transactions, DRF takes it for the view's own."""
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        with transaction.atomic():
            get_user_model().objects.create_user("ada")
            response = browser.unsafe("POST" if path == CREATE else "GET", path)
            assert response.status_code == 401
            assert get_user_model().objects.filter(username="ada").exists()
        assert get_user_model().objects.filter(username="ada").exists()
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False


def test_hooks_are_typed() -> None:
    assert LoginDecision("x").data == {}
    assert issubclass(PermissionDenied, Exception)
