"""Settings for Django's own tests: theirs, with PostgreSQL and our engine in them."""

from __future__ import annotations

from peer_servers import ENGINE, database

# Theirs; their folder is on the path.
from test_sqlite import *  # noqa: F403

DATABASES = {"default": database("django"), "other": database("other")}
SESSION_ENGINE = ENGINE
TEST_RUNNER = "django_suite.Runner"
# Django's runtests.py puts its own list here; this one is for manage.py.
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "session_manager"]
