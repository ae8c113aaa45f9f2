"""Sessions end with their user, with the user's activity, and with the password."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import connection, models, transaction
from django.db.models import Case, When
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.urls import include, path

from session_manager import user_changes
from session_manager.backends.sessions import SessionStore
from session_manager.conf import ENGINE, settings
from session_manager.login import log_in, update_session_auth_hash
from session_manager.middleware import SessionMiddleware
from session_manager.services import session_service
from session_manager.store.users import login_of
from session_manager.types import MARK

from .conftest import Browser, RedisServer, Superuser
from .pages import run, samples

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

OLD, NEW = "correct horse battery", "staple of a correct horse"


def sign_in(request: HttpRequest) -> HttpResponse:
    log_in(request, get_user_model().objects.get(username=request.GET["user"]), {"plan": "free"})
    return HttpResponse(status=204)


def change_password(request: HttpRequest) -> HttpResponse:
    """A form of the application's own, without the call that keeps the session on demand."""
    user = get_user_model().objects.get(pk=request.user.pk)
    user.set_password(NEW)
    user.save(using=request.GET.get("using"))
    if "keep" in request.GET:
        assert update_session_auth_hash(request, user)
    return HttpResponse(str(request.user.pk))


class OneTransaction:
    """Middleware that wraps all that is inside it into one transaction."""

    alias = "default"

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with transaction.atomic(using=self.alias):
            return self.get_response(request)


class OtherTransaction(OneTransaction):
    """The same of another connection than the sessions'."""

    alias = "admin"


def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.user.username if request.user.is_authenticated else "nobody")


urlpatterns = [
    path("documented/", lambda request: documented(request)),
    path("admin/", admin.site.urls),
    path("accounts/", include("django.contrib.auth.urls")),
    path("api/sessions/", include("session_manager.urls")),
    path("sign-in/", sign_in),
    path("change-password/", change_password),
    path("who/", who),
]


@pytest.fixture(autouse=True)
def _settings(settings: Any, configure: Callable[..., None]) -> None:
    configure(USER_ID_FIELD="username")
    ours = "session_manager.middleware.AuthenticationMiddleware"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, ours]
    settings.AUTH_PASSWORD_VALIDATORS = []


@pytest.fixture
def ada(db: None) -> Any:
    return get_user_model().objects.create_user("ada", "ada@example.com", OLD)


def browser_of(user: Any) -> Browser:
    browser = Browser()
    assert browser.get("/sign-in/", {"user": user.username}).status_code == 204
    return browser


def live(user_id: str) -> int:
    return session_service.count_active(user_id=user_id)


def reasons(user_id: str) -> list[str | None]:
    return [session.ended_reason for session in session_service.list(user_id, include_ended=True)]


