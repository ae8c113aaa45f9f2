"""``LAZY_USER``: a request that is content with whose session it is does not ask for the user."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required, permission_required
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection, connections, models, transaction
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import engines
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.urls import include, path
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import IsAdminUser, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from session_manager import login
from session_manager.conf import settings as ours
from session_manager.login import log_in
from session_manager.services import session_service
from session_manager.store.lazy_users import LazyUser, lazy_user

from .conftest import Browser
from .pages import run, samples

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


class Key(APIView):
    permission_classes = [IsAuthenticated]

    def get(self, request: Request) -> Response:
        return Response({"user": request.user.pk, "plan": request.session_info.data.get("plan")})


class Name(APIView):
    permission_classes = [IsAuthenticated]

    def get(self, request: Request) -> Response:
        return Response({"user": request.user.username, "email": request.user.email})


class Administration(Name):
    permission_classes = [IsAdminUser]


@login_required
def key(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.user.pk} {request.user.is_active}")


@permission_required("auth.view_group", raise_exception=True)
def groups(request: HttpRequest) -> HttpResponse:
    return HttpResponse("groups")


def greeting(request: HttpRequest) -> HttpResponse:
    text = "{% if user.is_authenticated %}{{ user }} {{ perms.auth.view_group }}{% endif %}"
    return HttpResponse(engines["django"].from_string(text).render({}, request))


async def name(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    return HttpResponse(user.username)


async def afields(request: HttpRequest) -> HttpResponse:
    await request.asession_info()
    try:
        blocked = request.user.username
    except SynchronousOnlyOperation:
        blocked = None
    pk = request.user.pk
    user = await request.user.aload()
    return JsonResponse({"pk": pk, "blocked": blocked, "loaded": user.username})


urlpatterns = [
    path("documented/", lambda request: documented(request)),
    path("admin/", admin.site.urls),
    path("api/sessions/", include("session_manager.urls")),
    path("drf/key/", Key.as_view()),
    path("drf/name/", Name.as_view()),
    path("drf/admin/", Administration.as_view()),
    path("key/", key),
    path("groups/", groups),
    path("greeting/", greeting),
    path("name/", name),
    path("afields/", afields),
]


class AsksForTheName:
    """Middleware of an application, around the views."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "X-Name" in request.headers:
            str(request.user.username)
        return self.get_response(request)


@pytest.fixture(autouse=True)
def _settings(settings: Any, configure: Callable[..., None]) -> None:
    configure(USER_ID_FIELD="pk", LAZY_USER=True)
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "session_manager.middleware.AuthenticationMiddleware",
        f"{__name__}.{AsksForTheName.__name__}",
    ]


@pytest.fixture
def ada(db: None) -> Any:
    return get_user_model().objects.create_user("ada", "ada@example.com")


@pytest.fixture
def browser(ada: Any) -> Browser:
    return Browser().give(session_service.create(str(ada.pk), {"plan": "free"}).token)


def lazy(user: Any) -> LazyUser:
    session = session_service.get(session_service.create(str(user.pk)).token)
    assert session is not None
    found = lazy_user(session, NotAuthenticated)
    assert found is not None
    return found


def asked(browser: Browser, path: str, **headers: Any) -> tuple[Any, list[str]]:
    """The answer, and what of the user's table was asked."""
    with CaptureQueriesContext(connection) as captured:
        response = browser.get(path, headers=headers)
    return response, [query["sql"] for query in captured if '"auth_user"' in query["sql"]]


