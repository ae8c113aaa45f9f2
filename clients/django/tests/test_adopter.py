"""An application in use, moved to session_manager by changes of settings and of imports alone.

``adopter/shop`` is the application, ``adopter/after`` has the files that differ once it has moved.
Both are served as they stand, and browsers do the same with both.
"""

from __future__ import annotations

import difflib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings as django_settings

from .conftest import RedisServer, Superuser, psql, wait_for
from .issuer import Issuer

HERE = Path(__file__).parent / "adopter"
DATABASE = "sm_adopter"

pytestmark = pytest.mark.django_db(transaction=True)


def difference() -> list[str]:
    found: list[str] = []
    for after in sorted((HERE / "after").iterdir()):
        before = HERE / "shop" / after.name
        texts = (path.read_text().splitlines() for path in (before, after))
        found += difflib.unified_diff(
            *texts, f"before/{after.name}", f"after/{after.name}", "", "", 0, ""
        )
    return found


def test_settings_and_imports_alone() -> None:
    file = ""
    lines = difference()
    print(*lines, sep="\n")
    for line in lines:
        if line.startswith(("--- ", "+++ ")):
            file = line.split("/")[-1]
        elif line.startswith(("-", "+")) and line[1:].strip() and file != "settings.py":
            assert line[1:].startswith(("import ", "from ")), line
    assert {line for line in lines if line.startswith("+++")} == {
        "+++ after/settings.py",
        "+++ after/urls.py",
        "+++ after/views.py",
    }


class Application:
    """A copy of the application, in a database of its own."""

    def __init__(self, directory: Path, redis_server: RedisServer, issuer: Issuer) -> None:
        self.directory = directory
        self.redis = redis_server.client
        shutil.copytree(HERE / "shop", directory / "shop")
        server = django_settings.DATABASES["default"]
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(directory),
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "DJANGO_SUPERUSER_PASSWORD": "of the admin",
            "SECRET_KEY": secrets.token_hex(32),
            "CACHE_KEY": secrets.token_hex(32),
            "DATABASE": DATABASE,
            "DATABASE_HOST": server["HOST"],
            "DATABASE_PORT": server["PORT"],
            "REDIS_SOCKET": redis_server.socket,
            "AUTH0_ISSUER": issuer.url,
            "AUTH0_JWKS_URL": issuer.jwks_url,
        }

    def move(self) -> None:
        shutil.copytree(HERE / "after", self.directory / "shop", dirs_exist_ok=True)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "django", *arguments],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def manage(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def checks(self) -> bool:
        """Whether all is well; False as long as its Redis is not in use: the worker may be late."""
        done = self.run("check", "--database", "default", "--fail-level", "WARNING")
        assert done.returncode == 0 or "W019" in done.stderr, done.stdout + done.stderr
        return done.returncode == 0

    @contextmanager
    def served(self) -> Iterator[str]:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        log = self.directory / "log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "django", "runserver", "--noreload", str(port)],
                cwd=self.directory,
                env=self.environment,
                stdout=out,
                stderr=out,
            )
        try:
            while True:
                assert process.poll() is None, log.read_text()
                with socket.socket() as s:
                    if s.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


class Browser(httpx.Client):
    """Sends the CSRF token with whatever is unsafe, as the application's pages do."""

    def __init__(self, url: str) -> None:
        super().__init__(base_url=url, timeout=120)
        self.get("/sign-in/")

    def unsafe(self, method: str, path: str, headers: Any = (), **options: Any) -> httpx.Response:
        token = {"X-CSRFToken": self.cookies["csrftoken"]}
        return self.request(method, path, headers={**token, **dict(headers)}, **options)

    def sign_in(self, token: str) -> httpx.Response:
        return self.unsafe(
            "POST", "/api/sessions/create/", {"Authorization": f"Bearer {token}"}, json={}
        )

    def name(self) -> str | None:
        """Who the application takes this for, in a view of DRF's and in one of Django's."""
        answer, page = self.get("/api/me/"), self.get("/dashboard/")
        if answer.status_code == 401:
            assert page.status_code == 302
            assert page.headers["Location"].startswith("/sign-in/")
            return None
        name = str(answer.json()["id"])
        assert page.text == f"Hello, {name}."
        assert self.get("/api/sessions/current/").json()["user"]["id"] == name
        return name