class TestActivity:
    def test_by_another_field(self, ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in a model whose is_active is a property over a field of another name."""
        browser_of(ada)
        active = property(lambda user: user.last_name != "gone", lambda user, value: None)
        monkeypatch.setattr(get_user_model(), "is_active", active)
        ada.last_name = "gone"
        ada.save(update_fields=["last_name"])
        assert reasons("ada") == ["user_deactivated"]

    @pytest.mark.parametrize("update_fields", [None, ["is_active"], {"is_active", "email"}])
    def test_deactivated(self, ada: Any, update_fields: Any) -> None:
        browser = browser_of(ada)
        session_service.create("bob")
        ada.is_active = False
        ada.save(update_fields=update_fields)
        assert (live("ada"), live("bob")) == (0, 1)
        assert reasons("ada") == ["user_deactivated"]
        response = browser.get("/api/sessions/current/")
        assert (response.status_code, response.json()["reason"]) == (401, "user_deactivated")
        # Nor do they come back.
        ada.is_active = True
        ada.save()
        assert browser.get("/who/").content == b"nobody"

    def test_only_what_is_saved(self, ada: Any) -> None:
        session_service.create("ada")
        ada.is_active = False
        ada.email = "other@example.com"
        ada.save(update_fields=["email"])
        assert live("ada") == 1
        deferred = get_user_model().objects.only("email").get(pk=ada.pk)
        deferred.save()
        assert live("ada") == 1

    @pytest.mark.parametrize("active", [True, False])
    def test_computed_by_the_database(self, ada: Any, active: bool) -> None:
        browser_of(ada)
        ada.is_active = Case(When(username="nobody", then=not active), default=active)
        ada.save()
        assert live("ada") == int(active)

    def test_what_does_not_matter_costs_nothing(
        self, ada: Any, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(1):
            ada.save(update_fields=["last_login"])
        with django_assert_num_queries(2):
            ada.save()

    def test_in_the_cache_as_well(self, redis_server: RedisServer) -> None:
        ada = get_user_model().objects.create_user("ada")
        token = session_service.create("ada").token
        while (session := session_service.get(token)) is not None and not session.cached:
            pass
        assert session is not None
        ada.is_active = False
        ada.save()
        assert session_service.get(token) is None


class TestDeletion:
    @pytest.mark.parametrize(
        "delete",
        [
            lambda user: user.delete(),
            lambda user: get_user_model().objects.filter(pk=user.pk).delete(),
            lambda user: get_user_model().objects.only("pk").get(pk=user.pk).delete(),
            lambda user: get_user_model().objects.all().delete(),
        ],
    )
    def test_deleted(self, ada: Any, delete: Callable[[Any], Any]) -> None:
        browser = browser_of(ada)
        session_service.create("nobody's")
        delete(ada)
        assert (live("ada"), live("nobody's")) == (0, 1)
        assert reasons("ada") == ["user_deleted"]
        get_user_model().objects.create_user("ada")
        assert browser.get("/who/").content == b"nobody"

    def test_a_new_user_with_the_same_id(self, ada: Any) -> None:
        """Deleted by SQL: nobody was told."""
        browser = browser_of(ada)
        unmarked = session_service.create("ada")
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM auth_user")
        assert live("ada") == 2
        get_user_model().objects.bulk_create([get_user_model()(username="ada")])
        # The password may even be the same: none.
        assert browser.get("/who/").content == b"nobody"
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM auth_user")
        get_user_model().objects.create_user("ada")
        assert session_service.get(unmarked.token) is None

    def test_another_user_id(self, ada: Any) -> None:
        browser_of(ada)
        get_user_model().objects.create_user("bob")
        session_service.create("eve")
        ada.username = "eve"
        ada.save()
        assert (live("ada"), live("eve")) == (0, 0)
        assert reasons("ada") == ["user_id_changed"]

    def test_without_the_extension_a_user_can_be_created(
        self, configure: Callable[..., None], caplog: Any
    ) -> None:
        configure(SCHEMA="nowhere")
        get_user_model().objects.create_user("ada")
        assert get_user_model().objects.count() == 1
        assert "could not be ended" in caplog.text


class TestPassword:
    @pytest.mark.parametrize("update_fields", [None, ["password"]])
    def test_changed(self, ada: Any, update_fields: Any) -> None:
        first, second = browser_of(ada), browser_of(ada)
        ada.set_password(NEW)
        ada.save(update_fields=update_fields)
        assert reasons("ada") == ["password_changed"] * 2
        for browser in (first, second):
            assert browser.get("/who/").content == b"nobody"
        assert browser_of(ada).get("/who/").content == b"ada"

    def test_the_session_in_use_stays(self, ada: Any) -> None:
        here, elsewhere = browser_of(ada), browser_of(ada)
        token = here.token()
        assert here.get("/change-password/?keep=1").status_code == 200
        assert here.token() not in (None, token)
        assert here.get("/who/").content == b"ada"
        assert elsewhere.get("/who/").content == b"nobody"
        session = session_service.get(here.token())
        assert session is not None
        assert (session.data, session.auth) == ({"plan": "free"}, None)
        # The old token is void.
        assert session_service.get(token) is None

    @pytest.mark.django_db(transaction=True)
    def test_the_session_in_use_stays_in_a_transaction_around_the_middleware(
        self, ada: Any, settings: Any
    ) -> None:
        settings.MIDDLEWARE = [f"{__name__}.OneTransaction", *settings.MIDDLEWARE]
        here, elsewhere = browser_of(ada), browser_of(ada)
        assert here.get("/change-password/?keep=1").status_code == 200
        assert here.get("/who/").content == b"ada"
        assert elsewhere.get("/who/").content == b"nobody"
        assert live("ada") == 1

    @pytest.mark.django_db(transaction=True, databases=["default", "admin"])
    def test_the_user_is_saved_over_another_connection(self, ada: Any, settings: Any) -> None:
        """Whose transaction ends after the response."""
        settings.MIDDLEWARE = [f"{__name__}.OtherTransaction", *settings.MIDDLEWARE]
        here, elsewhere = browser_of(ada), browser_of(ada)
        tokens = [browser.token() for browser in (here, elsewhere)]
        assert here.get("/change-password/?using=admin").status_code == 200
        assert [session_service.get(token) for token in tokens] == [None, None]
        assert elsewhere.get("/who/").content == b"nobody"

    def test_unless_nobody_keeps_it(self, ada: Any) -> None:
        """As with Django's own sessions."""
        here = browser_of(ada)
        here.get("/change-password/")
        # Not only for those who compare the mark.
        assert reasons("ada") == ["password_changed"]
        assert here.get("/who/").content == b"nobody"
        assert here.get("/api/sessions/current/").status_code == 401

    def test_another_s_session_is_not_kept(self, ada: Any) -> None:
        bob = get_user_model().objects.create_user("bob")
        browser = browser_of(bob)
        request = browser.get("/who/").wsgi_request
        assert not update_session_auth_hash(request, ada)
        assert browser.get("/who/").content == b"bob"

    def test_without_a_signal(self, ada: Any) -> None:
        """The hash of the password is compared, as in Django's sessions."""
        browser = browser_of(ada)
        ada.set_password(NEW)
        get_user_model().objects.filter(pk=ada.pk).update(password=ada.password)
        assert live("ada") == 1
        assert browser.get("/who/").content == b"nobody"
        assert browser.get("/api/sessions/current/").status_code == 401

    def test_a_new_secret_key(self, ada: Any, settings: Any) -> None:
        browser = browser_of(ada)
        old, settings.SECRET_KEY = settings.SECRET_KEY, "another"
        assert browser.get("/who/").content == b"nobody"
        settings.SECRET_KEY_FALLBACKS = [old]
        assert browser.get("/who/").content == b"ada"

    def test_the_mark_outlives_what_replaces_auth(self, ada: Any) -> None:
        browser = browser_of(ada)
        first = session_service.get(browser.token())
        assert first is not None
        elevated = session_service.elevate(browser.token(), {"amr": ["otp"]}, with_session=True)
        switched = session_service.switch_tenant(elevated.token, "acme", with_session=True)
        for renewed in (elevated, switched):
            assert renewed.session is not None
            assert renewed.session.mark == first.mark is not None
            assert renewed.session.auth == {"amr": ["otp"]}

    def test_the_mark_is_not_shown(self, ada: Any) -> None:
        browser = browser_of(ada)
        assert [listed.auth for listed in session_service.list("ada")] == [None]
        for page in ("current/", ""):
            response = browser.get(f"/api/sessions/{page}")
            assert response.status_code == 200
            assert MARK not in response.content.decode()

    def test_a_hash_of_the_application_s_own(self, ada: Any, monkeypatch: Any) -> None:
        """Django lets a user model say what signs its sessions out."""
        monkeypatch.setattr(User, "get_session_auth_hash", lambda user: user.email)
        session_service.create("ada")
        ada.email = "ada@elsewhere.example.com"
        ada.save(update_fields=["email"])
        assert reasons("ada") == ["password_changed"]


def documented(request: HttpRequest) -> HttpResponse:
    (sample,) = samples("Sessions follow the user")
    view = run(sample, redirect=redirect)["change_password"]
    return view(request) or HttpResponse("the form")


def test_the_documented_form(ada: Any) -> None:
    here, elsewhere = browser_of(ada), browser_of(ada)
    here.handler.enforce_csrf_checks = False
    form = {"old_password": "wrong", "new_password1": NEW, "new_password2": NEW}
    assert here.post("/documented/", form).content == b"the form"
    assert elsewhere.get("/who/").content == b"ada"
    assert here.post("/documented/", {**form, "old_password": OLD}).status_code == 302
    assert here.get("/who/").content == b"ada"
    assert elsewhere.get("/who/").content == b"nobody"


@pytest.mark.django_db(transaction=True)
async def test_a_client_that_does_not_wait(ada: Any) -> None:
    """The session of a password change ends although there is no response."""
    token = (await sync_to_async(session_service.create)("ada")).token
    request = RequestFactory().post("/")
    request.COOKIES[settings.cookie_name] = token

    def change() -> None:
        ada.set_password(NEW)
        ada.save()

    async def view(request: HttpRequest) -> HttpResponse:
        await sync_to_async(change)()
        assert await sync_to_async(session_service.get)(token)
        raise asyncio.CancelledError

    middleware: Any = SessionMiddleware(view)
    with pytest.raises(asyncio.CancelledError):
        await middleware(request)
    assert await sync_to_async(session_service.get)(token) is None


class TestDjangoForms:
    """The admin, and the mail with which a password is reset."""

    @pytest.fixture
    def root(self) -> Client:
        client = Client()
        client.force_login(get_user_model().objects.create_superuser("root"))
        return client

    def test_change_form(self, ada: Any, root: Client) -> None:
        session_service.create("ada")
        # Its clock time in UTC is posted as one of TIME_ZONE's, where it must be there, and once.
        joined = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
        get_user_model().objects.filter(pk=ada.pk).update(date_joined=joined)
        page = f"/admin/auth/user/{ada.pk}/change/"
        form = root.get(page).context["adminform"].form
        data = {name: form[name].value() for name in form.fields}
        del data["date_joined"]
        data.update(
            {
                "is_active": "",
                "date_joined_0": joined.strftime("%Y-%m-%d"),
                "date_joined_1": joined.strftime("%H:%M:%S"),
            }
        )
        response = root.post(page, {k: v for k, v in data.items() if v not in (None, "", [])})
        assert response.status_code == 302, response.context["errors"]
        ada.refresh_from_db()
        assert not ada.is_active
        assert reasons("ada") == ["user_deactivated"]

    def test_password_form(self, ada: Any, root: Client) -> None:
        session_service.create("ada")
        response = root.post(
            f"/admin/auth/user/{ada.pk}/password/",
            {"password1": NEW, "password2": NEW, "usable_password": "true"},
        )
        assert response.status_code == 302
        assert reasons("ada") == ["password_changed"]

    def test_delete_action(self, ada: Any, root: Client) -> None:
        bob = get_user_model().objects.create_user("bob")
        for name in ("ada", "bob"):
            session_service.create(name)
        root.post(
            "/admin/auth/user/",
            {"action": "delete_selected", "_selected_action": [ada.pk, bob.pk], "post": "yes"},
        )
        assert list(get_user_model().objects.values_list("username", flat=True)) == ["root"]
        assert reasons("ada") == reasons("bob") == ["user_deleted"]

    def test_delete_page(self, ada: Any, root: Client) -> None:
        session_service.create("ada")
        root.post(f"/admin/auth/user/{ada.pk}/delete/", {"post": "yes"})
        assert reasons("ada") == ["user_deleted"]

    def test_reset_by_mail(self, ada: Any) -> None:
        browser = browser_of(ada)
        visitor = Client()
        visitor.post("/accounts/password_reset/", {"email": ada.email})
        link = re.search(r"/accounts/reset/\S+", mail.outbox[0].body)
        assert link is not None
        page = visitor.get(link.group(), follow=True).redirect_chain[-1][0]
        visitor.post(page, {"new_password1": NEW, "new_password2": NEW})
        assert ada.__class__.objects.get().check_password(NEW)
        assert reasons("ada") == ["password_changed"]
        assert browser.get("/who/").content == b"nobody"


@pytest.mark.django_db(transaction=True, databases="__all__")
class TestTransactions:
    @pytest.mark.parametrize("using", ["default", "admin"])
    def test_a_rollback_signs_nobody_out(self, ada: Any, using: str) -> None:
        token = session_service.create("ada").token
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=using):
            ada.is_active = False
            ada.save(using=using)
            raise ZeroDivisionError
        assert session_service.get(token) is not None

    def test_neither_without_the_other(self, ada: Any, superuser: Superuser) -> None:
        """Ended before the commit, in the user's transaction."""
        created = session_service.create("ada")
        with transaction.atomic():
            ada.is_active = False
            ada.save()
            assert session_service.get(created.token) is None
            found = superuser.execute(
                "SELECT revoked_at FROM user_sessions WHERE session_id = %s", [str(created.id)]
            )
            assert found.fetchone() == (None,)
        assert session_service.get(created.token) is None

    def test_over_another_connection(self, ada: Any) -> None:
        token = session_service.create("ada").token
        with transaction.atomic(using="admin"):
            ada.is_active = False
            ada.save(using="admin")
            assert session_service.get(token) is not None
        assert session_service.get(token) is None

    def test_over_another_connection_that_finds_no_sessions(
        self, ada: Any, configure: Callable[..., None], caplog: Any
    ) -> None:
        configure(SCHEMA="nowhere")
        ada.is_active = False
        ada.save(using="admin")
        assert not get_user_model().objects.get().is_active
        assert "manage.py check_session_users" in caplog.text