class TestRequests:
    @pytest.mark.parametrize(
        ("path", "queries"),
        [
            ("/key/", 0),
            ("/drf/key/", 0),
            ("/drf/name/", 1),
            ("/drf/admin/", 1),
            ("/greeting/", 1),
            ("/name/", 1),
            ("/afields/", 1),
        ],
    )
    def test_what_is_asked(self, ada: Any, browser: Browser, path: str, queries: int) -> None:
        get_user_model().objects.update(is_staff=True, is_superuser=True)
        response, sql = asked(browser, path)
        assert response.status_code == 200
        assert len(sql) == queries, sql

    def test_permissions(self, ada: Any, browser: Browser) -> None:
        assert browser.get("/groups/").status_code == 403
        assert browser.get("/drf/admin/").status_code == 403
        get_user_model().objects.update(is_staff=True, is_superuser=True)
        assert browser.get("/groups/").content == b"groups"
        assert browser.get("/drf/admin/").json() == {"user": "ada", "email": "ada@example.com"}
        assert browser.get("/greeting/").content == b"ada True"
        assert "Site administration" in browser.get("/admin/").content.decode()

    def test_admin_writes_who_did_it(self, ada: Any, browser: Browser) -> None:
        get_user_model().objects.update(is_staff=True, is_superuser=True)
        response = browser.unsafe(
            "POST", "/admin/auth/group/add/", None, content_type="application/x-www-form-urlencoded"
        )
        assert response.status_code == 200
        browser.handler.enforce_csrf_checks = False
        assert browser.post("/admin/auth/group/add/", {"name": "readers"}).status_code == 302
        assert LogEntry.objects.get().user == ada

    def test_the_endpoints(self, browser: Browser) -> None:
        assert browser.get("/api/sessions/current/").json()["user"]["username"] == "ada"

    def test_asynchronous(self, ada: Any, browser: Browser) -> None:
        assert browser.get("/name/").content == b"ada"
        fields = {"pk": ada.pk, "blocked": None, "loaded": "ada"}
        assert browser.get("/afields/").json() == fields


GONE = {
    "deactivated": lambda user: get_user_model().objects.update(is_active=False),
    "deleted": lambda user: connection.cursor().execute("DELETE FROM auth_user"),
}


@pytest.mark.parametrize("gone", GONE)
class TestRowThatIsGone:
    """Without a signal, so that the session is still there."""

    @pytest.mark.parametrize("path", ["/drf/name/", "/greeting/", "/api/sessions/current/"])
    def test_no_500(self, ada: Any, browser: Browser, gone: str, path: str) -> None:
        GONE[gone](ada)
        response = browser.get(path)
        assert (response.status_code, response.json()["code"]) == (401, "session_expired")

    def test_in_middleware(self, ada: Any, browser: Browser, gone: str) -> None:
        GONE[gone](ada)
        browser.raise_request_exception = False
        response, _ = asked(browser, "/key/", **{"X-Name": "1"})
        assert (response.status_code, response.json()["code"]) == (401, "session_expired")

    def test_asynchronous(self, ada: Any, browser: Browser, gone: str) -> None:
        GONE[gone](ada)
        browser.raise_request_exception = False
        # Not handed out yet: nobody is signed in.
        response = browser.get("/name/")
        assert (response.status_code, response.content) == (200, b"")
        assert browser.get("/afields/").status_code == 401

    def test_known_by_its_key_alone(self, ada: Any, browser: Browser, gone: str) -> None:
        """Until the nightly check; it is why the setting needs those of test_user_changes.py."""
        GONE[gone](ada)
        assert browser.get("/key/").status_code == 200
        call_command("check_session_users")
        assert browser.get("/key/").status_code == 302


