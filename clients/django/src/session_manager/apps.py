"""The application: wires the checks, Django's cache and, where it is installed, drf-spectacular."""

from __future__ import annotations

from importlib.util import find_spec

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class SessionManagerConfig(AppConfig):
    name = "session_manager"
    verbose_name = _("Sessions")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401
        from .http.cache_control import guard_django_cache
        from .http.current import follow_django_sessions
        from .management.test_databases import after_flush, remember_databases
        from .user_changes import connect

        guard_django_cache()
        follow_django_sessions()
        remember_databases()
        connect()
        post_migrate.connect(after_flush, sender=self)

        if find_spec("drf_spectacular"):
            from .api import openapi  # noqa: F401
