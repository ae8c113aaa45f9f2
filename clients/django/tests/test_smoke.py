"""session_smoke against a server process, as it should be and behind a proxy that breaks it."""

from __future__ import annotations

import io
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from session_manager.management.smoke import FAILED, OK, SKIPPED, Smoke
from session_manager.services import session_service

from .conftest import wait_for
from .issuer import AUDIENCE, Issuer
from .serving import Served

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/api/sessions/"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smoke")


def serve(directory: Path, issuer: Issuer, **values: Any) -> Served:
    auth0 = {"ISSUER": issuer.url, "AUDIENCE": AUDIENCE, "JWKS_URL": issuer.jwks_url}
    database = connection.settings_dict["NAME"]
    return Served(directory, database, {"AUTH0": auth0, "THROTTLE_RATES": None, **values})


@pytest.fixture(scope="module")
def served(directory: Path, issuer: Issuer, django_db_setup: None) -> Iterator[Served]:
    issuer.reset()
    with serve(directory, issuer) as running:
        yield running


class Header(list[tuple[str, str]]):
    """Headers of an answer, for a break to change."""

    def change(self, name: str, change: Callable[[str], str | None]) -> None:
        changed = [(n, change(v) if n.lower() == name.lower() else v) for n, v in self]
        self[:] = [(n, v) for n, v in changed if v is not None]


#: method, path, what was asked, headers and body of the answer -> its status
Break = Callable[[str, str, int, Header, bytearray], int]


class Proxy:
    """A proxy in front of a server, which lets ``broken`` change each answer."""

    def __init__(self, served: Served, broken: Break | None = None, drop: Any = None) -> None:
        outer = self
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                outer.asked.append(f"{self.command} {self.path}")
                length = int(self.headers.get("Content-Length") or 0)
                headers = {n: v for n, v in self.headers.items() if n.lower() != "connection"}
                if drop is not None:
                    drop(self.command, self.path, headers)
                request = urllib.request.Request(
                    served.url + self.path,
                    self.rfile.read(length) if length else None,
                    headers,
                    method=self.command,
                )
                opener = urllib.request.build_opener(
                    urllib.request.HTTPSHandler(context=served.context())
                )
                try:
                    response: Any = opener.open(request)
                except urllib.error.HTTPError as error:
                    response = error
                with response:
                    body = bytearray(response.read())
                    header = Header(response.headers.items())
                status = response.status
                if broken is not None:
                    status = broken(self.command, self.path, status, header, body)
                self.send_response_only(status)
                for name, value in header:
                    if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(served.certificate, served.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}{PATH}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


def walk(url: str, served: Served, token: str, **options: Any) -> Smoke:
    smoke = Smoke(urlsplit(url), token, context=served.context(), **options)
    smoke.run()
    return smoke


def failed(smoke: Smoke) -> list[str]:
    return [result.name for result in smoke.results if result.outcome == FAILED]


def live(user_id: str) -> int:
    return session_service.count_active(user_id=user_id)


def test_all_is_well(served: Served, issuer: Issuer, user_id: str) -> None:
    smoke = walk(served.url + PATH, served, issuer.token(user_id))
    assert [r for r in smoke.results if r.outcome != OK] == []
    assert len(smoke.results) > 70
    assert live(user_id) == 0
    # Each device of the walk, and nothing else, has been in the account.
    made = [e for e in session_service.history(user_id=user_id) if e.event == "created"]
    assert {event.user_agent for event in made} == {smoke.user_agent}


def test_other_devices_stay(served: Served, issuer: Issuer, user_id: str) -> None:
    phone = session_service.create(user_id, user_agent="a phone")
    smoke = walk(served.url + PATH, served, issuer.token(user_id))
    (skipped,) = [r for r in smoke.results if r.outcome == SKIPPED]
    assert skipped.name == "invalidate-all"
    assert "would sign out 1 sessions" in skipped.saw
    assert failed(smoke) == []
    assert session_service.get(phone.token) is not None
    smoke = walk(served.url + PATH, served, issuer.token(user_id), everywhere=True)
    assert [r for r in smoke.results if r.outcome != OK] == []
    assert session_service.get(phone.token) is None


