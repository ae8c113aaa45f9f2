"""Settings for django-allauth's own tests: theirs, with PostgreSQL and our engine in them."""

from __future__ import annotations

from peer_servers import ENGINE, database

# Theirs; the tests run in their folder.
from tests.projects.regular.settings import *  # noqa: F403
from tests.projects.regular.settings import INSTALLED_APPS as _APPS

DATABASES = {"default": database("allauth")}
SESSION_ENGINE = ENGINE
INSTALLED_APPS = (*_APPS, "session_manager", "wide_keys")