class TestInstance:
    @pytest.fixture(autouse=True)
    def _no_query_unless_said(self, ada: Any) -> None:
        self.ada = ada
        self.user: Any = lazy(ada)

    def test_is_known(self, django_assert_num_queries: Any) -> None:
        user, ada = self.user, self.ada
        with django_assert_num_queries(0):
            assert (user.pk, user.id, str(user.pk)) == (ada.pk, ada.pk, str(ada.pk))
            assert user.is_authenticated
            assert not user.is_anonymous
            assert user.is_active
            assert user
            assert isinstance(user, User)
            assert isinstance(user, Model)
            assert user == ada
            assert ada == user
            assert user != get_user_model()(pk=ada.pk + 1)
            assert user != "ada"
            assert hash(user) == hash(ada)
            assert {ada: 1}[user] == 1
            assert "LazyUser" in repr(user)
            assert not hasattr(user, "resolve_expression")

    def test_in_the_orm(self, django_assert_num_queries: Any) -> None:
        group = Group.objects.create(name="readers")
        content_type = ContentType.objects.get_for_model(Group)
        entry = LogEntry(
            user=self.user, content_type=content_type, object_id=group.pk, action_flag=1
        )
        with django_assert_num_queries(1):
            entry.save()
        with django_assert_num_queries(2):
            assert LogEntry.objects.filter(user=self.user).get() == entry
            assert LogEntry.objects.filter(user__in=[self.user]).exists()
        assert entry.user_id == self.ada.pk
        # Written by the database, as the user says.
        assert LogEntry.objects.get().user == self.ada
        group.user_set.add(self.user)
        assert list(group.user_set.all()) == [self.ada]

    def test_loads_once(self, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(1):
            assert self.user.username == "ada"
            assert self.user.email == "ada@example.com"
            assert str(self.user) == "ada"
            assert self.user.has_usable_password() is False
        assert isinstance(self.user.pk, int)

    def test_what_is_set_is_saved(self) -> None:
        self.user.first_name = "Ada"
        self.user.save()
        assert User.objects.get().first_name == "Ada"

    def test_never_saves_what_it_takes_for_granted(self) -> None:
        User.objects.update(first_name="Ada", is_staff=True)
        self.user.save()
        assert User.objects.filter(first_name="Ada", is_staff=True).exists()

    def test_copies(self) -> None:
        for copied in (
            copy.copy(self.user),
            copy.deepcopy(self.user),
            pickle.loads(pickle.dumps(self.user)),
            async_to_sync(self.user.aload)(),
        ):
            assert copied.username == "ada"
            assert copied == self.ada

    def test_no_such_attribute(self) -> None:
        assert not hasattr(self.user, "no_such_field")

    def test_gone(self) -> None:
        User.objects.update(is_active=False)
        with pytest.raises(NotAuthenticated):
            _ = self.user.username
        assert not self.user.is_authenticated
        assert self.user.is_anonymous
        assert not self.user.is_active


class TestKey:
    """Where the session's user id is not the primary key, the session tells that as well."""

    @pytest.fixture(autouse=True)
    def _by_name(self, configure: Callable[..., None]) -> None:
        configure(USER_ID_FIELD="username")

    def test_of_a_marked_session(self, ada: Any, django_assert_num_queries: Any) -> None:
        request = HttpRequest()
        created = log_in(request, ada)
        session = session_service.get(created.token)
        assert session is not None
        user: Any = lazy_user(session, NotAuthenticated)
        with django_assert_num_queries(0):
            assert (user.pk, user.username) == (ada.pk, "ada")

    def test_of_another(self, ada: Any) -> None:
        """Made by a user id alone: the row tells whose it is."""
        browser = Browser().give(session_service.create("ada").token)
        response, sql = asked(browser, "/key/")
        assert response.content == f"{ada.pk} True".encode()
        assert len(sql) == 1

    def test_of_another_user_by_now(self, ada: Any) -> None:
        browser = Browser()
        created = log_in(HttpRequest(), ada)
        browser.give(created.token)
        User.objects.update(password="changed")
        # The key is the session's; whatever else is read of the user is not given out.
        assert browser.get("/key/").status_code == 200
        assert browser.get("/drf/name/").status_code == 401

    def test_that_no_user_has(self, ada: Any, configure: Callable[..., None]) -> None:
        configure(USER_ID_FIELD="pk")
        for user_id in ("no number", f"0{ada.pk}"):
            session = session_service.get(session_service.create(user_id).token)
            assert session is not None
            assert lazy_user(session, NotAuthenticated) is None


class TestSettings:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"USER_ID_FIELD": None}, "needs USER_ID_FIELD"),
            ({"USER_LOADER": "tests.hooks.load_by_name"}, "no USER_LOADER"),
            ({"END_ON_USER_DELETED": False}, "needs END_ON_USER_DELETED"),
            ({"END_ON_USER_DEACTIVATED": False}, "needs END_ON_USER_DEACTIVATED"),
            ({"END_ON_PASSWORD_CHANGED": False}, "needs END_ON_PASSWORD_CHANGED"),
        ],
    )
    def test_refuses(
        self, configure: Callable[..., None], values: dict[str, Any], message: str
    ) -> None:
        configure(**values)
        with pytest.raises(ImproperlyConfigured, match=message):
            _ = ours.LAZY_USER
        with pytest.raises(SystemCheckError, match=r"E001.*\n?.*" + message):
            call_command("check")


