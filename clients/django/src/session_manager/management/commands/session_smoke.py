"""Walk the endpoints of a running deployment, and say what it does."""

from __future__ import annotations

import json
import os
import signal
import ssl
import sys
import threading
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import NoReverseMatch, reverse

from session_manager.conf import settings
from session_manager.management.smoke import FAILED, OK, SKIPPED, Result, Smoke

VARIABLE = "SESSION_SMOKE_TOKEN"
PATH = "/api/sessions/"


class Command(BaseCommand):
    # It speaks with the deployment, and not with this project's servers.
    requires_system_checks = []
    help = (
        "Creates sessions in a running deployment with a real access token, walks all endpoints, "
        "and checks CSRF, the cookie and the headers for caches. It ends what it has created. "
        "Exit status: 0 all is well, 1 a check has failed, 2 it could not be run."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--url",
            required=True,
            help="of the deployment, or of its session endpoints, such as "
            "https://app.example.com/api/sessions/",
        )
        parser.add_argument(
            "--token",
            help="an access token of an account, best one of its own; - reads it from the standard "
            f"input. Without this option it is in the variable {VARIABLE}. Other users of the "
            "machine can see what is in the command line",
        )
        parser.add_argument("--timeout", type=float, default=10, help="seconds for an answer (10)")
        parser.add_argument("--ca-file", help="certificates to trust in the place of the system's")
        parser.add_argument(
            "--sign-out-everywhere",
            action="store_true",
            help="check invalidate-all even if the account has other sessions, and end those",
        )
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        smoke = Smoke(
            _base(options["url"]),
            _token(options["token"]),
            context=_context(options["ca_file"]),
            timeout=options["timeout"],
            everywhere=options["sign_out_everywhere"],
            member=next(iter(settings.CLIENT_DATA), None),
            tell=(lambda result: None) if options["json"] else self._tell,
        )
        if threading.current_thread() is threading.main_thread():
            # As Ctrl-C: what was created is ended first.
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        try:
            smoke.run()
        finally:
            if options["json"]:
                self.stdout.write(json.dumps(smoke.report(), indent=2))
        passed, failed, skipped = map(smoke.count, (OK, FAILED, SKIPPED))
        summary = f"{passed} passed, {failed} failed, {skipped} skipped"
        if failed:
            raise CommandError(summary)
        if not options["json"]:
            self.stdout.write(summary)

    def _tell(self, result: Result) -> None:
        line = f"{result.outcome:8}{result.name}: {result.saw}".rstrip(": ")
        if result.outcome == FAILED:
            line = self.style.ERROR(f"{line}, expected {result.expected}")
        self.stdout.write(line)
        self.stdout.flush()


def _base(url: str) -> SplitResult:
    parts = urlsplit(url)
    try:
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.username or parts.query or parts.fragment:
        raise CommandError(f"{url} is not the URL of a deployment.", returncode=2)
    path = parts.path
    if path in ("", "/"):
        try:
            path = reverse("session_manager:list")
        except NoReverseMatch:
            path = PATH
    return parts._replace(path=path if path.endswith("/") else f"{path}/")


def _token(given: str | None) -> str:
    if given == "-":
        given = sys.stdin.readline()
    token = (os.environ.get(VARIABLE, "") if given is None else given).strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise CommandError(
            f"There is no access token. Put one into the variable {VARIABLE}, or pipe it to "
            "--token -.",
            returncode=2,
        )
    return token


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise CommandError(f"{ca_file}: {error}", returncode=2) from error