def without(attribute: str) -> Break:
    def change(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
        header.change(
            "Set-Cookie",
            lambda value: "; ".join(
                p for p in value.split("; ") if p.lower().split("=")[0] != attribute
            ),
        )
        return status

    return change


def of_header(name: str, value: str | None) -> Break:
    def change(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
        header.change(name, lambda old: value)
        return status

    return change


def renamed(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
    header.change("Set-Cookie", lambda value: value.replace("__Host-session_token", "session"))
    return status


def with_domain(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
    header.change("Set-Cookie", lambda value: f"{value}; Domain=example.com")
    return status


def for_ever(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
    header.change("Set-Cookie", lambda value: value.replace("Max-Age=6", "Max-Age=96"))
    return status


def clears_on_401(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
    if status == 401:
        header.append(("Set-Cookie", "__Host-session_token=; Path=/; Secure; Max-Age=0"))
    return status


def keeps_on_sign_out(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
    if status == 204:
        header.change("Set-Cookie", lambda value: None)
    return status


def tells_the_token(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
    if body.startswith(b"{"):
        body[:1] = b'{"token": "sm1_x", '
    return status


def redirects(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
    header.append(("Location", "https://login.example.com/"))
    return 302 if path.endswith("current/") else status


def fails_to_list(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
    return 500 if "?limit" in path else status


def stores() -> Break:
    """A cache that looks at the path alone."""
    kept: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {}

    def change(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
        if method != "GET":
            return status
        if status == 200 and path not in kept:
            kept[path] = (status, [*header], bytes(body))
        if path not in kept:
            return status
        status, header[:], body[:] = kept[path]
        return status

    return change


BREAKS: dict[str, tuple[Break, set[str]]] = {
    "HttpOnly": (without("httponly"), {"its cookie is HttpOnly"}),
    "Secure": (without("secure"), {"its cookie is Secure", "its cookie's name"}),
    "SameSite": (without("samesite"), {"its cookie has SameSite"}),
    "Path": (without("path"), {"its cookie has Path=/"}),
    "Max-Age": (without("max-age"), {"its cookie's Max-Age"}),
    "for ever": (for_ever, {"its cookie's Max-Age"}),
    "name": (renamed, {"its cookie's name"}),
    "Domain": (with_domain, {"its cookie's name"}),
    "Cache-Control": (of_header("Cache-Control", "public"), {"its caching headers"}),
    "Vary": (of_header("Vary", "Accept"), {"it varies with the cookie"}),
    "ETag": (of_header("ETag", None), {"its ETag"}),
    "challenge": (of_header("WWW-Authenticate", None), {"its challenge"}),
    "401": (clears_on_401, {"the 401 leaves the cookie"}),
    "sign-out": (keeps_on_sign_out, {"it clears the cookie"}),
    "body": (tells_the_token, {"its body has no token"}),
    "redirect": (redirects, {"current without a cookie"}),
    "list": (fails_to_list, {"list", "it has both sessions"}),
    "cache": (
        stores(),
        {"asked again, it gives a new answer", "a request without the cookie behind it"},
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_is_found(served: Served, issuer: Issuer, user_id: str, name: str) -> None:
    broken, expected = BREAKS[name]
    with Proxy(served, broken) as proxy:
        smoke = walk(proxy.url, served, issuer.token(user_id))
    assert expected <= set(failed(smoke)), smoke.report()
    if name == "name":
        # The application does not know its own cookie any more.
        assert smoke.left == {str(listed.id) for listed in session_service.list(user_id)}
        return
    if name != "cache":
        # Through which nobody sees that a session has ended.
        assert smoke.left == set()
    assert live(user_id) == 0


#: What a deployment does not look at, and the checks that find it.
BLIND: dict[str, tuple[Any, set[str]]] = {
    "origin": (
        lambda method, path, headers: headers.update(
            {
                "Sec-Fetch-Site": "same-origin",
                "Origin": f"https://{headers['Host']}",
                "Referer": f"https://{headers['Host']}/",
            }
        ),
        {"create from another site", "patch with the Origin of another site"},
    ),
    "token": (
        lambda method, path, headers: headers.update(
            {"X-Csrftoken": headers["Cookie"].partition("csrftoken=")[2][:64].partition(";")[0]}
            if "csrftoken=" in headers.get("Cookie", "")
            else {}
        ),
        {"create without the CSRF token", "log out without the CSRF token"},
    ),
    "If-Match": (
        lambda method, path, headers: headers.pop("If-Match", None),
        {"patch of another version", "these have changed nothing"},
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", BLIND)
def test_what_is_not_looked_at(served: Served, issuer: Issuer, user_id: str, name: str) -> None:
    """These sessions, of refused logins, are ended as well."""
    drop, expected = BLIND[name]
    with Proxy(served, drop=drop) as proxy:
        smoke = walk(proxy.url, served, issuer.token(user_id))
    assert expected <= set(failed(smoke)), smoke.report()
    assert smoke.left == set()
    assert live(user_id) == 0


def test_without_the_cookie(served: Served, issuer: Issuer, user_id: str) -> None:
    """Nobody can end the session: its id is told."""

    def lose(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
        header.change("Set-Cookie", lambda value: None if "sm1_" in value else value)
        return status

    with Proxy(served, lose) as proxy:
        smoke = walk(proxy.url, served, issuer.token(user_id))
    assert "its cookie" in failed(smoke)
    (listed,) = session_service.list(user_id)
    assert smoke.left == {str(listed.id)}


def test_a_login_without_an_answer(served: Served, issuer: Issuer, user_id: str) -> None:
    """The session that it has made is found, and ended."""
    dropped: list[str] = []

    def drop(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
        if status == 201 and not dropped:
            dropped.append(path)
            raise ConnectionAbortedError
        return status

    with Proxy(served, drop) as proxy:
        smoke = walk(proxy.url, served, issuer.token(user_id))
    assert dropped
    assert "the deployment answers" in failed(smoke)
    assert smoke.left == set()
    assert live(user_id) == 0


def test_no_deployment(served: Served, issuer: Issuer, user_id: str) -> None:
    smoke = walk("https://127.0.0.1:1/", served, issuer.token(user_id), timeout=5)
    assert failed(smoke) == ["the deployment answers"]


def test_a_refused_access_token(served: Served, issuer: Issuer, user_id: str) -> None:
    smoke = walk(served.url + PATH, served, issuer.token(user_id, aud="another"))
    assert failed(smoke) == ["create"]


def test_without_csrf_token_and_rotation(
    directory: Path, issuer: Issuer, user_id: str, tmp_path: Path
) -> None:
    """What the settings say is not found fault with."""
    with serve(tmp_path, issuer, CSRF_TOKEN=False, ROTATE_ON_REFRESH=False) as served:
        smoke = walk(served.url + PATH, served, issuer.token(user_id))
    assert failed(smoke) == []
    names = {r.name for r in smoke.results if r.outcome == SKIPPED}
    assert "create without a CSRF token" in names
    assert live(user_id) == 0


class TestCommand:
    def command(self, *arguments: str, token: str | None = None) -> list[str]:
        return [sys.executable, "-m", "django", "session_smoke", *arguments]

    @pytest.fixture
    def environment(self, issuer: Issuer, user_id: str) -> dict[str, str]:
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "SESSION_SMOKE_TOKEN": issuer.token(user_id),
        }

    def test_lines(self, served: Served, environment: Any, user_id: str) -> None:
        done = subprocess.run(
            self.command("--url", served.url, "--ca-file", str(served.certificate)),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert "ok      its cookie is HttpOnly: httponly" in lines
        assert "0 failed, 0 skipped" in lines[-1]
        assert environment["SESSION_SMOKE_TOKEN"] not in done.stdout + done.stderr
        assert "sm1_" not in done.stdout + done.stderr

    def test_json(self, served: Served, environment: Any, user_id: str) -> None:
        """Read from the standard input, and a failure is an exit status."""
        token = environment.pop("SESSION_SMOKE_TOKEN")
        with Proxy(served, without("httponly")) as proxy:
            done = subprocess.run(
                self.command(
                    *("--url", proxy.url, "--ca-file", str(served.certificate)),
                    *("--token", "-", "--json"),
                ),
                env=environment,
                input=token + "\n",
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 1
        report = json.loads(done.stdout)
        assert report["passed"] is False
        assert report["left"] == []
        assert {"name": "its cookie is HttpOnly", "outcome": "failed"}.items() <= next(
            check for check in report["checks"] if check["outcome"] == "failed"
        ).items()
        assert "failed" in done.stderr
        assert token not in done.stdout + done.stderr

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupted(
        self, served: Served, environment: Any, user_id: str, number: signal.Signals
    ) -> None:
        reached, go_on = threading.Event(), threading.Event()

        def wait(method: str, path: str, status: int, header: Header, body: bytearray) -> int:
            if path.endswith("refresh/"):
                reached.set()
                go_on.wait(60)
            return status

        with Proxy(served, wait) as proxy:
            process = subprocess.Popen(
                self.command("--url", proxy.url, "--ca-file", str(served.certificate)),
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                assert reached.wait(60)
                assert live(user_id) == 1
                process.send_signal(number)
                stdout, _ = process.communicate(timeout=60)
            finally:
                go_on.set()
                process.kill()
                process.wait()
        assert process.returncode != 0
        assert "ok      nothing is left behind: every session has ended" in stdout
        wait_for(lambda: live(user_id) == 0)

    @pytest.mark.parametrize(
        ("arguments", "token"),
        [
            (["--url", "example.com"], "x"),
            (["--url", "ftp://example.com"], "x"),
            (["--url", "https://user:password@example.com"], "x"),
            (["--url", "https://example.com:99999"], "x"),
            (["--url", "https://example.com/?a=1"], "x"),
            (["--url", "https://example.com"], ""),
            (["--url", "https://example.com"], "two words"),
            (["--url", "https://example.com", "--ca-file", "/nowhere"], "x"),
        ],
    )
    def test_wrong_arguments(
        self, arguments: list[str], token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SESSION_SMOKE_TOKEN", token)
        with pytest.raises(CommandError) as caught:
            call_command("session_smoke", *arguments, stdout=io.StringIO())
        assert caught.value.returncode == 2
