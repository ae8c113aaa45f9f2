"""What the browser is told is what has been committed: rollbacks, lost connections and 503s."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from rest_framework.response import Response
from rest_framework.views import APIView

from session_manager import exceptions
from session_manager.conf import settings
from session_manager.http.cookies import clear_cookie
from session_manager.login import log_in, log_out
from session_manager.services import session_service
from session_manager.types import CreatedSession

from .conftest import Browser, Superuser

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("backend")]

REFRESH = "/api/sessions/refresh/"
CURRENT = "/api/sessions/current/"


class Undo(Exception):
    pass


def act(request: HttpRequest) -> None:
    """What the query string says."""
    for action in request.GET["do"].split(","):
        if action == "in":
            log_in(request, "auth0|new")
        elif action == "out":
            log_out(request)
        elif action == "end":
            session_service.invalidate(request.COOKIES[settings.cookie_name])
        elif action == "look":
            bool(request.session_info)


def does(request: HttpRequest) -> HttpResponse:
    act(request)
    return HttpResponse("done")


def fails(request: HttpRequest) -> HttpResponse:
    act(request)
    raise Undo


def unavailable(request: HttpRequest) -> HttpResponse:
    act(request)
    raise exceptions.StoreUnavailable


def says_503(request: HttpRequest) -> HttpResponse:
    act(request)
    return HttpResponse(status=503)


def undone(request: HttpRequest) -> HttpResponse:
    """In a block of the view's own that rolls back, with and without an exception."""
    if "raise" in request.GET:
        try:
            with transaction.atomic():
                act(request)
                raise Undo
        except Undo:
            pass
    else:
        with transaction.atomic():
            act(request)
            transaction.set_rollback(True)
    known = request.session_info if "after" in request.GET else None
    return HttpResponse(known.user_id if known else "")


def nested(request: HttpRequest) -> HttpResponse:
    """A block inside a block: the inner one ends well, the outer one does not."""
    with transaction.atomic():
        with transaction.atomic():
            act(request)
        transaction.set_rollback(True)
    return HttpResponse()


def out_undone_in_done(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        with transaction.atomic():
            log_out(request)
            transaction.set_rollback(True)
        log_in(request, "auth0|new")
        with transaction.atomic():
            log_out(request)
            transaction.set_rollback(True)
    return HttpResponse()


def looks_at_the_commit(request: HttpRequest) -> HttpResponse:
    """What the application does after the commit, and registered first, sees the commit."""
    seen: list[Any] = []
    with transaction.atomic():
        transaction.on_commit(lambda: seen.append(request.session_info.user_id))
        act(request)
    return HttpResponse(seen[0] or "")


def fails_at_the_commit(request: HttpRequest) -> HttpResponse:
    """Django drops the hooks that come after one that raises; the commit holds."""

    def hook() -> None:
        raise Undo

    transaction.on_commit(hook)
    act(request)
    return HttpResponse("done")


def in_and_undone(request: HttpRequest) -> HttpResponse:
    """A login, something that is undone, and a look at the session."""
    with transaction.atomic():
        log_in(request, "auth0|new")
        with transaction.atomic():
            act(request)
            transaction.set_rollback(True)
        seen = request.session_info.user_id
    return HttpResponse(seen)


def killed(request: HttpRequest) -> HttpResponse:
    act(request)
    kill()
    return HttpResponse("done")


def killed_and_seen(request: HttpRequest) -> HttpResponse:
    """The view notices, and goes on."""
    act(request)
    kill()
    with pytest.raises(exceptions.StoreUnavailable):
        session_service.get(request.COOKIES[settings.cookie_name])
    return HttpResponse("done")


def kill() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    with Superuser() as superuser:
        # Waits until the process has ended.
        superuser.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])


def times_out(request: HttpRequest) -> HttpResponse:
    """An OperationalError that says nothing about the connection."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '10 ms'")
        cursor.execute("SELECT pg_sleep(5)")
    return HttpResponse()


def another_database(request: HttpRequest) -> HttpResponse:
    raise OperationalError("database is locked")


class Refused(APIView):
    """DRF rolls ATOMIC_REQUESTS back when it answers an error."""

    def get(self, request: Any) -> Response:
        return Response({})


class InDRF(APIView):
    permission_classes: list[Any] = []

    def get(self, request: Any) -> Response:
        act(request)
        return Response({})


def own_cookie(request: HttpRequest) -> HttpResponse:
    log_in(request, "auth0|new")
    response = HttpResponse()
    clear_cookie(response)
    return response


urlpatterns = [
    path("does/", does),
    path("fails/", fails),
    path("unavailable/", unavailable),
    path("says-503/", says_503),
    path("undone/", undone),
    path("nested/", nested),
    path("out-undone-in-done/", out_undone_in_done),
    path("looks-at-the-commit/", looks_at_the_commit),
    path("fails-at-the-commit/", fails_at_the_commit),
    path("in-and-undone/", in_and_undone),
    path("killed/", killed),
    path("killed-and-seen/", killed_and_seen),
    path("times-out/", times_out),
    path("another-database/", another_database),
    path("refused/", Refused.as_view()),
    path("own-cookie/", own_cookie),
    path("drf/", InDRF.as_view()),
    path("api/sessions/", include("session_manager.urls")),
]


class OneTransaction:
    """Middleware that wraps all that is inside it into one transaction."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        with transaction.atomic():
            response = self.get_response(request)
            if "lose" in request.GET:
                transaction.set_rollback(True)
        return response


