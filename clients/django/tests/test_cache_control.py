"""What caches keep of pages that depend on the session: headers, and Django's own cache."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import django
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_required
from django.db import connections
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncClient, Client
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views.decorators.cache import cache_control, cache_page
from django.views.decorators.vary import vary_on_cookie
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from session_manager.conf import settings
from session_manager.http.cookies import set_cookie, token_from
from session_manager.login import log_in
from session_manager.services import session_service
from session_manager.types import CreatedSession

from .conftest import Browser

pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db(transaction=True)]

public = cache_control(public=True, max_age=600)
#: How often each page has been made.
made: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    made.clear()


def who(request: HttpRequest) -> str:
    made[request.path] += 1
    return str(request.session_info.user_id)  # type: ignore[attr-defined]


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(who(request))


def says(header: str | None) -> Callable[[HttpRequest], HttpResponse]:
    def view(request: HttpRequest) -> HttpResponse:
        response = page(request)
        if header is not None:
            response["Cache-Control"] = header
        return response

    return view


def by_token(request: HttpRequest) -> HttpResponse:
    """By the service alone."""
    session = session_service.get(token_from(request))
    return HttpResponse(str(session and session.user_id))


def in_template(request: HttpRequest) -> HttpResponse:
    template = engines["django"].from_string("{{ request.session_info.user_id }}")
    return TemplateResponse(request, template)  # type: ignore[arg-type]


def nothing(request: HttpRequest) -> HttpResponse:
    made[request.path] += 1
    return HttpResponse("nothing")


async def apage(request: HttpRequest) -> HttpResponse:
    session = await request.asession_info()  # type: ignore[attr-defined]
    return HttpResponse(str(session.user_id))


class Api(APIView):
    permission_classes: list[Any] = []

    @method_decorator(cache_page(600))
    def get(self, request: Request) -> Response:
        return Response(str(request.auth.user_id) if request.auth else None)


class Unauthenticated(Api):
    authentication_classes: list[Any] = []

    @method_decorator(cache_page(600))
    def get(self, request: Request) -> Response:
        return Response(str(request.session_info.user_id))


def sign_in(request: HttpRequest) -> HttpResponse:
    log_in(request, request.GET["user"])
    return HttpResponse("welcome")


def recipe(request: HttpRequest) -> HttpResponse:
    """A step-up that writes the cookie itself."""
    token = request.GET["token"]
    refreshed = session_service.elevate(token, {"amr": ["pwd", "otp"]})
    assert refreshed.token is not None
    assert refreshed.absolute_expires_at is not None
    response = HttpResponse("more")
    set_cookie(response, refreshed.token, refreshed.absolute_expires_at)
    return response


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def body() -> Iterator[str]:
        yield who(request)

    return StreamingHttpResponse(body())


async def astream(request: HttpRequest) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[str]:
        yield str((await request.asession_info()).user_id)  # type: ignore[attr-defined]

    return StreamingHttpResponse(body())


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(io.BytesIO(b"nothing"), filename="x")


HEADERS = {
    "none": None,
    "public": "public, max-age=600",
    "age": "max-age=600",
    "private": "max-age=600, private",
    "no-store": "no-store",
    "torn": "public, no-store",
    "fields": 'private="Set-Cookie"',
}
cached = cache_page(600)
# Pages of Django's cache that look at the session, each in its way.
CACHED: dict[str, Any] = {
    "page": cached(page),
    "public": cached(public(page)),
    "by-token": cached(by_token),
    "in-template": cached(in_template),
    "api": Api.as_view(),
    "unauthenticated": Unauthenticated.as_view(),
    "whole-api": cached(Api.as_view()),
    # The look comes before the cache's own.
    "behind-login": login_required(cached(page)),
    "varying": cached(vary_on_cookie(page)),
}
if django.VERSION >= (5, 0):
    CACHED["apage"] = cached(apage)
urlpatterns = [
    path("api/sessions/", include("session_manager.urls")),
    *(path(f"says/{name}/", says(header)) for name, header in HEADERS.items()),
    *(path(f"cached/{name}/", view) for name, view in CACHED.items()),
    path("page/", page),
    path("apage/", apage),
    path("by-token/", by_token),
    path("nothing/", public(nothing)),
    path("cached-nothing/", cached(nothing)),
    path("sign-in/", sign_in),
    path("sign-in-public/", public(sign_in)),
    path("recipe/", recipe),
    path("recipe-public/", public(recipe)),
    path("stream/", stream),
    path("stream-public/", public(stream)),
    path("astream/", astream),
    path("file/", public(file)),
]


def directives(response: Any) -> set[str]:
    return set(response.get("Cache-Control", "").replace(" ", "").split(",")) - {""}


def varies(response: Any) -> bool:
    return "cookie" in response.get("Vary", "").lower()


@pytest.fixture
def bob(user_id: str) -> Browser:
    return Browser().give(session_service.create(f"{user_id} is another").token)


class TestHeaders:
    @pytest.mark.parametrize("where", ["sign-in", "sign-in-public"])
    def test_a_cookie(self, where: str, user_id: str) -> None:
        response = Client().get(f"/{where}/?user={user_id}")
        assert settings.cookie_name in response.cookies
        assert directives(response) == {"private", "no-store"}
        assert varies(response)

    @pytest.mark.parametrize("where", ["recipe", "recipe-public"])
    def test_a_cookie_of_the_view_s_own(self, where: str, created: CreatedSession) -> None:
        response = Client().get(f"/{where}/?token={created.token}")
        assert settings.cookie_name in response.cookies
        assert directives(response) == {"private", "no-store"}
        assert varies(response)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("none", {"private"}),
            ("public", {"private", "max-age=600"}),
            ("age", {"private", "max-age=600"}),
            ("private", {"private", "max-age=600"}),
            ("no-store", {"no-store"}),
            ("torn", {"private", "no-store"}),
            ("fields", {"private"}),
        ],
    )
    def test_a_look(self, signed_in: Browser, name: str, expected: set[str]) -> None:
        response = signed_in.get(f"/says/{name}/")
        assert directives(response) == expected
        assert varies(response)
        # Without a cookie the page is nobody's: what a cache may know by Vary.
        response = Client().get(f"/says/{name}/")
        said = HEADERS[name]
        assert response.get("Cache-Control") == said
        assert varies(response)

    def test_a_look_by_the_token(self, signed_in: Browser) -> None:
        response = signed_in.get("/by-token/")
        assert directives(response) == {"private"}
        assert varies(response)

    def test_a_cookie_that_is_no_session_s(self) -> None:
        """The page says that nobody is signed in: not to be kept for whoever is."""
        assert directives(Browser().give("sm1_" + "A" * 64).get("/page/")) >= {"private"}

    def test_no_look(self, signed_in: Browser) -> None:
        response = signed_in.get("/nothing/")
        assert directives(response) == {"public", "max-age=600"}
        assert not varies(response)

    @pytest.mark.parametrize("where", ["stream", "stream-public"])
    def test_a_stream(self, where: str, signed_in: Browser, user_id: str) -> None:
        """It looks when the headers are gone."""
        response = signed_in.get(f"/{where}/")
        assert "private" in directives(response)
        assert "public" not in directives(response)
        assert varies(response)
        assert b"".join(response.streaming_content) == user_id.encode()
        response = Client().get(f"/{where}/")
        assert varies(response)

    def test_a_file(self, signed_in: Browser) -> None:
        response = signed_in.get("/file/")
        assert directives(response) == {"public", "max-age=600"}
        assert not varies(response)

    async def test_asynchronous(self, user_id: str) -> None:
        created = await session_service.acreate(user_id)
        client = AsyncClient()
        client.cookies[settings.cookie_name] = created.token
        response = await client.get("/apage/")
        assert directives(response) == {"private"}
        assert varies(response)
        response = await client.get("/astream/")
        assert directives(response) == {"private"}
        assert varies(response)
        assert b"".join([part async for part in response]) == user_id.encode()
        response = await client.get("/nothing/")
        assert not varies(response)
        await sync_to_async(connections.close_all)()


def banner(get_response: Any) -> Any:
    """A middleware that looks at the session when the response is there."""

    def greet(request: Any) -> Any:
        response = get_response(request)
        response.content += f" for {request.session_info.user_id}".encode()
        return response

    return greet


class TestDjangoCache:
    """cache_page, and the middleware that caches the whole site."""

    @pytest.fixture
    def whole_site(self, settings: Any) -> None:
        settings.MIDDLEWARE = [
            "django.middleware.cache.UpdateCacheMiddleware",
            *settings.MIDDLEWARE,
            "session_manager.middleware.AuthenticationMiddleware",
            "django.middleware.cache.FetchFromCacheMiddleware",
        ]

    @pytest.mark.parametrize("name", CACHED)
    def test_a_page_is_one_user_s(
        self, name: str, settings: Any, signed_in: Browser, bob: Browser, user_id: str
    ) -> None:
        settings.MIDDLEWARE = [
            *settings.MIDDLEWARE,
            "session_manager.middleware.AuthenticationMiddleware",
        ]
        url = f"/cached/{name}/"

        def told(client: Client) -> str:
            return client.get(url).content.decode().strip('"')

        for _ in range(2):
            assert told(signed_in) == user_id
            assert told(bob) == f"{user_id} is another"
            assert user_id not in told(Client())

    @pytest.mark.parametrize("name", CACHED)
    def test_nobody_s_page_is_nobody_s(self, name: str, signed_in: Browser, user_id: str) -> None:
        Client().get(f"/cached/{name}/")
        if name != "behind-login":
            assert user_id in signed_in.get(f"/cached/{name}/").content.decode()

    def test_what_looks_at_nothing_is_kept(self, signed_in: Browser, bob: Browser) -> None:
        for client in (signed_in, bob, Client()):
            assert client.get("/cached-nothing/").content == b"nothing"
        assert made["/cached-nothing/"] == 1

    @pytest.mark.parametrize("where", ["page", "says/public", "apage", "by-token"])
    def test_the_whole_site(
        self, whole_site: None, where: str, signed_in: Browser, bob: Browser, user_id: str
    ) -> None:
        for _ in range(2):
            assert signed_in.get(f"/{where}/").content.decode() == user_id
            assert bob.get(f"/{where}/").content.decode() == f"{user_id} is another"
            assert Client().get(f"/{where}/").content == b"None"
        # A session that has ended is not served the pages of its life.
        session_service.invalidate_all(user_id)
        assert signed_in.get(f"/{where}/").content == b"None"

    def test_a_look_outside_of_ours(
        self, settings: Any, signed_in: Browser, bob: Browser, user_id: str
    ) -> None:
        settings.MIDDLEWARE = [
            "django.middleware.cache.UpdateCacheMiddleware",
            "tests.test_cache_control.banner",
            *settings.MIDDLEWARE,
            "django.middleware.cache.FetchFromCacheMiddleware",
        ]
        for _ in range(2):
            assert signed_in.get("/nothing/").content.decode() == f"nothing for {user_id}"
            assert bob.get("/nothing/").content.decode().endswith("is another")

    def test_the_whole_site_for_nobody(self, whole_site: None, signed_in: Browser) -> None:
        """What nobody in particular is shown is kept, by Vary for those without a cookie."""
        signed_in.get("/page/")
        for _ in range(3):
            assert Client().get("/page/").content == b"None"
        assert made["/page/"] == 2
        for client in (signed_in, Client()):
            assert client.get("/nothing/").content == b"nothing"
        assert made["/nothing/"] == 1

    def test_the_endpoints(self, whole_site: None, signed_in: Browser, user_id: str) -> None:
        for path_of in ("current/", ""):
            assert signed_in.get(f"/api/sessions/{path_of}").status_code == 200
        session_service.invalidate_all(user_id)
        for path_of in ("current/", ""):
            assert signed_in.get(f"/api/sessions/{path_of}").status_code == 401

    def test_a_cookie_is_given_once(self, whole_site: None, user_id: str) -> None:
        tokens = set()
        for _ in range(2):
            response = Client().get(f"/sign-in-public/?user={user_id}")
            tokens.add(response.cookies[settings.cookie_name].value)
        assert len(tokens) == 2

    async def test_asynchronous(self, user_id: str) -> None:
        if django.VERSION < (5, 0):
            # Its cache_page takes no asynchronous view.
            return
        for n in range(2):
            created = await session_service.acreate(f"{user_id}{n}")
            client = AsyncClient()
            client.cookies[settings.cookie_name] = created.token
            response = await client.get("/cached/apage/")
            assert response.content.decode() == f"{user_id}{n}"
        assert (await AsyncClient().get("/cached/apage/")).content == b"None"
        await sync_to_async(connections.close_all)()
