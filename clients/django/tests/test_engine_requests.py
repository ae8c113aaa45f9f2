"""request.session in requests: beside this package's own session, in transactions, in an outage.

Django's middleware and views are Django's own; the cookie and the row are the same for all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import django
import pytest
from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth import SESSION_KEY, get_user_model, login, logout
from django.contrib.auth import update_session_auth_hash as auth_hash_of_django
from django.contrib.auth.views import PasswordChangeView
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.urls import include, path
from rest_framework.authentication import SessionAuthentication as DRFSessionAuthentication
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

if django.VERSION >= (5, 0):
    from django.contrib.auth import alogin

from session_manager.backends.sessions import SessionStore
from session_manager.conf import settings as ours
from session_manager.login import log_in, log_out, update_session_auth_hash
from session_manager.models import ImportedSession, SessionEvent
from session_manager.services import session_service

from .conftest import RedisServer, wait_for
from .test_failures import Server, server  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)

COOKIE = "sessionid"
DJANGO_SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
OURS = "session_manager.middleware.RequestSessionMiddleware"
OUR_USERS = "session_manager.middleware.AuthenticationMiddleware"


def act(request: HttpRequest) -> HttpResponse:
    """What the query string says, one thing after the other."""
    for action in request.GET["do"].split(","):
        name, _, value = action.partition("=")
        if name == "in":
            login(request, get_user_model().objects.get(username=value))
        elif name == "out":
            logout(request)
        elif name == "our-in":
            log_in(request, get_user_model().objects.get(username=value), {"plan": "free"})
        elif name in ("remembered-in", "forgotten-in"):
            user = get_user_model().objects.get(username=value)
            log_in(request, user, remember=name == "remembered-in")
        elif name == "act-as":
            log_in(request, get_user_model().objects.get(username=value), actor=request.user)
        elif name == "our-out":
            log_out(request)
        elif name == "password":
            user = get_user_model().objects.get(pk=request.user.pk)
            user.set_password(value)
            user.save()
            update = update_session_auth_hash if "ours" in request.GET else auth_hash_of_django
            update(request, user)
        elif name == "save":
            request.session.save()
        elif name == "look":
            bool(request.session_info)
        elif name == "say":
            messages.info(request, value)
        elif name == "revoke":
            session_service.invalidate(request.COOKIES[COOKIE])
        elif name == "rotate":
            # What another request of the browser does meanwhile, and uses.
            newer = session_service.refresh(request.COOKIES[COOKIE], rotate=True).token
            assert session_service.get(newer) is not None
        elif name == "wait":
            time.sleep(float(value))
        elif name == "fail":
            raise ValidationError
        else:
            request.session[name] = value
    info = request.session_info
    return JsonResponse(
        {
            "user": request.user.get_username(),
            "session_info": info.user_id,
            "data": info.data,
            "session": {k: v for k, v in request.session.items() if not k.startswith("_")},
            "said": [str(message) for message in messages.get_messages(request)]
            if "read" in request.GET
            else None,
        }
    )


def remembers_the_last_path(get_response: Any) -> Any:
    """A middleware of an application's."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = get_response(request)
        request.session["last_path"] = request.path
        return response

    return middleware


class API(APIView):
    """DRF's own authentication; DRF rolls ATOMIC_REQUESTS back when it answers an error."""

    authentication_classes = [DRFSessionAuthentication]
    permission_classes: list[Any] = []

    def get(self, request: Request) -> Response:
        act(request._request)
        return Response({"user": request.user.get_username()})


class Members(API):
    permission_classes = [IsAuthenticated]

    def post(self, request: Request) -> Response:
        return Response({"user": request.user.get_username()})


def changes_and_breaks(request: HttpRequest) -> HttpResponse:
    """The answer cannot be finished: the session cannot be saved."""
    request.user.set_password("tbr31-x")
    request.user.save()
    request.session["x"] = object()
    return HttpResponse()


async def aact(request: HttpRequest) -> HttpResponse:
    """The asynchronous methods of request.session, since Django 5.1."""
    if "in" in request.GET:
        await alogin(request, await get_user_model().objects.aget(username=request.GET["in"]))
    await request.session.aset("visits", await request.session.aget("visits", 0) + 1)
    if "cycle" in request.GET:
        await request.session.acycle_key()
    if "flush" in request.GET:
        await request.session.aflush()
    return JsonResponse(dict(await request.session.aitems()))


def samples(section: str) -> list[str]:
    """The blocks of Python in a section of docs/django.md."""
    page = (Path(__file__).parents[3] / "docs" / "django.md").read_text()
    return re.findall(
        r"```python\n(.*?)```", page.split(f"\n## {section}\n")[1].split("\n## ")[0], re.S
    )


SETTINGS, VIEWS = samples("request.session")
documented: dict[str, Any] = {"__name__": __name__, "JsonResponse": JsonResponse}
exec(VIEWS, documented)