def documented(request: HttpRequest) -> HttpResponse:
    _, sample = samples("A user without a query")
    names = run(sample, login_required=login_required, HttpResponse=HttpResponse, Note=Note)
    return names["add_note"](request)


with isolate_apps("tests"):

    class Note(models.Model):
        author = models.ForeignKey(User, models.CASCADE, related_name="+")
        text = models.TextField()

        class Meta:
            app_label = "tests"

        def __str__(self) -> str:
            return self.text


def test_the_documented_view(
    ada: Any, browser: Browser, settings: Any, configure: Callable[..., None]
) -> None:
    sample, _ = samples("A user without a query")
    documented_settings = run(sample)["SESSION_MANAGER"]
    configure(**{**documented_settings, "REDIS_URL": None, "CACHE_KEY_FILE": None})
    with connection.schema_editor() as editor:
        editor.create_model(Note)
    browser.handler.enforce_csrf_checks = False
    with CaptureQueriesContext(connection) as captured:
        response = browser.post("/documented/", {"text": "buy milk"})
    assert response.content == str(ada.pk).encode()
    assert Note.objects.get().author == ada
    assert not any('FROM "auth_user"' in query["sql"] for query in captured)


def test_deactivated_while_signing_in(ada: Any, monkeypatch: Any) -> None:
    """The password was right, then the user's sessions ended, then the new session was made."""
    create = session_service.create

    def late(*args: Any, **kwargs: Any) -> Any:
        user = User.objects.get()
        user.is_active = False
        user.save()
        return create(*args, **kwargs)

    monkeypatch.setattr(login.session_service, "create", late)
    request = HttpRequest()
    created = log_in(request, ada)
    assert session_service.get(created.token) is None
    assert session_service.count_active(user_id=str(ada.pk)) == 0


class ReadsElsewhere:
    """A router to a standby, which lags."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        return "admin"


@pytest.mark.django_db(transaction=True, databases=["default", "admin"])
def test_deactivated_where_it_is_not_known_yet(ada: Any, settings: Any) -> None:
    settings.DATABASE_ROUTERS = [ReadsElsewhere()]
    standby = connections["admin"]
    with transaction.atomic(using="admin"):
        with standby.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        stale = get_user_model().objects.get(pk=ada.pk)
        get_user_model().objects.using("default").update(is_active=False)
        assert get_user_model().objects.get(pk=ada.pk).is_active
        created = log_in(HttpRequest(), stale)
    assert session_service.get(created.token) is None


@pytest.mark.django_db(transaction=True)
async def test_aload(db: None) -> None:
    ada = await sync_to_async(get_user_model().objects.create_user)("ada")
    user = await sync_to_async(lazy)(ada)
    assert user.pk == ada.pk
    with pytest.raises(SynchronousOnlyOperation):
        _ = user.username
    assert (await user.aload()).username == "ada"
    assert user.username == "ada"
    await sync_to_async(connections.close_all)()