@pytest.mark.usefixtures("ada")
class TestModels:
    def test_proxy(self) -> None:
        with isolate_apps("tests"):

            class Member(User):
                class Meta:
                    proxy = True
                    app_label = "tests"

        user_changes.follow(Member)
        session_service.create("ada")
        member = Member.objects.get()
        member.is_active = False
        member.save()
        assert reasons("ada") == ["user_deactivated"]
        member.is_active = True
        member.save()
        token = session_service.create("ada").token
        member.delete()
        assert session_service.get(token) is None

    def test_inherited(self, ada: Any) -> None:
        with isolate_apps("tests"):

            class Staff(User):
                room = models.TextField()

                class Meta:
                    app_label = "tests"

        user_changes.follow(Staff)
        with connection.schema_editor() as editor:
            editor.create_model(Staff)
        staff = Staff(user_ptr=ada, room="1")
        staff.save_base(raw=True)
        staff = Staff.objects.get()
        token = session_service.create("ada").token
        staff.room = "2"
        staff.save()
        assert session_service.get(token) is not None
        staff.set_password(NEW)
        staff.save()
        assert session_service.get(token) is None
        token = session_service.create("ada").token
        staff.delete()
        assert not User.objects.exists()
        assert session_service.get(token) is None

    def test_receivers_of_the_user_model_alone(self) -> None:
        """Others are deleted without being loaded first."""
        from django.contrib.sessions.models import Session
        from django.db.models.signals import post_delete, pre_save

        for signal in (post_delete, pre_save):
            assert signal.has_listeners(User)
            assert not signal.has_listeners(Session)