def works(url: str, issuer: Issuer) -> None:
    """What its users do, the same before and after."""
    phone, laptop, other, thief = (Browser(url) for _ in range(4))
    assert phone.name() is None
    assert phone.sign_in("no.token.here").status_code == 401
    for browser, user in ((phone, "auth0|ada"), (laptop, "auth0|ada"), (other, "auth0|grace")):
        answer = browser.sign_in(issuer.token(user))
        assert answer.status_code == 201, answer.text
        assert answer.json()["user"]["id"] == user
        assert "session_token=" in answer.headers["Set-Cookie"]
        assert browser.name() == user
    # An access token with each request goes on working.
    with httpx.Client(base_url=url, timeout=120) as program:
        bearer = {"Authorization": f"Bearer {issuer.token('auth0|linus')}"}
        assert program.get("/api/me/", headers=bearer).json()["id"] == "auth0|linus"
    # A write, with the CSRF token and without.
    assert phone.unsafe("POST", "/api/me/", json={"first_name": "Ada"}).status_code == 200
    assert phone.post("/api/me/", json={"first_name": "Eve"}).status_code == 403
    assert laptop.get("/api/me/").json()["first_name"] == "Ada"
    # Signing out ends the session, also for who has a copy of its cookie, and no other one.
    thief.cookies.set("session_token", phone.cookies["session_token"])
    assert thief.name() == "auth0|ada"
    assert phone.unsafe("POST", "/sign-out/").status_code == 302
    assert phone.name() is None
    assert thief.name() is None
    assert laptop.name() == "auth0|ada"
    assert other.unsafe("DELETE", "/api/sessions/current/").status_code == 204
    assert other.name() is None
    assert laptop.name() == "auth0|ada"


def sign_in_as_admin(url: str) -> Browser:
    """The admin signs in by Django's own form, whatever the other sessions are."""
    browser = Browser(url)
    form = {"username": "root", "password": "of the admin", "next": "/admin/"}
    answer = browser.unsafe("POST", "/admin/login/", data=form)
    assert answer.status_code == 302, answer.text
    page = browser.get("/admin/shop/user/")
    assert page.status_code == 200
    assert "auth0|ada" in page.text
    return browser


@pytest.fixture
def application(
    superuser: Superuser, redis_server: RedisServer, issuer: Issuer, tmp_path: Path
) -> Iterator[Application]:
    issuer.reset()
    superuser.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
    superuser.execute(f"CREATE DATABASE {DATABASE} OWNER webapp TEMPLATE template0")
    yield Application(tmp_path, redis_server, issuer)
    superuser.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def test_before_and_after(application: Application, issuer: Issuer) -> None:
    application.manage("makemigrations", "shop")
    application.manage("migrate")
    application.manage(
        "createsuperuser", "--noinput", "--username", "root", "--email", "root@example.com"
    )
    with application.served() as url:
        works(url, issuer)
        sign_in_as_admin(url)

    application.move()
    psql(application.manage("setup_session_manager", "--print"))
    application.manage("migrate")
    wait_for(application.checks, 180)
    assert "No changes" in application.manage("makemigrations", "--check")
    with application.served() as url:
        works(url, issuer)
        admin = sign_in_as_admin(url)
        # The lifetime that was set before.
        tablet = Browser(url)
        session = tablet.sign_in(issuer.token("auth0|ada")).json()["session"]
        begun, over = (datetime.fromisoformat(session[at]) for at in ("created_at", "expires_at"))
        assert over - begun == timedelta(days=1)
        # Sessions are read from Redis, from the database of it that was set before.
        value = f"session:{session['id']}"
        wait_for(lambda: tablet.name() and application.redis.exists(value), 180)
        # What is new: the admin sees the user's sessions and ends one.
        assert session["id"] in admin.get("/admin/session_manager/usersession/").text
        answer = admin.unsafe(
            "POST",
            "/admin/session_manager/usersession/",
            data={"action": "revoke", "_selected_action": session["id"]},
        )
        assert answer.status_code == 302, answer.text
        assert tablet.name() is None