@pytest.fixture(autouse=True)
def _urls(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


@pytest.fixture
def atomic_requests() -> Iterator[None]:
    connections.close_all()
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False
    connections.close_all()


@pytest.fixture
def client(created: CreatedSession) -> Browser:
    return Browser(raise_request_exception=False).give(created.token)


def cookie(response: Any) -> str | None:
    """What the response makes of the cookie: a token, "" or nothing."""
    morsel = response.cookies.get(settings.cookie_name)
    return None if morsel is None else str(morsel.value)


def is_live(token: str | None) -> bool:
    connections.close_all()
    return session_service.get(token) is not None


ALL = ["in", "out", "end,look", "out,in", "in,out"]


def assert_cookie(response: Any, do: str) -> None:
    """A login gives one, a logout takes it, and a look at what has ended leaves it alone."""
    if do in ("in", "out,in"):
        assert is_live(cookie(response))
    else:
        assert cookie(response) == (None if do == "end,look" else "")


@pytest.mark.usefixtures("atomic_requests")
class TestAtomicRequests:
    @pytest.mark.parametrize("do", ALL)
    def test_an_exception(self, client: Browser, created: CreatedSession, do: str) -> None:
        response = client.get(f"/fails/?do={do}")
        assert response.status_code == 500
        assert cookie(response) is None
        assert is_live(created.token)

    @pytest.mark.parametrize("do", ALL)
    def test_a_commit(self, client: Browser, created: CreatedSession, do: str) -> None:
        response = client.get(f"/does/?do={do}")
        assert response.status_code == 200
        assert not is_live(created.token)
        assert_cookie(response, do)

    @pytest.mark.server_only("no connection is lost")
    @pytest.mark.parametrize("do", ALL)
    @pytest.mark.parametrize("where", ["killed", "killed-and-seen"])
    def test_lost_before_the_commit(
        self, client: Browser, created: CreatedSession, do: str, where: str
    ) -> None:
        response = client.get(f"/{where}/?do={do}")
        assert (response.status_code, response["Retry-After"]) == (503, "2")
        assert cookie(response) is None
        assert is_live(created.token)
        assert client.get("/does/?do=look").status_code == 200

    def test_other_errors_are_no_503(self, client: Browser) -> None:
        assert client.get("/times-out/").status_code == 500
        assert client.get("/another-database/").status_code == 500

    @pytest.mark.parametrize("path", ["/refused/", "/does/?do=look", "/fails/?do=look"])
    def test_a_session_that_has_ended(
        self, client: Browser, created: CreatedSession, path: str
    ) -> None:
        """The browser may hold a newer cookie when the answer arrives."""
        session_service.invalidate(created.token)
        assert cookie(client.get(path)) is None

    @pytest.mark.parametrize("do", ALL)
    def test_a_hook_that_fails_after_the_commit(
        self, client: Browser, created: CreatedSession, do: str
    ) -> None:
        response = client.get(f"/fails-at-the-commit/?do={do}")
        assert response.status_code == 500
        assert not is_live(created.token)
        assert_cookie(response, do)

    def test_the_endpoints(self, client: Browser) -> None:
        response = client.unsafe("POST", REFRESH)
        assert response.json()["status"] == "rotated"
        assert is_live(cookie(response))
        assert cookie(client.unsafe("DELETE", CURRENT)) == ""


@pytest.mark.parametrize("how", ["", "&raise"])
@pytest.mark.parametrize("do", ALL)
@pytest.mark.parametrize("where", ["undone", "nested"])
def test_a_block_that_rolls_back(
    client: Browser, created: CreatedSession, where: str, do: str, how: str
) -> None:
    response = client.get(f"/{where}/?do={do}{how}")
    assert response.status_code == 200
    assert cookie(response) is None
    assert is_live(created.token)


def test_savepoints(atomic_requests: None, client: Browser, created: CreatedSession) -> None:
    for do in ALL:
        assert cookie(client.get(f"/undone/?do={do}")) is None
        assert is_live(created.token)
    response = client.get("/out-undone-in-done/")
    assert not is_live(created.token)
    assert is_live(cookie(response))


@pytest.mark.parametrize("do", ["in", "in,out,in", "out"])
def test_a_look_at_the_session_after_the_commit(
    client: Browser, created: CreatedSession, do: str
) -> None:
    response = client.get(f"/looks-at-the-commit/?do={do}")
    assert response.status_code == 200
    assert not is_live(created.token)
    if do == "out":
        assert (response.content, cookie(response)) == (b"", "")
    else:
        assert response.content == b"auth0|new"
        assert is_live(cookie(response))


@pytest.mark.parametrize("do", ["in", "out", "in,out", "out,in"])
def test_what_is_undone_leaves_what_was_before(
    client: Browser, created: CreatedSession, do: str
) -> None:
    response = client.get(f"/in-and-undone/?do={do}")
    assert response.content == b"auth0|new"
    assert not is_live(created.token)
    assert is_live(cookie(response))


@pytest.mark.parametrize("do", ["in", "out", "end,look"])
def test_the_request_forgets_what_was_undone(client: Browser, user_id: str, do: str) -> None:
    if "look" in do:
        do = "end"  # request.session_info itself is looked up once
    assert client.get(f"/undone/?do={do}&after").content.decode() == user_id


@pytest.mark.parametrize("do", ALL)
def test_autocommit(client: Browser, created: CreatedSession, do: str) -> None:
    """What has been done stays done, whatever the view does afterwards."""
    before = session_service.get_active_sessions_count(user_id="auth0|new")
    response = client.get(f"/fails/?do={do}")
    made = session_service.get_active_sessions_count(user_id="auth0|new") - before
    assert made == (1 if do in ("in", "out,in") else 0)
    assert response.status_code == 500
    assert not is_live(created.token)
    assert_cookie(response, do)


def test_the_request_of_a_drf_view(client: Browser, created: CreatedSession) -> None:
    token = cookie(client.get("/drf/?do=in"))
    assert is_live(token)
    assert not is_live(created.token)
    assert cookie(client.get("/drf/?do=out")) == ""
    assert not is_live(token)


@pytest.mark.parametrize("where", ["unavailable", "says-503"])
@pytest.mark.parametrize("do", ALL)
def test_503_leaves_the_cookie_alone(client: Browser, do: str, where: str) -> None:
    response = client.get(f"/{where}/?do={do}")
    assert response.status_code == 503
    assert cookie(response) is None


def test_503_of_an_endpoint(
    client: Browser, created: CreatedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The middleware finds nothing that the view has left behind."""

    def gone(*args: Any, **kwargs: Any) -> Any:
        log_out(args[0]._request)
        raise exceptions.StoreUnavailable

    monkeypatch.setattr("session_manager.api.views.describe_user", lambda *a: None)
    monkeypatch.setattr("session_manager.api.views.CurrentSessionView.get", lambda self, r: gone(r))
    response = client.get(CURRENT)
    assert response.status_code == 503
    assert cookie(response) is None


def test_a_cookie_of_the_views_own(client: Browser) -> None:
    assert cookie(client.get("/own-cookie/")) == ""


@pytest.mark.parametrize("where", ["outside", "inside"])
@pytest.mark.parametrize("do", ALL)
def test_a_transaction_around_the_middleware(
    client: Browser, created: CreatedSession, settings: Any, do: str, where: str
) -> None:
    ours = [f"{__name__}.OneTransaction"]
    settings.MIDDLEWARE = (
        ours + settings.MIDDLEWARE if where == "outside" else settings.MIDDLEWARE + ours
    )
    response = client.get(f"/does/?do={do}&lose")
    assert cookie(response) is None
    assert is_live(created.token)
    response = client.get(f"/does/?do={do}")
    assert not is_live(created.token)
    assert_cookie(response, do)


@pytest.mark.django_db(transaction=False)
@pytest.mark.parametrize("atomic", [False, True])
def test_in_a_test_case(client: Browser, atomic: bool) -> None:
    """Django's TestCase never commits; the cookie is there all the same, if it would be."""
    connection.settings_dict["ATOMIC_REQUESTS"] = atomic
    try:
        token = cookie(client.get("/does/?do=in"))
        assert token
        assert cookie(client.get("/undone/?do=out")) is None
        if atomic:
            assert cookie(client.get("/fails/?do=out")) is None
        assert session_service.get(token) is not None
        assert cookie(client.get("/does/?do=out")) == ""
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False


def test_by_hand(client: Browser, created: CreatedSession) -> None:
    """With autocommit off nobody tells of commits: the cookie follows at once."""
    transaction.set_autocommit(False)
    try:
        response = client.get("/does/?do=in")
        assert cookie(response)
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert is_live(cookie(response))
