"""The sides of bench/django.sh: what keeps the session, how DRF finds the user; who meets whom."""

from __future__ import annotations

from typing import NamedTuple


class Side(NamedTuple):
    title: str
    middleware: tuple[str, ...]
    authentication: str
    #: SESSION_ENGINE of django.contrib.sessions.
    engine: str = ""
    #: session_manager: read through Redis.
    cache: bool = False
    #: session_manager: load the user's row, as the peers do.
    user_row: bool = True


OURS = {
    "middleware": ("session_manager.middleware.SessionMiddleware",),
    "authentication": "session_manager.authentication.SessionAuthentication",
}
DJANGO = {
    "middleware": (
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ),
    "authentication": "rest_framework.authentication.SessionAuthentication",
}
ENGINE = "django.contrib.sessions.backends."

SIDES = {
    "cached": Side("session_manager, cache on", **OURS, cache=True),
    "uncached": Side("session_manager, cache off", **OURS),
    "cached_bare": Side(
        "session_manager, cache on, without the user's row", **OURS, cache=True, user_row=False
    ),
    "uncached_bare": Side(
        "session_manager, cache off, without the user's row", **OURS, user_row=False
    ),
    "db": Side("django.contrib.sessions, db", **DJANGO, engine=ENGINE + "db"),
    "cached_db": Side("django.contrib.sessions, cached_db", **DJANGO, engine=ENGINE + "cached_db"),
    "cache": Side("django.contrib.sessions, cache", **DJANGO, engine=ENGINE + "cache"),
    "knox": Side("django-rest-knox", (), "knox.auth.TokenAuthentication"),
}


class Comparison(NamedTuple):
    ours: str
    peer: str
    #: Whether ours is to be at least as fast.
    promised: bool = False


COMPARISONS = (
    Comparison("cached", "cached_db", promised=True),
    Comparison("cached", "cache"),
    Comparison("cached", "db"),
    Comparison("cached", "knox"),
    Comparison("uncached", "db", promised=True),
    Comparison("uncached", "knox"),
    Comparison("uncached", "cached_db"),
    Comparison("uncached", "cache"),
    Comparison("cached_bare", "cached"),
    Comparison("uncached_bare", "uncached"),
)
