"""A page of a neighbouring domain plants a cookie whose name only Django takes for ours."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client, RequestFactory

from session_manager.conf import settings as ours
from session_manager.http.exact_cookies import cookie_of
from session_manager.services import session_service

NAME = "__Host-session_token"


def request(header: str) -> Any:
    """As a server hands the header over: its bytes as Latin-1."""
    return RequestFactory().get("/", HTTP_COOKIE=header.encode().decode("latin-1"))


@pytest.mark.parametrize("space", ["\u2000", "\u3000", "\u0085", "\x0b", "\x1f"])
def test_planted(space: str) -> None:
    planted = f"{space}{NAME}=planted"
    assert request(planted).COOKIES[NAME] == "planted"
    assert cookie_of(request(planted), NAME) is None
    for header in (
        f"{NAME}=good; {planted}",
        f"{planted}; {NAME}=good",
        f"a=ü; {NAME}=good;{planted}",
    ):
        assert cookie_of(request(header), NAME) == "good"


def test_others() -> None:
    assert cookie_of(request(f"name=Zoë; \t{NAME}=good \t; b=2"), NAME) == "good"
    assert cookie_of(request(f"a=1; {NAME}=good"), NAME) == "good"
    assert cookie_of(request("name=Zoë"), NAME) is None
    assert cookie_of(RequestFactory().get("/"), NAME) is None


@pytest.mark.django_db
@pytest.mark.parametrize("engine", [False, True])
def test_no_session_by_it(settings: Any, engine: bool) -> None:
    if engine:
        settings.SESSION_ENGINE = "session_manager.backends.sessions"
        settings.MIDDLEWARE = [
            "session_manager.middleware.RequestSessionMiddleware"
            if name == "django.contrib.sessions.middleware.SessionMiddleware"
            else name
            for name in settings.MIDDLEWARE
        ]
    eve, ada = (str(get_user_model().objects.create_user(name).pk) for name in ("eve", "ada"))
    token = session_service.create(eve).token
    planted = f"\u2000{ours.cookie_name}={token}".encode().decode("latin-1")
    assert Client().get("/info/", HTTP_COOKIE=planted).json()["exists"] is False
    good = f"{ours.cookie_name}={session_service.create(ada).token}"
    for header in (f"{good}; {planted}", f"{planted}; {good}"):
        assert Client().get("/info/", HTTP_COOKIE=header).json()["user"] == ada