urlpatterns = [
    path("devices/", documented["devices"]),
    path("elsewhere/", documented["sign_out_elsewhere"]),
    path("act/", act),
    path("aact/", aact),
    path("changes-and-breaks/", changes_and_breaks),
    path("password/", PasswordChangeView.as_view(success_url="/act/?do=look")),
    path("api/", API.as_view()),
    path("members-api/", Members.as_view()),
    path("", include("tests.urls")),
]


@pytest.fixture(autouse=True)
def _engine(settings: Any) -> None:
    """As docs/django.md has it; and the package's own middleware behind Django's."""
    settings.ROOT_URLCONF = __name__
    values: dict[str, Any] = {"INSTALLED_APPS": [], "MIDDLEWARE": settings.MIDDLEWARE}
    exec(SETTINGS, values)
    assert values["INSTALLED_APPS"] == ["session_manager"]
    settings.SESSION_ENGINE = values["SESSION_ENGINE"]
    settings.MIDDLEWARE = [*values["MIDDLEWARE"], OUR_USERS]


@pytest.fixture
def users() -> dict[str, Any]:
    return {
        name: get_user_model().objects.create_superuser(name, password=f"of {name}")
        for name in ("ada", "eve")
    }


@pytest.fixture
def atomic_requests() -> Iterator[None]:
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


@pytest.fixture
def asked() -> CaptureQueriesContext:
    return CaptureQueriesContext(connection)


def token(client: Client | AsyncClient) -> str | None:
    morsel = client.cookies.get(COOKIE)
    return morsel.value if morsel and morsel.value else None


def count(user: Any) -> int:
    return session_service.count_active(user_id=str(user.pk))


def post(client: Client, path: str) -> Any:
    return client.post(
        path, content_type="application/json", headers={"Sec-Fetch-Site": "same-origin"}
    )


def do(client: Client, what: str, path: str = "/act/", **more: Any) -> Any:
    return client.get(path, {"do": what, **more})


