"""Settings of one side of bench/django.sh; BENCH_SIDE names it, see sides.py."""

from __future__ import annotations

import os

from sides import SIDES

SIDE = SIDES[os.environ["BENCH_SIDE"]]

SECRET_KEY = "only for measurements"  # noqa: S105
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["BENCH_PGHOST"],
        "NAME": "app",
        "USER": "web",
        "CONN_MAX_AGE": None,
        # Prepared statements: every side is slower without, by a tenth or more.
        "OPTIONS": {"server_side_binding": True, "prepare_threshold": 2},
    }
}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"unix://{os.environ['BENCH_REDIS']}?db=0",
    }
}

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "rest_framework",
    "knox",
    "session_manager",
]
MIDDLEWARE = list(SIDE.middleware)
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [SIDE.authentication],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}

if SIDE.engine:
    SESSION_ENGINE = SIDE.engine
SESSION_MANAGER = {
    "REDIS_DB": 1,
    **({"USER_ID_FIELD": "pk"} if SIDE.user_row else {}),
    **({"LAZY_USER": True} if SIDE.lazy_user else {}),
    **(
        {
            "REDIS_URL": f"unix://{os.environ['BENCH_REDIS']}",
            "CACHE_KEY": os.environ["BENCH_CACHE_KEY"],
        }
        if SIDE.cache
        else {}
    ),
}
