"""request.session over the extension: SESSION_ENGINE = "session_manager.backends.sessions"."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    login,
)
from django.contrib.sessions.backends.base import UpdateError
from django.core.management import call_command
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from session_manager.backends.sessions import SessionStore, is_guest
from session_manager.conf import settings
from session_manager.http.lookup import look_up_row
from session_manager.login import step_up
from session_manager.middleware import RequestSessionMiddleware
from session_manager.models import SessionEvent, UserSession
from session_manager.services import session_service
from session_manager.store.tokens import is_token, session_id_of

from .conftest import Superuser, wait_for

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("backend")]

ENGINE = "session_manager.backends.sessions"


@pytest.fixture(autouse=True)
def _engine(settings: Any) -> None:
    settings.SESSION_ENGINE = ENGINE
    settings.MIDDLEWARE = [
        name.replace(
            "django.contrib.sessions.middleware.SessionMiddleware",
            "session_manager.middleware.RequestSessionMiddleware",
        )
        for name in settings.MIDDLEWARE
    ]


@pytest.fixture
def user() -> Any:
    return get_user_model().objects.create_user("ada", password="of ada")


def saved(**data: Any) -> SessionStore:
    """A session that has been saved, as the next request finds it."""
    store = SessionStore()
    store.update(data)
    store.save()
    return SessionStore(store.session_key)


def with_cookies(**cookies: str) -> HttpRequest:
    """A request with a request.session."""
    request = RequestFactory().get("/")
    request.COOKIES.update(cookies)
    RequestSessionMiddleware(lambda request: HttpResponse()).process_request(request)
    return request


def test_a_step_up_keeps_what_others_save_beside_it(configure: Callable[..., None]) -> None:
    token = session_service.create("ada").token
    request = with_cookies(**{settings.cookie_name: token})
    assert look_up_row(request).row is not None
    request.session["own"] = 1
    request.session.save()
    other = SessionStore(token)
    other["others"] = 2
    other.save()
    elevated = step_up(request, {"amr": ["otp"]}, {"plan": "x"})
    assert elevated.session is not None
    assert elevated.session.data == {"plan": "x"}
    assert dict(SessionStore(elevated.token).items()) == {"own": 1, "others": 2}


def test_a_login_leaves_no_way_back_to_an_actor(user: Any) -> None:
    own = session_service.create("staff").token
    request = with_cookies(**{settings.actor_cookie_name: own})
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    request.session.save()
    assert session_service.get(own) is None
    assert session_service.count_active(user_id=str(user.pk)) == 1


class TestLazyUser:
    @pytest.mark.parametrize("change", [{"is_active": False}, {"password": "!another"}])
    def test_the_user_changes_beside_a_login(
        self, user: Any, change: dict[str, Any], configure: Callable[..., None]
    ) -> None:
        """No request compares the user again, and there was no session yet to end."""
        configure(USER_ID_FIELD="pk", LAZY_USER=True)
        store = SessionStore()
        store[SESSION_KEY] = str(user.pk)
        store[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        store[HASH_SESSION_KEY] = user.get_session_auth_hash()
        get_user_model().objects.filter(pk=user.pk).update(**change)
        with pytest.raises(UpdateError):
            store.save()
        assert session_service.count_active(user_id=str(user.pk)) == 0


class TestData:
    VALUES = [
        None,
        {},
        {"nested": {"deep": None, "list": [1, None, {}]}},
        [],
        "",
        "NUL \0 in text",
        "\ud800 alone",
        'quotes " and \\ and é',
        12345678901234567890123456789012345678901234567890,
        1e-300,
        -0.0,
        float("inf"),
        True,
        1.0,
    ]

    @pytest.mark.parametrize("value", VALUES, ids=repr)
    def test_values_come_back(self, value: Any) -> None:
        found = saved(key=value)["key"]
        assert repr(found) == repr(value)

    def test_nested_members_are_replaced_and_not_merged(self) -> None:
        store = saved(filters={"colour": "red", "size": 3})
        store["filters"] = {"colour": None}
        store.save()
        assert SessionStore(store.session_key)["filters"] == {"colour": None}

    def test_the_order_of_members_stays(self) -> None:
        value = {"zebra": 1, "a": 2, "longer": 3}
        assert list(saved(key=value)["key"]) == list(value)

    @pytest.mark.parametrize("key", ["", "a b", "\0", "\ud800", "\\~int:1", '"', "_django", "é"])
    def test_keys(self, key: str) -> None:
        store = saved(**{key: 1})
        assert dict(store.items()) == {key: 1}
        store[key] = 2
        store.save()
        store = SessionStore(store.session_key)
        assert dict(store.items()) == {key: 2}
        del store[key]
        store.save()
        assert dict(SessionStore(store.session_key).items()) == {}

    def test_keys_that_are_no_text_become_text_as_with_django_s_own(self) -> None:
        store = SessionStore()
        store[1] = "one"
        store.save()
        store = SessionStore(store.session_key)
        assert dict(store.items()) == {"1": "one"}
        store["1"] = "uno"
        store.save()
        assert dict(SessionStore(store.session_key).items()) == {"1": "uno"}

    def test_another_serializer(self, settings: Any) -> None:
        settings.SESSION_SERIALIZER = "tests.test_engine.PickleSerializer"
        when = datetime(2026, 1, 1, tzinfo=timezone.utc)
        value = {"at": when, "set": {1, 2}, "bytes": b"\0\xff", "none": None}
        store = SessionStore()
        store["key"], store[(1, 2)], store[1], store["1"] = value, "tuple", "int", "text"
        store.save()
        store = SessionStore(store.session_key)
        assert dict(store.items()) == {"key": value, (1, 2): "tuple", 1: "int", "1": "text"}
        store["key"]["set"].add(3)
        store.save()
        assert SessionStore(store.session_key)["key"]["set"] == {1, 2, 3}

    def test_what_another_serializer_has_written_is_left_alone(self, settings: Any) -> None:
        settings.SESSION_SERIALIZER = "tests.test_engine.PickleSerializer"
        store = saved(old=object, both=1)
        settings.SESSION_SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer"
        store = SessionStore(store.session_key)
        assert dict(store.items()) == {}
        store["both"] = 2
        store.save()
        assert dict(SessionStore(store.session_key).items()) == {"both": 2}
        settings.SESSION_SERIALIZER = "tests.test_engine.PickleSerializer"
        assert dict(SessionStore(store.session_key).items()) == {"old": object}

    def test_a_change_deep_inside_is_saved(self) -> None:
        store = saved(cart={"items": [1]})
        store["cart"]["items"].append(2)
        store.save()
        assert SessionStore(store.session_key)["cart"] == {"items": [1, 2]}

    def test_clear_without_a_load(self) -> None:
        store = SessionStore(saved(a=1, b=2).session_key)
        store.clear()
        store["c"] = 3
        store.save()
        assert dict(SessionStore(store.session_key).items()) == {"c": 3}


class PickleSerializer:
    def dumps(self, value: Any) -> bytes:
        import pickle

        return pickle.dumps(value)

    def loads(self, data: bytes) -> Any:
        import pickle

        return pickle.loads(data)


class TestLostUpdates:
    def test_different_keys_both_win(self) -> None:
        key = saved(base=1, gone=1).session_key
        one, two = SessionStore(key), SessionStore(key)
        one["one"], two["two"] = 1, 2
        del two["gone"]
        one.save()
        two.save()
        assert dict(SessionStore(key).items()) == {"base": 1, "one": 1, "two": 2}

    def test_the_first_one_s_key_outlives_its_second_save(self) -> None:
        key = saved().session_key
        one, two = SessionStore(key), SessionStore(key)
        one["one"] = 1
        one.save()
        two["two"] = 2
        two.save()
        one["one"] = 3
        one.save()
        assert dict(SessionStore(key).items()) == {"one": 3, "two": 2}

    def test_a_pickled_key_that_is_untouched_is_not_written(self, settings: Any) -> None:
        settings.SESSION_SERIALIZER = "tests.test_engine.PickleSerializer"
        shared = ["x" * 20]
        key = saved(a={"one": shared, "two": shared}, b=0).session_key
        one, two = SessionStore(key), SessionStore(key)
        two["a"] = "changed"
        two.save()
        one["b"] = 1
        one.save()
        assert dict(SessionStore(key).items()) == {"a": "changed", "b": 1}

    @pytest.mark.django_db(transaction=True)
    def test_side_by_side(self) -> None:
        key = saved().session_key
        barrier = threading.Barrier(2)

        def visit(name: str) -> None:
            try:
                for n in range(20):
                    store = SessionStore(key)
                    store[f"{name}{n}"] = n
                    barrier.wait(30)
                    store.save()
            finally:
                connections.close_all()

        threads = [threading.Thread(target=visit, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(SessionStore(key).items()) == 40


class TestEnding:
    def test_a_save_does_not_revive(self) -> None:
        store = saved(a=1)
        store["a"] = 2
        session_service.invalidate(store.session_key)
        with pytest.raises(UpdateError):
            store.save()
        assert SessionStore(store.session_key).load() == {}

    def test_a_load_does_not_revive(self) -> None:
        ended = saved(a=1)
        ended.delete()
        store = SessionStore(ended.session_key)
        assert store.get("a") is None
        assert store.session_key is None
        store["b"] = 2
        store.save()
        assert is_token(store.session_key)
        assert store.session_key != ended.session_key

    @pytest.mark.parametrize("key", ["x", "something-unknown", "sm1_" + "A" * 64])
    def test_no_foreign_key_is_adopted(self, key: str) -> None:
        store = SessionStore(key)
        store["a"] = 1
        store.load()
        store.save()
        assert store.session_key != key
        assert not store.exists(key)

    @pytest.mark.server_only("it reads the models")
    def test_flush(self) -> None:
        store = saved(a=1)
        key = store.session_key
        store.flush()
        assert (store.session_key, dict(store.items()), store.is_empty()) == (None, {}, True)
        assert not SessionStore().exists(key)
        event = SessionEvent.objects.filter(event="invalidated").first()
        assert event is not None
        assert event.detail == {"reason": "logout"}

    def test_expired(self) -> None:
        store = SessionStore()
        store["a"] = 1
        store.set_expiry(-timedelta(seconds=10))
        store.save()
        assert SessionStore(store.session_key).get("a") is None

    def test_expires_later(self) -> None:
        store = saved(a=1)
        store.set_expiry(timezone_now() - timedelta(seconds=1))
        store.save()
        assert SessionStore(store.session_key).get("a") is None

    @pytest.mark.server_only("it reads the models")
    @pytest.mark.django_db(transaction=True)
    def test_clearsessions(self, superuser: Superuser) -> None:
        ended = SessionStore()
        ended.set_expiry(-1)
        ended.save()
        live = saved(a=1)
        superuser.execute("UPDATE user_sessions SET sweep_at = now() - interval '1 day'")
        with CaptureQueriesContext(connection) as asked:
            call_command("clearsessions")
        assert "session_cleanup" in asked[0]["sql"]
        # The server's own sweep may have had the row.
        wait_for(lambda: not self.is_kept(ended))
        assert self.is_kept(live)

    def is_kept(self, store: SessionStore) -> bool:
        assert store.session_key is not None
        return UserSession.objects.filter(pk=session_id_of(store.session_key)).exists()


def timezone_now() -> datetime:
    return datetime.now(timezone.utc)


def row_of(store: SessionStore) -> Any:
    found = session_service.get(store.session_key, touch=False)
    assert found is not None
    return found


class TestExpiry:
    def remaining(self, store: SessionStore) -> timedelta:
        found: timedelta = row_of(store).expires_at - timezone_now()
        return found

    def test_of_the_settings(self, settings: Any) -> None:
        settings.SESSION_COOKIE_AGE = 3600
        assert abs(self.remaining(saved(a=1)) - timedelta(hours=1)) < timedelta(minutes=1)

    def test_longer_than_the_extension_allows(self, settings: Any) -> None:
        settings.SESSION_COOKIE_AGE = 3600 * 24 * 365
        store = saved(a=1)
        row = row_of(store)
        assert row.expires_at == row.absolute_expires_at
        store["a"] = 2
        store.save()
        assert row_of(store).expires_at == row.expires_at

    @pytest.mark.parametrize("value", [1800, timedelta(seconds=1800), "datetime"])
    def test_of_its_own(self, value: Any) -> None:
        store = saved(a=1)
        store.set_expiry(timezone_now() + timedelta(seconds=1800) if value == "datetime" else value)
        store.save()
        assert abs(self.remaining(store) - timedelta(minutes=30)) < timedelta(minutes=1)
        store = SessionStore(store.session_key)
        assert abs(store.get_expiry_age() - 1800) < 60
        store.set_expiry(None)
        store.save()
        assert self.remaining(store) > timedelta(days=1)

    def test_with_a_new_key(self, user: Any) -> None:
        client = Client()
        client.force_login(user)
        store = client.session
        store.cycle_key()
        store.set_expiry(1800)
        store.save()
        assert abs(self.remaining(store) - timedelta(minutes=30)) < timedelta(minutes=1)
        assert SessionStore(store.session_key)[SESSION_KEY] == str(user.pk)

    def test_a_write_extends_it(self, superuser: Superuser, settings: Any) -> None:
        settings.SESSION_COOKIE_AGE = 1000
        store = saved(a=1)
        before = row_of(store).expires_at
        settings.SESSION_COOKIE_AGE = 2000
        store["a"] = 2
        store.save()
        # By its own lifetime: what a session was given is not made longer by a setting.
        assert before <= row_of(store).expires_at < before + timedelta(seconds=900)


@pytest.mark.server_only("it counts queries")
class TestQueries:
    @pytest.fixture
    def asked(self) -> CaptureQueriesContext:
        return CaptureQueriesContext(connection)

    def test_one_each(self, asked: CaptureQueriesContext) -> None:
        key = saved(a=1).session_key
        with asked:
            store = SessionStore(key)
            assert store["a"] == 1
            assert store.get("b") is None
        assert len(asked) == 1
        store["a"] = 2
        with asked:
            store.save()
        statements = [q["sql"] for q in asked if "SAVEPOINT" not in q["sql"]]
        assert len(statements) == 1, statements
        with asked:
            fresh = SessionStore()
            fresh["a"] = 1
            fresh.save()
        statements = [q["sql"] for q in asked if "SAVEPOINT" not in q["sql"]]
        assert len(statements) == 1, statements

    def test_none_for_a_request_without_a_session(self, asked: CaptureQueriesContext) -> None:
        with asked:
            Client().get("/plain/")
        assert len(asked) == 0

    def test_no_write_for_an_untouched_session(self, asked: CaptureQueriesContext) -> None:
        client = Client()
        client.cookies[django_settings.SESSION_COOKIE_NAME] = str(saved(a=1).session_key)
        with asked:
            response = client.get("/session/")
        assert response.json() == {"a": 1}
        assert len(asked) == 1
        assert django_settings.SESSION_COOKIE_NAME not in response.cookies


class TestGuests:
    def test_each_has_an_id_of_its_own(self) -> None:
        one, two = row_of(saved(a=1)), row_of(saved(a=1))
        assert is_guest(one.user_id)
        assert one.user_id != two.user_id

    def test_no_user_of_the_package_s(self, settings: Any) -> None:
        settings.MIDDLEWARE = [
            *settings.MIDDLEWARE,
            "session_manager.middleware.AuthenticationMiddleware",
        ]
        client = Client()
        client.get("/session/", {"a": 1})
        assert client.get("/session/").json() == {"a": "1"}
        assert client.get("/info/").json()["exists"] is False
        assert client.get("/greeting/").content == b"nobody"
        response = client.get("/api/sessions/current/")
        assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")


class TestLogin:
    @pytest.fixture
    def client(self) -> Client:
        return Client()

    def key(self, client: Client) -> str:
        return client.cookies[django_settings.SESSION_COOKIE_NAME].value

    def sign_in(self, client: Client, **more: Any) -> Any:
        data = {"username": "ada", "password": "of ada", **more}
        return client.post("/accounts/login/", data)

    def test_a_guest_signs_in(self, client: Client, user: Any) -> None:
        client.get("/session/", {"cart": 1})
        guest = self.key(client)
        assert self.sign_in(client).status_code == 302
        token = self.key(client)
        assert token != guest
        assert session_service.get(guest) is None
        row = session_service.get(token)
        assert row is not None
        assert row.user_id == str(user.pk)
        assert row.auth == {"backend": "django.contrib.auth.backends.ModelBackend"}
        assert client.session["cart"] == "1"
        assert client.session[SESSION_KEY] == str(user.pk)

    def test_the_address_is_told(self, client: Client, user: Any) -> None:
        client.post(
            "/accounts/login/",
            {"username": "ada", "password": "of ada"},
            headers={"User-Agent": "Lynx"},
            REMOTE_ADDR="203.0.113.7",
        )
        (listed,) = session_service.list(str(user.pk))
        assert (listed.ip, listed.user_agent) == ("203.0.113.7", "Lynx")

    def test_over_another_user_s_session(self, client: Client, user: Any) -> None:
        other = get_user_model().objects.create_user("eve")
        client.force_login(other)
        client.get("/session/", {"secret": "of eve"})
        before = self.key(client)
        self.sign_in(client)
        assert session_service.get(before) is None
        assert "secret" not in client.session
        assert session_service.count_active(user_id=str(other.pk)) == 0
        assert session_service.count_active(user_id=str(user.pk)) == 1

    def test_sign_out(self, client: Client, user: Any) -> None:
        client.force_login(user)
        before = self.key(client)
        response = client.post("/accounts/logout/")
        assert response.cookies[django_settings.SESSION_COOKIE_NAME].value == ""
        assert session_service.get(before) is None

    def test_revoked_from_elsewhere(self, client: Client, user: Any) -> None:
        client.force_login(user)
        assert client.get("/admin/login/").wsgi_request.user == user
        session_service.invalidate_all(str(user.pk))
        assert client.get("/session/").wsgi_request.user.is_anonymous

    def test_a_password_is_changed(self, client: Client, user: Any) -> None:
        client.force_login(user)
        other = Client()
        other.force_login(user)
        before, row = self.key(client), session_service.get(self.key(client))
        response = client.post(
            "/accounts/password/",
            {
                "old_password": "of ada",
                "new_password1": "tro2ub4dor",
                "new_password2": "tro2ub4dor",
            },
        )
        assert response.status_code == 302
        assert session_service.get(before) is None
        renewed = session_service.get(self.key(client))
        assert renewed is not None
        assert row is not None
        assert renewed.id == row.id
        assert client.get("/session/").wsgi_request.user == user
        assert other.get("/session/").wsgi_request.user.is_anonymous

    def test_the_user_id_is_of_the_settings(
        self, client: Client, user: Any, configure: Callable[..., None]
    ) -> None:
        configure(USER_ID_FIELD="email")
        user.email = "ada@example.com"
        user.save()
        self.sign_in(client)
        assert session_service.count_active(user_id="ada@example.com") == 1
        assert client.get("/info/").json()["user"] == "ada@example.com"
        client.get("/session/", {"a": 1})
        assert session_service.count_active(user_id="ada@example.com") == 1

    @pytest.mark.parametrize("lazy", [False, True])
    def test_a_user_without_that_id(
        self, client: Client, user: Any, configure: Callable[..., None], lazy: bool
    ) -> None:
        """A member of staff whom the identity provider does not know."""
        configure(USER_ID_FIELD="email", LAZY_USER=lazy)
        self.sign_in(client)
        assert session_service.count_active(user_id=f"pk:{user.pk}") == 1
        assert client.get("/session/").wsgi_request.user == user
        assert client.get("/info/").json()["exists"] is False

    def test_a_user_who_does_not_exist(self, configure: Callable[..., None]) -> None:
        configure(USER_ID_FIELD="email")
        for key in ("4711", "no key", None):
            assert is_guest(row_of(saved(**{SESSION_KEY: key})).user_id)

    def test_who_is_signed_out_by_hand(self, client: Client, user: Any) -> None:
        client.force_login(user)
        store = client.session
        del store[SESSION_KEY]
        before = store.session_key
        store.save()
        assert session_service.get(before) is None
        assert is_guest(row_of(store).user_id)


@pytest.mark.django_db(transaction=True)
class TestLimits:
    def test_a_login_that_is_refused_leaves_the_guest(
        self, user: Any, database_setting: Callable[[str, str], None]
    ) -> None:
        database_setting("max_sessions_per_user", "1")
        database_setting("on_limit", "deny")
        session_service.create(str(user.pk))
        client = Client()
        client.get("/session/", {"cart": 1})
        data = {"username": "ada", "password": "of ada"}
        response = client.post("/accounts/login/", data)
        assert response.status_code == 409
        assert len(response.json()["sessions"]) == 1
        assert client.get("/session/").json() == {"cart": "1"}

    def test_guests_do_not_count_for_each_other(
        self, database_setting: Callable[[str, str], None]
    ) -> None:
        database_setting("max_sessions_per_user", "1")
        stores = [saved(n=n) for n in range(3)]
        assert [SessionStore(store.session_key)["n"] for store in stores] == [0, 1, 2]

    def test_too_large(self) -> None:
        client = Client()
        client.get("/session/", {"a": 1})
        assert client.get("/session/", {"b": "x" * 66000}).status_code == 413
        assert client.get("/session/").json() == {"a": "1"}

    def test_a_token_that_has_just_been_replaced(self) -> None:
        """By another request, whose answer has not arrived: both save."""
        client = Client()
        client.get("/session/", {"a": 1})
        before = client.cookies[django_settings.SESSION_COOKIE_NAME].value
        rotated = session_service.refresh(before, rotate=True)
        assert session_service.get(rotated.token) is not None
        assert client.get("/session/", {"b": 2}).json() == {"a": "1", "b": "2"}
        store = SessionStore(rotated.token)
        store["c"] = 3
        store.save()
        assert dict(SessionStore(rotated.token).items()) == {"a": "1", "b": "2", "c": 3}
