"""Settings of the sides of bench/stores.sh on Django."""

from __future__ import annotations

import os

SECRET_KEY = "only for measurements"  # noqa: S105
USE_TZ = True
ROOT_URLCONF = "django.contrib.auth.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["BENCH_PGHOST"],
        "NAME": "app",
        "USER": "web",
        "CONN_MAX_AGE": None,
        # Prepared statements: every side is slower without.
        "OPTIONS": {"server_side_binding": True, "prepare_threshold": 2},
    }
}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"unix://{os.environ['BENCH_REDIS']}?db=1",
    }
}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "rest_framework",
    "knox",
    "user_sessions",
    "session_manager",
]
# Otherwise a second refresh within a minute would not be written.
REST_KNOX = {"MIN_REFRESH_INTERVAL": 0}
