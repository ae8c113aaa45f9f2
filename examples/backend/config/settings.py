"""Settings of the example backend; scripts/example.sh sets the environment."""

from __future__ import annotations

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
env = os.environ

# The example runs on loopback without TLS; DEBUG lets the cookie do without Secure and __Host-.
# It can be reached over HTTPS if something with a certificate is in front.
IS_SECURE = env["APP_URL"].startswith("https:")
DEBUG = not IS_SECURE
SECRET_KEY = env["SECRET_KEY"]
ALLOWED_HOSTS = ["localhost", "127.0.0.1", ".example.test"]
if IS_SECURE:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CSRF_TRUSTED_ORIGINS = [env["APP_URL"]]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

_SERVER = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "app",
    "HOST": env["PGHOST"],
    "OPTIONS": {"connect_timeout": int(env.get("CONNECT_TIMEOUT", "2"))},
}
DATABASES = {
    # The application's role: it owns its own tables and has the bundle "app".
    "default": {**_SERVER, "USER": "webapp"},
    # For setup_session_manager and session_keys alone.
    "admin": {**_SERVER, "USER": "postgres"},
}

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
    "billing",
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
            ]
        },
    }
]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "session_manager.authentication.SessionAuthentication",
        "session_manager.auth0.Auth0Authentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "session_manager.api_exceptions.exception_handler",
}
SPECTACULAR_SETTINGS = {"TITLE": "Example", "VERSION": "1.0"}

if IS_SECURE:
    # The admin's sessions are of the same kind.
    SESSION_ENGINE = "session_manager.backends.sessions"
    SESSION_COOKIE_NAME = "__Host-session_token"
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    MIDDLEWARE[MIDDLEWARE.index("django.contrib.sessions.middleware.SessionMiddleware")] = (
        "session_manager.middleware.RequestSessionMiddleware"
    )

SESSION_TTL = 1800
REDIS_SESSION_DB = 1
SESSION_MANAGER = {
    "AUTH0": {
        "ISSUER": env["OIDC_ISSUER"],
        "AUDIENCE": env["OIDC_AUDIENCE"],
    },
    "ON_LOGIN": "billing.tenants.on_login",
    "ON_SWITCH_TENANT": "billing.tenants.on_switch_tenant",
    # Next.js is the one proxy in front; it passes the browser's address on.
    "TRUSTED_PROXIES": 1,
    # The admin's users and the identity provider's are the same.
    "USER_ID_FIELD": "username" if IS_SECURE else None,
    # Browsers bind sessions to their device over HTTPS alone.
    "DEVICE_BOUND": "offer" if IS_SECURE else "off",
    "REDIS_URL": env["REDIS_URL"],
    "CACHE_KEY_FILE": env["CACHE_KEY_FILE"],
    # Tests sign in often, all from one machine.
    "THROTTLE_RATES": {
        "create": env.get("LOGIN_RATE", "20/min"),
        "create_address": env.get("LOGIN_RATE", "60/min"),
    },
}