@pytest.mark.usefixtures("ada")
class TestSwitches:
    def test_subjects_of_an_issuer(self, ada: Any, configure: Callable[..., None]) -> None:
        """A subject that looks like a user's key is somebody else."""
        configure(USER_ID_FIELD=None)
        session_service.create(str(ada.pk))
        ada.set_password(NEW)
        ada.is_active = False
        ada.save()
        key = str(ada.pk)
        ada.delete()
        assert live(key) == 1

    @pytest.mark.parametrize(
        ("switch", "change"),
        [
            ("END_ON_USER_DELETED", lambda user: user.delete()),
            ("END_ON_USER_DEACTIVATED", lambda user: setattr(user, "is_active", False)),
            ("END_ON_PASSWORD_CHANGED", lambda user: user.set_password(NEW)),
        ],
    )
    def test_off(
        self,
        ada: Any,
        configure: Callable[..., None],
        switch: str,
        change: Callable[[Any], None],
    ) -> None:
        configure(**{switch: False})
        token = browser_of(ada).token()
        change(ada)
        if ada.pk is not None:
            ada.save()
        assert session_service.get(token) is not None

    def test_no_password_compared(self, ada: Any, configure: Callable[..., None]) -> None:
        configure(END_ON_PASSWORD_CHANGED=False)
        browser = browser_of(ada)
        session = session_service.get(browser.token())
        assert session is not None
        assert session.mark is None
        ada.set_password(NEW)
        ada.save()
        assert browser.get("/who/").content == b"ada"


