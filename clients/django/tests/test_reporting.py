"""Reports of errors hold no token, wherever it stood."""

from __future__ import annotations

import time
from typing import Any

import django
import pytest
from django.core import mail
from django.test import Client

from session_manager.conf import settings as own
from session_manager.reporting import mask

from .conftest import Browser
from .issuer import Issuer

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


class HookFailed(Exception):
    pass


def failing_hook(request: Any, claims: Any) -> None:
    raise HookFailed


@pytest.mark.django_db
@pytest.mark.parametrize("where", ["header", "body", "form"])
def test_no_access_token_in_a_report(
    auth0: Issuer, configure: Any, settings: Any, browser: Browser, where: str
) -> None:
    """A login that fails because a hook of the application's does."""
    configure(ON_LOGIN=f"{__name__}.failing_hook")
    settings.ADMINS = ADMINS
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = "session_manager.reporting.ExceptionReporterFilter"
    token = auth0.token("auth0|ada")
    browser.raise_request_exception = False
    path = "/api/sessions/create/"
    if where == "header":
        response = browser.unsafe("POST", path, headers={"Authorization": f"Bearer {token}"})
    elif where == "body":
        response = browser.unsafe("POST", path, {"access_token": token})
    else:
        response = browser.post("/plain/", {"id_token": token, "state": "s"})
    assert response.status_code == (403 if where == "form" else 500)
    from django.views.debug import ExceptionReporter

    try:
        broken(token)
    except ZeroDivisionError as error:
        reporter = ExceptionReporter(response.wsgi_request, type(error), error, error.__traceback__)
    reports = [reporter.get_traceback_html(), reporter.get_traceback_text()]
    reports += [str(part.get_payload()) for mailed in mail.outbox for part in walk(mailed)]
    assert len(mail.outbox) == (0 if where == "form" else 1)
    for part in token.split("."):
        for report in reports:
            assert part not in report
    assert "eyJ********" in reports[0]


def walk(mailed: Any) -> Any:
    return [part for part in mailed.message().walk() if not part.is_multipart()]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("eyJh.eyJi.c2ln", "eyJ********"),
        ("'Bearer eyJh-_9.eyJi.c2ln', 1", "'Bearer eyJ********', 1"),
        (r"\neyJh.eyJi.c2ln\n", r"\neyJ********\n"),
        ("%22eyJh.eyJi.c2ln%22", "%22eyJ********%22"),
        # Unsigned, and encrypted
        ("eyJh.eyJi.", "eyJ********"),
        ("eyJh..aXY.Y2lwaGVy.dGFn", "eyJ********"),
        ("eyJhbGciOiJSUzI1NiJ9", "eyJhbGciOiJSUzI1NiJ9"),
        ("eyJh.b", "eyJh.b"),
        ("www.example.com", "www.example.com"),
    ],
)
def test_forms(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_masking_takes_no_time() -> None:
    """Nobody keeps a report busy with what only begins like a token."""
    for piece in ("eyJ", "sm1_", "eyJ.", "sm1_eyJ", "eyJsd1_aaaaaaaa."):
        text = piece * (2_000_000 // len(piece))
        before = time.thread_time()
        mask(text)
        # of the processor's time, whoever else wants it
        assert time.thread_time() - before < 2


def test_the_check(settings: Any, browser: Browser) -> None:
    from .test_checks import static

    settings.ADMINS = ADMINS
    assert static() == {"W021"}
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = "session_manager.reporting.ExceptionReporterFilter"
    assert static() == set()