class TestOneSession:
    """One cookie, one row, whichever way it came to be."""

    def test_django_signs_in(self, users: dict[str, Any]) -> None:
        client = Client()
        do(client, "cart=1")
        guest = token(client)
        response = do(client, "in=ada")
        assert response.json()["session"] == {"cart": "1"}
        ada = str(users["ada"].pk)
        found = do(client, "look").json()
        assert found["session_info"] == ada
        assert found["user"] == "ada"
        # Of Django's keys there is nothing in the application's own data.
        assert found["data"] == {}
        assert session_service.get(guest) is None
        assert count(users["ada"]) == 1
        current = client.get("/api/sessions/current/").json()
        assert current["user"]["id"] == ada
        assert current["session"]["data"] == {}

    def test_django_s_login_is_seen_once_it_is_saved(self, users: dict[str, Any]) -> None:
        found = do(Client(), "in=ada,save,look").json()
        assert found["session_info"] == str(users["ada"].pk)

    def test_this_package_signs_in(self, users: dict[str, Any]) -> None:
        client = Client()
        do(client, "cart=1")
        guest = token(client)
        found = do(client, "our-in=ada,more=2").json()
        assert found["session"] == {"cart": "1", "more": "2"}
        assert found["data"] == {"plan": "free"}
        assert session_service.get(guest) is None
        assert count(users["ada"]) == 1
        store = SessionStore(token(client))
        assert store[SESSION_KEY] == str(users["ada"].pk)
        assert do(client, "look").json()["session"] == {"cart": "1", "more": "2"}
        # Django's own authentication alone.
        response = do(client, "look", "/api/")
        assert response.json() == {"user": "ada"}

    @pytest.mark.parametrize("first", ["in", "our-in"])
    @pytest.mark.parametrize("second", ["in", "our-in"])
    def test_one_after_the_other(self, users: dict[str, Any], first: str, second: str) -> None:
        """Another user finds nothing of the first one's."""
        client = Client()
        do(client, f"{first}=ada,secret=1")
        before = token(client)
        do(client, f"{second}=eve")
        assert session_service.get(before) is None
        found = do(client, "look").json()
        assert (found["user"], found["session"]) == ("eve", {})
        assert count(users["ada"]) == 0

    def test_a_session_that_no_login_of_django_s_made(self, users: dict[str, Any]) -> None:
        """Another user finds nothing of it, either, but what comes with the login."""
        client = Client()
        client.cookies[COOKIE] = session_service.create(str(users["ada"].pk)).token
        do(client, "secret=1,kept=1")
        do(client, "saved=1,save,kept=2,in=eve,new=3")
        found = do(client, "look").json()
        assert (found["user"], found["session"]) == ("eve", {"kept": "2", "new": "3"})
        assert count(users["ada"]) == 0

    @pytest.mark.parametrize("first", ["in", "our-in"])
    @pytest.mark.parametrize("last", ["out", "our-out"])
    def test_out(self, users: dict[str, Any], first: str, last: str) -> None:
        client = Client()
        do(client, f"{first}=ada,secret=1")
        before = token(client)
        found = do(client, last).json()
        assert (found["user"], found["session"], found["session_info"]) == ("", {}, None)
        assert token(client) is None
        assert session_service.get(before) is None

    @pytest.mark.parametrize("last", ["out", "our-out"])
    def test_a_message_after_the_sign_out(
        self, users: dict[str, Any], settings: Any, last: str
    ) -> None:
        settings.MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
        client = Client()
        do(client, "in=ada,secret=1")
        do(client, f"{last},say=goodbye")
        found = do(client, "look", read=1).json()
        assert (found["user"], found["said"], found["session"]) == ("", ["goodbye"], {})

    def test_the_api_rotates_and_request_session_goes_on(
        self, users: dict[str, Any], settings: Any
    ) -> None:
        settings.SESSION_SAVE_EVERY_REQUEST = True
        client = Client()
        do(client, "in=ada,cart=1")
        before = token(client)
        response = post(client, "/api/sessions/refresh/")
        assert response.status_code == 200, response.content
        assert token(client) not in (None, before)
        assert do(client, "look").json()["session"] == {"cart": "1"}

    def test_everywhere_else_and_here(self, users: dict[str, Any], settings: Any) -> None:
        settings.SESSION_SAVE_EVERY_REQUEST = True
        client = Client()
        do(client, "in=ada")
        response = post(client, "/api/sessions/invalidate-all/")
        assert (response.status_code, token(client)) == (200, None)

    @pytest.mark.parametrize("how", ["everywhere", "from the list"])
    def test_what_is_kept_after_a_sign_out_is_a_guest_s(
        self, users: dict[str, Any], settings: Any, how: str
    ) -> None:
        """A middleware of the application's writes into request.session behind the endpoint."""
        settings.MIDDLEWARE = [
            *settings.MIDDLEWARE,
            "tests.test_engine_requests.remembers_the_last_path",
        ]
        client = Client()
        do(client, "in=ada,cart=1")
        before = token(client)
        if how == "everywhere":
            response = post(client, "/api/sessions/invalidate-all/")
        else:
            (session,) = session_service.list(str(users["ada"].pk))
            response = client.delete(
                f"/api/sessions/{session.id}/", headers={"Sec-Fetch-Site": "same-origin"}
            )
        assert response.status_code < 300, response.content
        assert count(users["ada"]) == 0
        assert token(client) not in (None, before)
        found = do(client, "look").json()
        assert (found["user"], list(found["session"])) == ("", ["last_path"])

    def test_another_tenant(self, users: dict[str, Any], configure: Callable[..., None]) -> None:
        configure(ON_SWITCH_TENANT="tests.hooks.on_switch_tenant")
        client = Client()
        do(client, "in=ada,cart=1")
        response = client.post(
            "/api/sessions/tenant/",
            {"tenant_id": "globex"},
            content_type="application/json",
            headers={"Sec-Fetch-Site": "same-origin"},
        )
        assert response.status_code == 200, response.content
        found = do(client, "look").json()
        # The user is still signed in; the one tenant's data does not reach the other.
        assert (found["user"], found["session"]) == ("ada", {})

    def test_no_browser_writes_django_s_keys(
        self, users: dict[str, Any], configure: Callable[..., None]
    ) -> None:
        client = Client()
        do(client, "in=ada")
        response = client.patch(
            "/api/sessions/current/",
            {"_django": {"_auth_user_id": f'{{"_auth_user_id":"{users["eve"].pk}"}}'}},
            content_type="application/json",
            headers={"Sec-Fetch-Site": "same-origin"},
        )
        assert (response.status_code, response.json()["code"]) == (400, "protected_data")
        configure(CLIENT_DATA=["client", "_django"])
        assert [m.id for m in run_checks(tags=["session_manager"])] == ["session_manager.E001"]

    def test_one_look_up_for_both(
        self, users: dict[str, Any], asked: CaptureQueriesContext
    ) -> None:
        client = Client()
        do(client, "in=ada")
        with asked:
            assert do(client, "look").json()["user"] == "ada"
        statements = [query["sql"] for query in asked]
        assert sum("session_get" in sql for sql in statements) == 1
        # The other one is the user.
        assert len(statements) == 2, statements

    @pytest.mark.parametrize("first", ["in", "our-in"])
    @pytest.mark.parametrize("whose", ["ours", "django's"])
    @pytest.mark.parametrize("lazy", [False, True])
    def test_a_new_password(
        self,
        users: dict[str, Any],
        first: str,
        whose: str,
        lazy: bool,
        configure: Callable[..., None],
    ) -> None:
        configure(LAZY_USER=lazy)
        client, other = Client(), Client()
        for one in (client, other):
            do(one, f"{first}=ada,cart=1")
        before = token(client)
        answer = do(client, "password=another,more=2", **{whose: 1})
        assert (answer.status_code, answer.json()["user"]) == (200, "ada")
        assert session_service.get(before) is None
        found = do(client, "look").json()
        assert (found["user"], found["session"]) == ("ada", {"cart": "1", "more": "2"})
        assert found["session_info"] == str(users["ada"].pk)
        # Django's own authentication alone.
        assert do(client, "look", "/api/").json() == {"user": "ada"}
        assert do(other, "look").json()["user"] == ""
        assert count(users["ada"]) == 1

    def test_the_password_has_changed(self, users: dict[str, Any]) -> None:
        """Also for the package's own authentication, which does not ask Django's."""
        client = Client()
        do(client, "in=ada")
        users["ada"].set_password("another")
        users["ada"].save()
        assert do(client, "look").json()["user"] == ""
        assert client.get("/protected/").status_code == 401