class TestRequestSession:
    """Users signed in by Django's login, whose session is the extension's."""

    @pytest.fixture(autouse=True)
    def _engine(self, settings: Any) -> None:
        settings.SESSION_ENGINE = ENGINE
        django, ours = (
            "django.contrib.sessions.middleware.SessionMiddleware",
            "session_manager.middleware.RequestSessionMiddleware",
        )
        settings.MIDDLEWARE = [
            ours if name == django else name
            for name in settings.MIDDLEWARE
            if not name.startswith("session_manager.")
        ]

    def sign_in(self, password: str = OLD) -> Client:
        client = Client()
        form = {"username": "ada", "password": password}
        assert client.post("/accounts/login/", form).status_code == 302
        assert client.get("/who/").content == b"ada"
        return client

    def test_deactivated(self, ada: Any) -> None:
        client = self.sign_in()
        ada.is_active = False
        ada.save()
        assert "user_deactivated" in reasons("ada")
        assert client.get("/who/").content == b"nobody"

    @pytest.mark.parametrize("alone", [False, True], ids=["ours", "Django's alone"])
    def test_kept_only_if_asked_for(self, ada: Any, settings: Any, alone: bool) -> None:
        if alone:
            settings.MIDDLEWARE = [
                "django.contrib.sessions.middleware.SessionMiddleware"
                if name.startswith("session_manager.")
                else name
                for name in settings.MIDDLEWARE
            ]
        here = self.sign_in()
        form = {"old_password": OLD, "new_password1": NEW, "new_password2": NEW}
        assert here.post("/accounts/password_change/", form).status_code == 302
        assert here.get("/who/").content == b"ada"
        assert live("ada") == 1
        get_user_model().objects.update(password="")
        here = self.sign_in_again(ada)
        here.get("/change-password/")
        assert live("ada") == 0

    def sign_in_again(self, user: Any) -> Client:
        client = Client()
        user.refresh_from_db()
        session_service.invalidate_all("ada")
        client.force_login(user)
        assert live("ada") == 1
        return client

    def test_password_form(self, ada: Any) -> None:
        """Django's own view, which calls Django's update_session_auth_hash."""
        here, elsewhere = self.sign_in(), self.sign_in()
        form = {"old_password": OLD, "new_password1": NEW, "new_password2": NEW}
        assert here.post("/accounts/password_change/", form).status_code == 302
        assert here.get("/who/").content == b"ada"
        assert elsewhere.get("/who/").content == b"nobody"
        assert live("ada") == 1
        # The session's mark is of the new password.
        assert "0 sessions ended" in TestCommand().run()

    def test_changed_without_a_signal(self, ada: Any) -> None:
        """Found by the command, before somebody comes with the cookie."""
        self.sign_in()
        guest = SessionStore()
        guest["cart"] = [1]
        guest.save()
        users = get_user_model().objects
        assert "0 sessions ended" in TestCommand().run()
        users.update(password="changed")
        assert "1 users with live sessions, 1 sessions ended" in TestCommand().run()
        assert "password_changed" in reasons("ada")

    @pytest.mark.parametrize("field", ["last_login", "last_name"])
    def test_a_user_without_an_id(self, configure: Callable[..., None], field: str) -> None:
        """The session is by the primary key where the field is null, or an empty text."""
        configure(USER_ID_FIELD=field)
        user = get_user_model().objects.create_user("ada")
        store = SessionStore()
        store.update(login_of(user))
        store.save()
        session = session_service.get(store.session_key)
        assert session is not None
        assert session.user_id == f"pk:{user.pk}"
        assert "1 users with live sessions, 0 sessions ended" in TestCommand().run()
        user.is_active = False
        user.save(update_fields=["is_active"])
        assert reasons(session.user_id) == ["user_deactivated"]

    def test_a_user_who_gets_an_id(self, configure: Callable[..., None]) -> None:
        configure(USER_ID_FIELD="last_name")
        user = get_user_model().objects.create_user("ada")
        store = SessionStore()
        store.update(login_of(user))
        store.save()
        user.last_name = "auth0|ada"
        user.save()
        assert reasons(f"pk:{user.pk}") == ["user_id_changed"]


