"""The sides of bench/django.sh: what keeps the session, and how DRF finds the user."""

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
    #: Statements are prepared on the server and parameters sent apart.
    prepared: bool = True


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
        "session_manager, cache on, no user row", **OURS, cache=True, user_row=False
    ),
    "uncached_bare": Side("session_manager, cache off, no user row", **OURS, user_row=False),
    "db": Side("django.contrib.sessions, db", **DJANGO, engine=ENGINE + "db"),
    "cached_db": Side("django.contrib.sessions, cached_db", **DJANGO, engine=ENGINE + "cached_db"),
    "cache": Side("django.contrib.sessions, cache", **DJANGO, engine=ENGINE + "cache"),
    "knox": Side("django-rest-knox", (), "knox.auth.TokenAuthentication"),
}
