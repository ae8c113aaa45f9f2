"""Reports of errors hold no token, wherever it stood."""

from __future__ import annotations

from typing import Any

import django
import pytest
from django.core import mail
from django.test import Client

from session_manager.conf import settings as own

from .conftest import Browser

# A list of addresses since Django 6.0, of pairs before.
ADMINS: Any = ["admin@example.com"] if django.VERSION >= (6,) else [("Admin", "admin@example.com")]
TOKEN = "sm1_AZdaPpwAeryd7wEjRWdexAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


@pytest.mark.parametrize("debug", [False, True])
def test_no_token_in_a_report(settings: Any, debug: bool) -> None:
    settings.DEBUG = debug
    settings.ADMINS = ADMINS
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = "session_manager.reporting.ExceptionReporterFilter"
    client = Client(raise_request_exception=False)
    client.cookies[own.cookie_name] = TOKEN
    response = client.get("/broken/", headers={"X-Odd": TOKEN, "Cookie2": TOKEN})
    assert response.status_code == 500
    reports = [response.content.decode()]
    from django.views.debug import ExceptionReporter

    try:
        broken(TOKEN)
    except ZeroDivisionError as error:
        reporter = ExceptionReporter(response.wsgi_request, type(error), error, error.__traceback__)
        reports += [reporter.get_traceback_html(), reporter.get_traceback_text()]
    for report in reports:
        assert TOKEN not in report
        assert TOKEN[4:] not in report
    assert "sm1_********" in reports[1]
    assert mail.outbox == [] or TOKEN not in str(mail.outbox[0].message())


def broken(token: str) -> None:
    held = {"in": [token], "twice": token + token}
    raise ZeroDivisionError(len(held) and "no text of it")


def test_the_check(settings: Any, browser: Browser) -> None:
    from .test_checks import static

    settings.ADMINS = ADMINS
    assert static() == {"W021"}
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = "session_manager.reporting.ExceptionReporterFilter"
    assert static() == set()