def test_by_an_access_token(auth0: Any, configure: Callable[..., None]) -> None:
    """Sessions of the endpoint are marked as well."""
    configure(ON_LOGIN="tests.hooks.on_login_that_writes")
    browser = Browser()
    header = {"Authorization": f"Bearer {auth0.token('auth0|ada')}"}
    assert browser.unsafe("POST", "/api/sessions/create/", headers=header).status_code == 201
    user = get_user_model().objects.get()
    session = session_service.get(browser.token())
    assert session is not None
    assert session.mark is not None
    assert session.mark.endswith(str(user.pk))
    user.is_active = False
    user.save()
    assert browser.get("/api/sessions/current/").json()["reason"] == "user_deactivated"


class TestCommand:
    def run(self, *arguments: str) -> str:
        from io import StringIO

        out = StringIO()
        call_command("check_session_users", *arguments, stdout=out, stderr=StringIO())
        return out.getvalue()

    def prepare(self) -> dict[str, Any]:
        users = get_user_model().objects
        users.bulk_create(users.model(username=name) for name in ("kept", "off", "other", "gone"))
        browsers = {name: browser_of(users.get(username=name)) for name in ("kept", "other")}
        for name in ("off", "off", "gone", "kept"):
            session_service.create(name)
        users.filter(username="off").update(is_active=False)
        users.filter(username="other").update(password="changed")
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM auth_user WHERE username = 'gone'")
        return browsers

    def test_what_no_signal_told(self) -> None:
        browsers = self.prepare()
        browsers["new"] = browser_of(get_user_model().objects.get(username="other"))
        dry = self.run("--dry-run", "--batch", "2")
        assert "4 users with live sessions, 4 sessions would end" in dry
        assert (live("off"), live("gone"), live("other"), live("kept")) == (2, 1, 2, 2)
        told = self.run("--batch", "2", "--verbosity", "2")
        assert "4 users with live sessions, 4 sessions ended" in told
        assert re.search(r"off +user_deactivated +2", told)
        assert (live("off"), live("gone"), live("other"), live("kept")) == (0, 0, 1, 2)
        assert reasons("gone") == ["user_deleted"]
        # The one that was made with the new password.
        assert browsers["new"].get("/who/").content == b"other"
        assert "0 sessions ended" in self.run()

    def test_a_name_that_no_form_would_take(self) -> None:
        """As the subjects of an identity provider."""
        users = get_user_model().objects
        user = users.create_user("auth0|ada")
        browser_of(user)
        users.update(password="changed")
        assert "1 sessions ended" in self.run()

    def test_fixtures(self, tmp_path: Path, ada: Any) -> None:
        """loaddata tells nobody, as the rest of the data may not be there yet."""
        session_service.create("ada")
        fields = {"username": "ada", "password": "!", "is_active": False}
        file = tmp_path / "users.json"
        file.write_text(json.dumps([{"model": "auth.user", "pk": ada.pk, "fields": fields}]))
        call_command("loaddata", str(file), verbosity=0)
        assert live("ada") == 1
        assert "1 sessions ended" in self.run()

    def test_case_may_not_matter(self, ada: Any, configure: Callable[..., None]) -> None:
        """What a request takes for the user's session is one."""
        configure(USER_ID_FIELD="pk")
        token = session_service.create(f"0{ada.pk}").token
        assert "0 sessions ended" in self.run()
        assert session_service.get(token) is not None
        session_service.create("no number")
        session_service.create("9" * 40)
        assert "2 sessions ended" in self.run()

    def test_by_a_loader(self, ada: Any, configure: Callable[..., None]) -> None:
        configure(USER_ID_FIELD=None, USER_LOADER="tests.hooks.load_by_name")
        session_service.create("ada")
        session_service.create("eve")
        assert "1 sessions ended" in self.run()
        assert (live("ada"), live("eve")) == (1, 0)

    def test_switched_off(self, configure: Callable[..., None]) -> None:
        self.prepare()
        configure(END_ON_USER_DELETED=False, END_ON_PASSWORD_CHANGED=False)
        assert "2 sessions ended" in self.run()
        assert (live("off"), live("gone"), live("other")) == (0, 1, 1)

    def test_nobody_to_look_up(self, configure: Callable[..., None]) -> None:
        configure(USER_ID_FIELD=None)
        with pytest.raises(CommandError, match="USER_ID_FIELD"):
            self.run()
        configure(USER_ID_FIELD="username")
        with pytest.raises(CommandError, match="--batch"):
            self.run("--batch", "0")

    def test_queries_by_batch_and_not_by_user(self) -> None:
        users = get_user_model().objects
        users.bulk_create(users.model(username=f"u{n:03}") for n in range(120))
        for n in range(120):
            session_service.create(f"u{n:03}")
        with CaptureQueriesContext(connection) as captured:
            assert "120 users with live sessions, 0 sessions ended" in self.run("--batch", "50")
        # The number of users; for each batch the users' ids, marks and rows; the end.
        assert len(captured) == 1 + 3 * 3 + 1
