"""Settings of the tests; scripts/check-django.sh says where the servers are."""

from __future__ import annotations

import json
import os

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
ROOT_URLCONF = "tests.urls"
ASGI_APPLICATION = "tests.asgi.application"
STATIC_URL = "/static/"

_HOST = os.environ.get("SM_TEST_PGHOST", "")
_NAME = os.environ.get("SM_TEST_DBNAME", "session_manager")
_COMMON = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": _HOST,
    "PORT": os.environ.get("SM_TEST_PGPORT", "5432"),
    "NAME": _NAME,
}
DATABASES = {
    # The application's role: no superuser, it has what the migration grants.
    "default": {
        **_COMMON,
        "USER": os.environ.get("SM_TEST_PGUSER", "webapp"),
        "TEST": {"NAME": f"test_{_NAME}"},
    },
    # An administrator's connection to the same database.
    "admin": {**_COMMON, "USER": "postgres", "TEST": {"NAME": f"test_{_NAME}"}},
}
if os.environ.get("SM_TEST_POOL"):
    # Seconds that a request waits for a connection.
    _WAIT = float(os.environ["SM_TEST_POOL"])
    DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 4, "timeout": _WAIT}}
# Where the sessions are shared by several servers: of each the directory of its socket.
SHARDS = [f"s{n}" for n, _ in enumerate(os.environ.get("SM_TEST_SHARDS", "").split(), 1)]
for _alias, _directory in zip(SHARDS, os.environ.get("SM_TEST_SHARDS", "").split(), strict=True):
    DATABASES[_alias] = {**DATABASES["default"], "HOST": _directory}
PG_SUPERUSER = {**_COMMON, "USER": "postgres"}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "session_manager",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "session_manager.middleware.SessionMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
REST_FRAMEWORK = {
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "session_manager.authentication.SessionAuthentication",
        "session_manager.auth0.Auth0Authentication",
    ],
    "EXCEPTION_HANDLER": "session_manager.api_exceptions.exception_handler",
}
SPECTACULAR_SETTINGS = {"TITLE": "tests", "VERSION": "1"}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

SESSION_TTL = 86400
# A fresh copy, so that a test that overrides one key starts from these.
SESSION_MANAGER = {
    "GRANT_ROLE": os.environ.get("SM_TEST_GRANT_ROLE"),
    "AUTH0": {"ISSUER": "https://issuer.invalid/", "AUDIENCE": "https://api.example.com"},
    "THROTTLE_RATES": None,
    **({"SHARDS": SHARDS} if SHARDS else {}),
    # What a test says of a server that it starts.
    **json.loads(os.environ.get("SM_TEST_SESSION_MANAGER", "{}")),
}
