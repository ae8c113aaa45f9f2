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
    #: session_manager: load it only when a field is read that the session does not tell.
    lazy_user: bool = False


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
# request.session is a session of session_manager's; all else is Django's and DRF's own.
OUR_ENGINE = {
    "middleware": (
        "session_manager.middleware.RequestSessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ),
    "authentication": "rest_framework.authentication.SessionAuthentication",
    "engine": "session_manager.backends.sessions",
}
# The same, with request.user by the package's own middleware, which needs no row.
LAZY_ENGINE = {
    **OUR_ENGINE,
    "middleware": (
        *OUR_ENGINE["middleware"],
        "session_manager.middleware.AuthenticationMiddleware",
    ),
}

SIDES = {
    "cached": Side("session_manager, cache on", **OURS, cache=True),
    "uncached": Side("session_manager, cache off", **OURS),
    "cached_lazy": Side("session_manager, cache on, LAZY_USER", **OURS, cache=True, lazy_user=True),
    "cached_engine": Side("session_manager, cache on, as SESSION_ENGINE", **OUR_ENGINE, cache=True),
    "cached_lazy_engine": Side(
        "session_manager, cache on, as SESSION_ENGINE, LAZY_USER",
        **LAZY_ENGINE,
        cache=True,
        lazy_user=True,
    ),
    "uncached_engine": Side("session_manager, cache off, as SESSION_ENGINE", **OUR_ENGINE),
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
    #: How many times as fast ours is to be; 0: no promise.
    promised: float = 0


COMPARISONS = (
    Comparison("cached", "cached_db", promised=1),
    Comparison("cached", "cache"),
    Comparison("cached", "db"),
    Comparison("cached", "knox"),
    Comparison("uncached", "db", promised=1),
    Comparison("uncached", "knox"),
    Comparison("uncached", "cached_db"),
    Comparison("uncached", "cache"),
    Comparison("cached_lazy", "cached_db", promised=2),
    Comparison("cached_lazy", "cache"),
    Comparison("cached_engine", "cached_db", promised=1),
    Comparison("cached_engine", "cache"),
    Comparison("cached_lazy_engine", "cached_db", promised=2),
    Comparison("uncached_engine", "db", promised=1.15),
    Comparison("cached_bare", "cached"),
    Comparison("uncached_bare", "uncached"),
)
