"""The tests that Django has for every session engine, for ours: the mixin says what they are."""

from __future__ import annotations

from importlib import import_module

from django.conf import settings
from django.test import TestCase, override_settings
from sessions_tests.tests import SessionTestsMixin


class EngineTests(SessionTestsMixin, TestCase):
    backend = import_module(settings.SESSION_ENGINE).SessionStore


@override_settings(USE_TZ=True)
class EngineWithTimeZoneTests(EngineTests):
    pass
