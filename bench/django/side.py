"""One side of bench/django.sh, a process of its own.

    side.py users COUNT      make the users
    side.py sessions FILE    a session, or token, of each; their headers go to FILE
    side.py serve FILE       measure: commands on standard input, answers on standard output

Requests are calls of Django's WSGI handler, as a web server makes them, signals at the begin and
the end included.  Commands: "count FIRST COUNT" checks the answers and prints the numbers of
database queries and of Redis commands; "time FIRST COUNT" prints nanoseconds; "cpu FIRST COUNT"
prints nanoseconds that this process computes to look up the sessions alone, without requests.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import django
import psycopg
from redis.connection import AbstractConnection

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth import (  # noqa: E402
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
)
from django.contrib.auth.hashers import make_password  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection  # noqa: E402
from django.http import HttpRequest  # noqa: E402
from django.utils.module_loading import import_string  # noqa: E402

DATA = {
    "plan": "team",
    "locale": "de-DE",
    "cart": [{"sku": f"A-{n}", "quantity": n, "price": "19.90"} for n in range(1, 6)],
    "flags": {"beta": True, "newsletter": False},
    "last_search": "sessions that live in the database",
}
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
HOST = "app.example.com"
ADDRESS = "203.0.113.7"


def make_users(count: int) -> None:
    users = get_user_model()
    password = make_password("correct horse battery staple")
    users.objects.bulk_create(
        users(username=f"user{n}", email=f"user{n}@example.com", password=password)
        for n in range(count)
    )


def session_header(user: Any) -> tuple[str, str]:
    """Sign a user in; the header that presents the session."""
    if settings.SIDE.engine:
        session = import_string(settings.SESSION_ENGINE + ".SessionStore")()
        session.update(DATA)
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.create()
        return "HTTP_COOKIE", f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
    if settings.SIDE.middleware:
        from session_manager.conf import settings as ours
        from session_manager.login import log_in

        request = HttpRequest()
        request.META.update(REMOTE_ADDR=ADDRESS, HTTP_USER_AGENT=AGENT)
        created = log_in(request, user, DATA)
        return "HTTP_COOKIE", f"{ours.cookie_name}={created.token}"
    from knox.models import get_token_model

    return "HTTP_AUTHORIZATION", f"Token {get_token_model().objects.create(user)[1]}"


def make_sessions(file: Path) -> None:
    users = get_user_model().objects.order_by("pk")
    file.write_text(json.dumps([[user.pk, *session_header(user)] for user in users]))


class Sessions:
    def __init__(self, file: Path) -> None:
        self.application = get_wsgi_application()
        self.known = json.loads(file.read_text())
        self.status = ""

    def _start_response(self, status: str, headers: Any, exc_info: Any = None) -> None:
        self.status = status

    def request(self, number: int) -> bytes:
        _, header, value = self.known[number % len(self.known)]
        response = self.application(
            {
                "REQUEST_METHOD": "GET",
                "SCRIPT_NAME": "",
                "PATH_INFO": "/page/",
                "QUERY_STRING": "",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "SERVER_NAME": HOST,
                "SERVER_PORT": "443",
                "REMOTE_ADDR": ADDRESS,
                "HTTP_HOST": HOST,
                "HTTP_USER_AGENT": AGENT,
                "HTTP_ACCEPT": "application/json",
                header: value,
                "wsgi.url_scheme": "https",
                "wsgi.input": io.BytesIO(),
                "wsgi.errors": sys.stderr,
                "wsgi.version": (1, 0),
                "wsgi.multithread": False,
                "wsgi.multiprocess": True,
                "wsgi.run_once": False,
            },
            self._start_response,
        )
        body = b"".join(response)
        response.close()
        return body

    def count(self, first: int, count: int) -> str:
        """Database queries and Redis commands of some requests, whose answers are checked."""
        queries = commands = 0
        send_command = AbstractConnection.send_command

        def counting(execute: Callable[..., Any], *args: Any) -> Any:
            nonlocal queries
            queries += 1
            return execute(*args)

        def counting_too(*args: Any, **kwargs: Any) -> None:
            nonlocal commands
            commands += 1
            send_command(*args, **kwargs)

        with (
            connection.execute_wrapper(counting),
            mock.patch.object(AbstractConnection, "send_command", counting_too),
        ):
            for number in range(first, first + count):
                answer = json.loads(self.request(number))
                user = self.known[number % len(self.known)][0]
                if not self.status.startswith("200") or str(answer["user"]) != str(user):
                    raise SystemExit(f"{settings.SIDE.title}: {self.status} {answer}")
        return f"{queries} {commands}"

    def time(self, first: int, count: int) -> int:
        request = self.request
        begin = time.perf_counter_ns()
        for number in range(first, first + count):
            request(number)
        return time.perf_counter_ns() - begin

    def cpu(self, first: int, count: int) -> int:
        find = finder()
        known = [self.known[number % len(self.known)] for number in range(first, first + count)]
        keys = [value.partition("=")[2] for _, _, value in known]
        begin = time.process_time_ns()
        for key in keys:
            find(key)
        return time.process_time_ns() - begin


def finder() -> Callable[[str], Any]:
    """What finds the session of a cookie's value on a side that has cookies."""
    if settings.SIDE.engine:
        store = import_string(settings.SESSION_ENGINE + ".SessionStore")
        return lambda key: store(key).load()
    from session_manager.services import session_service

    return partial(session_service.get, ip=ADDRESS, user_agent=AGENT)


def serve(file: Path) -> None:
    if psycopg.pq.__impl__ == "python":
        raise SystemExit("psycopg has no C implementation here")
    sessions = Sessions(file)
    for line in sys.stdin:
        command, first, count = line.split()
        method = {"count": sessions.count, "time": sessions.time, "cpu": sessions.cpu}[command]
        print(method(int(first), int(count)), flush=True)


if __name__ == "__main__":
    command, argument = sys.argv[1:]
    if command == "users":
        make_users(int(argument))
    elif command == "sessions":
        make_sessions(Path(argument))
    else:
        serve(Path(argument))