class TestTransactions:
    @pytest.mark.usefixtures("atomic_requests")
    @pytest.mark.parametrize("what", ["in=ada", "in=ada,save", "cart=1,save,in=ada,save"])
    def test_an_answer_that_rolls_back(self, users: dict[str, Any], what: str) -> None:
        """request.session is saved after the view's transaction, as with Django's own stores."""
        client = Client()
        do(client, "guest=1")
        guest = token(client)
        assert do(client, f"{what},fail", "/api/").status_code == 400
        found = do(client, "look").json()
        assert (found["user"], found["session"]["guest"]) == ("ada", "1")
        assert session_service.get(guest) is None
        assert count(users["ada"]) == 1

    @pytest.mark.usefixtures("atomic_requests")
    def test_what_was_saved_and_rolled_back_is_saved_again(self, users: dict[str, Any]) -> None:
        client = Client()
        do(client, "a=1")
        before = token(client)
        assert do(client, "b=2,save,fail", "/api/").status_code == 400
        assert token(client) == before
        assert do(client, "look").json()["session"] == {"a": "1", "b": "2"}

    @pytest.mark.usefixtures("atomic_requests")
    @pytest.mark.parametrize("last", ["out", "our-out"])
    def test_a_sign_out_that_is_rolled_back(self, users: dict[str, Any], last: str) -> None:
        """The session lives, so the browser keeps it."""
        client = Client()
        do(client, "in=ada,a=1")
        before = token(client)
        assert do(client, f"{last},fail", "/api/").status_code == 400
        assert token(client) == before
        assert do(client, "look").json()["user"] == "ada"

    @pytest.mark.usefixtures("atomic_requests")
    def test_another_login_whose_flush_is_rolled_back(self, users: dict[str, Any]) -> None:
        client = Client()
        do(client, "in=ada")
        before = token(client)
        assert do(client, "in=eve,fail", "/api/").status_code == 400
        assert do(client, "look").json()["user"] == "eve"
        assert session_service.get(before) is None

    @pytest.mark.usefixtures("atomic_requests")
    def test_this_package_s_login_rolled_back(self, users: dict[str, Any]) -> None:
        client = Client()
        do(client, "a=1")
        before = token(client)
        assert do(client, "our-in=ada,b=2,fail", "/api/").status_code == 400
        assert token(client) == before
        found = do(client, "look").json()
        assert (found["user"], found["session"]["a"]) == ("", "1")
        assert count(users["ada"]) == 0

    @pytest.mark.usefixtures("atomic_requests")
    @pytest.mark.parametrize("last", ["our-in=ada", "our-out"])
    def test_what_was_written_before_it(self, users: dict[str, Any], last: str) -> None:
        client = Client()
        do(client, "a=1")
        assert do(client, f"b=2,{last},fail", "/api/").status_code == 400
        assert do(client, "look").json()["session"] == {"a": "1", "b": "2"}

    def test_an_error_of_the_server_s_saves_nothing(self, users: dict[str, Any]) -> None:
        client = Client(raise_request_exception=False)
        do(client, "a=1")
        before = token(client)
        assert do(client, "b=2,in=nobody").status_code == 500
        assert token(client) == before
        assert do(client, "look").json()["session"] == {"a": "1"}


