"""A request whose session is in Redis, and whose user's row is not needed: one command, no query.

Counted where the commands arrive, and where Django sends statements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.auth.decorators import login_required
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from session_manager.backends.sessions import SessionStore
from session_manager.conf import ENGINE
from session_manager.conf import settings as ours
from session_manager.services import session_service

from .conftest import RedisServer, wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]

#: Requests of which every one is to be answered by one command.
REQUESTS = 5
MIDDLEWARE = [
    "session_manager.middleware.SessionMiddleware",
    "session_manager.middleware.AuthenticationMiddleware",
]
ENGINE_MIDDLEWARE = [
    "session_manager.middleware.RequestSessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    *MIDDLEWARE,
]


def plan(request: HttpRequest) -> Any:
    if ours.IS_ENGINE:
        return request.session["plan"]
    return request.session_info.data["plan"]


@login_required
def view(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"user": str(request.user.pk), "plan": plan(request)})


async def asynchronous(request: HttpRequest) -> HttpResponse:
    session = await request.asession_info()
    found = await sync_to_async(plan)(request)
    assert request.user.is_authenticated
    return JsonResponse({"user": session.user_id, "plan": found})


class Page(APIView):
    permission_classes = [IsAuthenticated]

    def get(self, request: Request) -> Response:
        return Response({"user": str(request.user.pk), "plan": plan(request._request)})


urlpatterns = [
    path("view/", view),
    path("drf/", Page.as_view()),
    path("async/", asynchronous),
]


def log_in(engine: bool) -> tuple[str, str]:
    """A user's session: the key of the user, and the cookie."""
    user = get_user_model().objects.create_user("ada")
    if not engine:
        return str(user.pk), session_service.create(str(user.pk), {"plan": "free"}).token
    store = SessionStore()
    store.update(
        {
            "plan": "free",
            SESSION_KEY: str(user.pk),
            BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
            HASH_SESSION_KEY: user.get_session_auth_hash(),
        }
    )
    store.create()
    assert store.session_key is not None
    return str(user.pk), store.session_key


def commands(redis_server: RedisServer) -> Counter[str]:
    """What Redis has been asked, by whomever: the extension's worker asks, too."""
    found = redis_server.client.info("commandstats")
    return Counter({name: stats["calls"] for name, stats in found.items()})


def get(asynchronously: bool, cookie: str, path: str) -> Any:
    client: Any = AsyncClient() if asynchronously else Client()
    client.cookies[ours.cookie_name] = cookie
    return async_to_sync(client.get)(path) if asynchronously else client.get(path)


@pytest.mark.parametrize("path", ["/view/", "/drf/", "/async/"])
@pytest.mark.parametrize("asynchronously", [False, True], ids=["wsgi", "asgi"])
@pytest.mark.parametrize("kind", ["session alone", "LAZY_USER", "SESSION_ENGINE"])
def test_one_command_and_no_query(
    redis_server: RedisServer,
    settings: Any,
    configure: Callable[..., None],
    kind: str,
    asynchronously: bool,
    path: str,
) -> None:
    settings.MIDDLEWARE = MIDDLEWARE
    if kind == "SESSION_ENGINE":
        settings.SESSION_ENGINE = ENGINE
        settings.MIDDLEWARE = ENGINE_MIDDLEWARE
    if kind != "session alone":
        configure(USER_ID_FIELD="pk", LAZY_USER=True)
    user, cookie = log_in(kind == "SESSION_ENGINE")

    def asked() -> tuple[int, Counter[str]]:
        before = commands(redis_server)
        with CaptureQueriesContext(connection) as captured:
            for _ in range(REQUESTS):
                response = get(asynchronously, cookie, path)
                assert response.json() == {"user": user, "plan": "free"}
        told = commands(redis_server) - before
        del told["cmdstat_info"]
        return len(captured), told

    # The first read fills the cache.  The worker may send something at the same time.
    wait_for(lambda: asked() == (0, Counter({"cmdstat_mget": REQUESTS})), 30)