class TestSaving:
    def test_every_request(self, settings: Any, asked: CaptureQueriesContext) -> None:
        client = Client()
        assert do(client, "look").cookies == {}
        do(client, "a=1")
        settings.SESSION_SAVE_EVERY_REQUEST = True
        with asked:
            response = do(client, "look")
        assert response.cookies == {}
        # Its end has not moved by a hundredth of its life: the load alone.
        assert len(asked) == 1, [query["sql"] for query in asked]

    def test_a_slow_request_leaves_a_newer_cookie_alone(self, settings: Any) -> None:
        client = Client()
        do(client, "a=1")
        assert do(client, "look,rotate,b=2").cookies == {}

    def test_a_slow_request_is_no_theft(
        self,
        users: dict[str, Any],
        settings: Any,
        database_setting: Callable[[str, str], None],
    ) -> None:
        """Its token has been replaced meanwhile, and the grace is over when it is saved."""
        settings.SESSION_SAVE_EVERY_REQUEST = True
        settings.SESSION_COOKIE_AGE = 60
        client = Client()
        do(client, "in=ada")
        database_setting("rotation_grace", "1s")
        response = do(client, "look,rotate,wait=2")
        assert (response.status_code, response.cookies) == (200, {})
        assert not SessionEvent.objects.filter(event="token_reused").exists()
        assert count(users["ada"]) == 1

    def test_every_request_extends(self, settings: Any) -> None:
        settings.SESSION_SAVE_EVERY_REQUEST = True
        client = Client()
        do(client, "a=1")
        session_service.refresh(token(client), ttl=ours.TTL / 10)
        do(client, "look")
        row = session_service.get(token(client))
        assert row is not None
        assert row.expires_at == row.absolute_expires_at

    def test_until_the_browser_is_closed(self, settings: Any) -> None:
        response = do(Client(), "a=1")
        assert response.cookies[COOKIE]["max-age"] == settings.SESSION_COOKIE_AGE
        settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = True
        response = do(Client(), "a=1")
        assert response.cookies[COOKIE]["max-age"] == ""

    def test_django_s_settings_of_the_cookie(self, settings: Any) -> None:
        settings.SESSION_COOKIE_NAME = "__Host-sid"
        settings.SESSION_COOKIE_SECURE = True
        settings.SESSION_COOKIE_SAMESITE = "Strict"
        cookie = do(Client(), "a=1").cookies["__Host-sid"]
        assert (cookie["secure"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
        assert cookie["httponly"]

    def test_revoked_meanwhile(self) -> None:
        client = Client()
        do(client, "a=1")
        before = token(client)
        response = do(client, "look,revoke,a=2")
        assert response.status_code == 400
        assert session_service.get(before) is None

    def test_a_sign_out_of_nobody(self) -> None:
        assert COOKIE not in do(Client(), "out").cookies

    def test_a_sign_out_asks_once(
        self, users: dict[str, Any], asked: CaptureQueriesContext
    ) -> None:
        client = Client()
        do(client, "in=ada")
        with asked:
            client.delete("/api/sessions/current/", headers={"Sec-Fetch-Site": "same-origin"})
        assert token(client) is None
        assert len(asked) == 1, [query["sql"] for query in asked]

    def test_a_dead_cookie_is_left_alone(self) -> None:
        """When the answer arrives, the browser may hold a newer one."""
        client = Client()
        do(client, "a=1")
        session_service.invalidate(token(client))
        response = do(client, "look")
        assert response.json()["session"] == {}
        assert COOKIE not in response.cookies

    def test_caches(self) -> None:
        client = Client()
        assert do(client, "a=1")["Cache-Control"] == "private, no-store"
        response = do(client, "look")
        assert (response["Cache-Control"], response["Vary"]) == ("private", "Cookie")


class TestDjango:
    """What others build on request.session."""

    def test_admin(self, users: dict[str, Any]) -> None:
        client = Client()
        response = client.post(
            "/admin/login/?next=/admin/", {"username": "ada", "password": "of ada"}
        )
        assert response.status_code == 302
        assert client.get("/admin/").status_code == 200
        listed = client.get("/admin/session_manager/usersession/")
        assert b"ada" in listed.content
        response = client.post(
            "/admin/password_change/",
            {
                "old_password": "of ada",
                "new_password1": "tro2ub4dor",
                "new_password2": "tro2ub4dor",
            },
        )
        assert response.status_code == 302
        assert client.get("/admin/").status_code == 200
        assert client.post("/admin/logout/").status_code == 200
        assert client.get("/admin/").status_code == 302

    def test_devices(self, users: dict[str, Any]) -> None:
        """As in docs/django.md."""
        client, other = Client(headers={"User-Agent": "Lynx"}), Client()
        for one in (client, other):
            do(one, "in=ada")
        found = client.get("/devices/").json()["devices"]
        assert (len(found), found.count("Lynx")) == (2, 1)
        assert client.get("/elsewhere/").json() == {"ended": 1}
        assert do(client, "look").json()["user"] == "ada"
        assert do(other, "look").json()["user"] == ""

    def test_drf_s_own_authentication(self, users: dict[str, Any]) -> None:
        client = Client(enforce_csrf_checks=True)
        assert client.post("/members-api/").status_code == 403
        client.force_login(users["ada"])
        assert client.post("/members-api/").status_code == 403
        client.cookies["csrftoken"] = "a" * 32
        response = client.post("/members-api/", headers={"X-CSRFToken": "a" * 32})
        assert response.json() == {"user": "ada"}

    def test_csrf_tokens_in_the_session(self, users: dict[str, Any], settings: Any) -> None:
        settings.CSRF_USE_SESSIONS = True
        client = Client(enforce_csrf_checks=True)
        page = client.get("/admin/login/").content.decode()
        secret = page.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]
        data = {"username": "ada", "password": "of ada", "csrfmiddlewaretoken": secret}
        assert client.post("/admin/login/?next=/admin/", data).status_code == 302

    def test_a_login_leaves_its_csrf_token_in_the_session(
        self, users: dict[str, Any], settings: Any
    ) -> None:
        """As one write: the session that the answer tells of is the one that there is."""
        settings.CSRF_USE_SESSIONS = True
        client = Client(enforce_csrf_checks=True, headers={"Sec-Fetch-Site": "same-origin"})
        do(client, "cart=1")
        old = client.get("/api/sessions/current/")["X-CSRFToken"]
        assert do(client, "our-in=ada").status_code == 200
        version = client.get("/api/sessions/current/")
        assert version["ETag"] == '"1"'
        for token_, status in ((old, 403), (version["X-CSRFToken"], 200)):
            changed = client.patch(
                "/api/sessions/current/",
                {"client": {"a": 1}},
                content_type="application/json",
                headers={"X-CSRFToken": token_, "If-Match": '"1"'},
            )
            assert changed.status_code == status

    def test_force_login_and_client_session(self, users: dict[str, Any]) -> None:
        client = Client()
        client.force_login(users["ada"])
        session = client.session
        session["a"] = 1
        session.save()
        assert do(client, "look").json()["session"] == {"a": 1}
        assert count(users["ada"]) == 1
        client.logout()
        assert count(users["ada"]) == 0

    def test_django_s_own_middleware(self, users: dict[str, Any], settings: Any) -> None:
        settings.MIDDLEWARE = [DJANGO_SESSIONS if n == OURS else n for n in settings.MIDDLEWARE]
        client = Client()
        do(client, "cart=1")
        do(client, "in=ada")
        found = do(client, "look").json()
        assert (found["user"], found["session"]) == ("ada", {"cart": "1"})
        assert found["session_info"] == str(users["ada"].pk)
        do(client, "out")
        assert token(client) is None
        assert count(users["ada"]) == 0

    def test_what_manage_check_says_of_it(self, settings: Any) -> None:
        says = StringIO()
        call_command("check", stdout=StringIO(), stderr=says)
        assert "W043" not in says.getvalue()
        settings.MIDDLEWARE = [DJANGO_SESSIONS if n == OURS else n for n in settings.MIDDLEWARE]
        call_command("check", stdout=StringIO(), stderr=says)
        (line, hint) = says.getvalue().split("session_manager.W043) ")[1].splitlines()[:2]
        # What is wrong, what that means, and what to do.
        assert line.startswith("MIDDLEWARE has Django's SessionMiddleware.")
        for word in ("IP address", "browser", "PostgreSQL cannot be reached", "500 instead of 503"):
            assert word in line
        assert hint == f"\tHINT: In MIDDLEWARE, replace '{DJANGO_SESSIONS}' with '{OURS}'."


class TestOutage:
    def test_no_answer(self, server: Server, users: dict[str, Any]) -> None:  # noqa: F811
        client = Client(raise_request_exception=False)
        do(client, "in=ada")
        before = token(client)
        server.stop()
        for path_, what in (("/act/", "look"), ("/act/", "a=1"), ("/api/", "look")):
            response = do(client, what, path_)
            assert (response.status_code, response["Retry-After"]) == (503, "2"), (path_, what)
            assert COOKIE not in response.cookies
        # There is no session to look at, but one to make.
        assert do(Client(raise_request_exception=False), "a=1").status_code == 503
        assert client.get("/plain/").status_code == 200
        server.start()
        assert token(client) == before
        assert do(client, "look").json()["user"] == "ada"

    def test_the_csrf_token_in_the_session(
        self,
        server: Server,  # noqa: F811
        users: dict[str, Any],
        settings: Any,
    ) -> None:
        """Then Django's page for a 500 asks for the session, too."""
        settings.CSRF_USE_SESSIONS = True
        client = Client(raise_request_exception=False)
        do(client, "in=ada")
        before = token(client)
        server.stop()
        for path_ in ("/act/", "/api/", "/plain/", "/session/"):
            response = do(client, "look", path_)
            assert (response.status_code, response["Retry-After"]) == (503, "2"), path_
            assert response.json()["code"] == "store_unavailable"
            assert COOKIE not in response.cookies
        server.start()
        assert token(client) == before
        assert do(client, "look").json()["user"] == "ada"

    async def test_the_csrf_token_in_the_session_asynchronously(
        self,
        server: Server,  # noqa: F811
        users: dict[str, Any],
        settings: Any,
    ) -> None:
        settings.CSRF_USE_SESSIONS = True
        client = AsyncClient(raise_request_exception=False)
        client.cookies[COOKIE] = (await session_service.acreate(str(users["ada"].pk))).token
        await sync_to_async(server.stop)()
        response = await client.get("/plain/")
        assert (response.status_code, response["Retry-After"]) == (503, "2")
        await sync_to_async(server.start)()


class TestRedis:
    def test_no_query(self, redis_server: RedisServer, users: dict[str, Any]) -> None:
        client = Client()
        client.get("/session/", {"cart": 1})

        def unasked() -> bool:
            with CaptureQueriesContext(connection) as asked:
                assert client.get("/session/").json() == {"cart": "1"}
            return len(asked) == 0

        # The first read fills the cache, and so does each after the end of an epoch.
        wait_for(unasked)
        # What has been changed is not read from there.
        client.get("/session/", {"cart": 2})
        assert client.get("/session/").json() == {"cart": "2"}
        session_service.invalidate(token(client))
        assert client.get("/session/").json() == {}


class TestChecks:
    def ids(self) -> list[str | None]:
        found = [message.id for message in run_checks(tags=["session_manager"])]
        # About access tokens.
        return [name for name in found if name != "session_manager.W025"]

    def test_all_is_well(self, settings: Any) -> None:
        settings.SESSION_COOKIE_SECURE = True
        assert self.ids() == []

    def test_an_insecure_cookie(self) -> None:
        assert self.ids() == ["session_manager.W004"]

    def test_another_engine(self, settings: Any) -> None:
        settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
        assert "session_manager.E041" in self.ids()

    def test_two_names(self, settings: Any, configure: Callable[..., None]) -> None:
        settings.SESSION_COOKIE_SECURE = True
        configure(COOKIE_NAME="session_token")
        assert self.ids() == ["session_manager.E042"]
        configure(COOKIE_NAME=COOKIE)
        assert self.ids() == []

    def test_without_the_app(self, settings: Any) -> None:
        from django.core.exceptions import ImproperlyConfigured

        from session_manager.backends.sessions import _require_app

        settings.INSTALLED_APPS = [n for n in settings.INSTALLED_APPS if n != "session_manager"]
        _require_app.cache_clear()
        with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
            SessionStore()


async def test_an_answer_that_cannot_be_finished_asynchronously(users: dict[str, Any]) -> None:
    """The session in which the password was changed ends, as nobody has kept it."""
    client = AsyncClient(raise_request_exception=False)
    await sync_to_async(client.force_login)(users["ada"])
    assert (await client.get("/changes-and-breaks/")).status_code == 500
    assert await sync_to_async(count)(users["ada"]) == 0
    await sync_to_async(connections.close_all)()


class TestMigration:
    def test_nobody_is_signed_out(self, users: dict[str, Any], settings: Any) -> None:
        """From Django's own store, by the command and the setting."""
        engine, middleware = settings.SESSION_ENGINE, settings.MIDDLEWARE
        settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
        client = Client()
        client.force_login(users["ada"])
        session = client.session
        session["cart"] = [1, None]
        session.save()
        settings.SESSION_ENGINE, settings.MIDDLEWARE = engine, middleware
        settings.SESSION_MANAGER = {**settings.SESSION_MANAGER, "IMPORT_DJANGO_SESSIONS": True}
        call_command("import_django_sessions")
        old = token(client)
        found = do(client, "look").json()
        assert (found["user"], found["session"]) == ("ada", {"cart": [1, None]})
        assert token(client) not in (None, old)
        assert count(users["ada"]) == 1
        found = do(client, "more=1").json()
        assert found["session"] == {"cart": [1, None], "more": "1"}
        assert ImportedSession.objects.get().adopted_at is not None

        # What the browser has sent at the same time has the older cookie still.
        late = Client()
        late.cookies[COOKIE] = old
        assert do(late, "look").json()["user"] == "ada"
        assert do(late, "late=1").json()["session"] == {"cart": [1, None], "late": "1"}
        assert do(late, "look").json()["session"] == {"cart": [1, None], "late": "1"}
        assert do(client, "look").json()["session"] == {"cart": [1, None], "more": "1"}
        late.cookies[COOKIE] = old
        do(late, "out")
        assert do(client, "look").json()["user"] == ""


if django.VERSION >= (5, 1):
    # Before that request.session has no asynchronous methods.
    async def test_asynchronously() -> None:
        client = AsyncClient()
        for visits in (1, 2):
            response = await client.get("/aact/")
            assert response.json() == {"visits": visits}
        before = token(client)
        await client.get("/aact/", {"cycle": 1})
        assert token(client) not in (None, before)
        assert await session_service.aget(before) is None
        assert (await client.get("/aact/")).json() == {"visits": 4}
        last = token(client)
        await client.get("/aact/", {"flush": 1})
        assert token(client) is None
        assert await session_service.aget(last) is None
        await sync_to_async(connections.close_all)()

    async def test_a_login_of_their_own_ends_the_impersonation_asynchronously(
        users: dict[str, Any],
    ) -> None:
        user = await sync_to_async(get_user_model().objects.create_user)("bob")
        client = AsyncClient()
        for action in ("our-in=ada", "act-as=bob"):
            await client.get("/act/", {"do": action})
        await client.get("/aact/", {"in": "bob"})
        row = await session_service.aget(token(client))
        assert row is not None
        assert (row.user_id, row.actor) == (str(user.pk), None)
        await sync_to_async(connections.close_all)()


class TestDjangosMiddlewareAlone:
    """Nothing but SESSION_ENGINE has been changed."""

    FORM = {"old_password": "of ada", "new_password1": "tbr31-x", "new_password2": "tbr31-x"}

    @pytest.fixture(autouse=True)
    def _middleware(self, settings: Any) -> None:
        settings.MIDDLEWARE = [
            DJANGO_SESSIONS if name == OURS else name
            for name in settings.MIDDLEWARE
            if name == OURS or not name.startswith("session_manager.")
        ]
        settings.AUTH_PASSWORD_VALIDATORS = []

    def test_a_new_password_ends_the_other_sessions(self, users: dict[str, Any]) -> None:
        client, other = Client(), Client()
        client.force_login(users["ada"])
        other.force_login(users["ada"])
        first = token(client)
        assert client.post("/password/", self.FORM).status_code == 302
        assert session_service.get(token(client)).user_id == str(users["ada"].pk)
        assert session_service.get(first) is None
        assert session_service.get(token(other)) is None

    async def test_a_new_password_in_asynchronous_servers(self, users: dict[str, Any]) -> None:
        client = AsyncClient()
        await sync_to_async(client.force_login)(users["ada"])
        assert (await client.post("/password/", self.FORM)).status_code == 302
        found = await sync_to_async(session_service.get)(token(client))
        assert found.user_id == str(users["ada"].pk)

    def test_outside_of_a_request_all_end(self, users: dict[str, Any]) -> None:
        client = Client()
        client.force_login(users["ada"])
        client.get("/admin/")
        assert SessionStore(token(client))[SESSION_KEY] == str(users["ada"].pk)
        users["ada"].set_password("tbr31-x")
        users["ada"].save()
        assert count(users["ada"]) == 0


@pytest.mark.parametrize("kind", ["remembered", "forgotten"])
def test_the_kind_of_cookie_stays(users: dict[str, Any], kind: str) -> None:
    """What request.session writes later on is no other cookie."""
    client = Client()
    for action in (f"{kind}-in=ada", "visits=1", "in=ada"):
        client.get("/act/", {"do": action})
        age = client.cookies[COOKIE]["max-age"]
        assert age == ("" if kind == "forgotten" else pytest.approx(7 * 86400, abs=60)), action


def test_a_sign_out_by_django_leaves_no_way_back(users: dict[str, Any]) -> None:
    user = get_user_model().objects.create_user("bob")
    client = Client()
    client.get("/act/", {"do": "our-in=ada,cart=1"})
    answer = client.get("/act/", {"do": "act-as=bob"}).json()
    assert (answer["user"], answer["session"]) == ("bob", {})
    client.get("/act/", {"do": "visits=1"})
    client.get("/act/", {"do": "out"})
    assert [session_service.list(str(who.pk)) for who in (users["ada"], user)] == [[], []]
    left = {name: morsel.value for name, morsel in client.cookies.items() if name != "csrftoken"}
    assert left == {COOKIE: "", f"{COOKIE}_actor": ""}


@pytest.mark.usefixtures("atomic_requests")
def test_a_login_that_is_rolled_back_and_saved_again_ends_the_impersonation(
    users: dict[str, Any],
) -> None:
    get_user_model().objects.create_user("bob")
    client = Client()
    do(client, "our-in=ada")
    do(client, "act-as=bob")
    assert do(client, "in=bob,save,fail", "/api/").status_code == 400
    row = session_service.get(token(client))
    assert row is not None
    assert row.actor is None
    assert count(users["ada"]) == 0


def test_a_login_of_their_own_ends_the_impersonation(users: dict[str, Any]) -> None:
    """By Django's login, which cycles nothing where the user stays the same."""
    user = get_user_model().objects.create_user("bob")
    client = Client()
    do(client, "our-in=ada,cart=1")
    do(client, "act-as=bob,seen=1")
    answer = do(client, "in=bob,mine=1").json()
    assert answer["user"] == "bob"
    row = session_service.get(token(client))
    assert row is not None
    assert (row.user_id, row.actor) == (str(user.pk), None)
    assert do(client, "look").json()["session"] == {"mine": "1"}
    assert (count(users["ada"]), count(user)) == (0, 1)
    assert client.cookies[f"{COOKIE}_actor"].value == ""


def test_back_to_the_actors_own_request_session(users: dict[str, Any]) -> None:
    get_user_model().objects.create_user("bob")
    client = Client()
    client.get("/act/", {"do": "our-in=ada,cart=1"})
    client.get("/act/", {"do": "act-as=bob,cart=2"})
    client.get("/stop/")
    answer = client.get("/act/", {"do": "look"}).json()
    assert (answer["user"], answer["session"]) == ("ada", {"cart": "1"})
