#!/usr/bin/env python3
"""Do what the quick start of docs/django.md says, in a new project, and count the commands.

    walk_django.py readme|page DIRECTORY

DIRECTORY holds a copy of the source as session_manager, and gets a virtual environment and the
project.  PGHOST names a server that has the extension's files and nothing else.  With "readme"
README.md's SQL prepares the database, with "page" the command that the page has in its place.

What is changed of the page's text: the issuer's name and the port of the development server.
There is no sudo: the server trusts everybody who reaches its socket.  WHEEL names a wheel to
install in place of the source, DJANGO what pip is to install of Django.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode, urlsplit

from doc_blocks import blocks, commands

#: A first session takes fewer commands than this.
TOO_MANY = 5
USER = "auth0|ada"
CALLBACK = "http://localhost/callback"

route, home = sys.argv[1], Path(sys.argv[2])
source, venv, project = home / "session_manager", home / "venv", home / f"{route}_site"
environment = {**os.environ, "PATH": f"{home}/bin:{venv}/bin:{os.environ['PATH']}"}
running: list[subprocess.Popen[bytes]] = []


def ok(what: str) -> None:
    print(f"ok {route}: {what}", flush=True)


def fail(what: str, why: Any = "") -> NoReturn:
    print(f"not ok {route}: {what}")
    print("\n".join(f"# {line}" for line in str(why).splitlines()), flush=True)
    sys.exit(1)


def run(command: str, directory: Path, **options: Any) -> str:
    """Both outputs of a command that has to succeed."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    if done.returncode:
        fail(command, done.stdout)
    return done.stdout


def query(sql: str) -> str:
    return run(f"psql -XAt -U postgres -d app -c {shlex.quote(sql)}", home).strip()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start(command: list[str], directory: Path, port: int) -> None:
    """Start a server and wait until it listens."""
    log = home / f"{port}.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
    running.append(server)
    while True:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None:
            fail(shlex.join(command), log.read_text())
        time.sleep(0.1)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


def access_token(issuer: str) -> str:
    """What a front end does at the provider: the authorization code flow with PKCE."""
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    common = {"client_id": "walk", "redirect_uri": CALLBACK}
    request = {
        **common,
        "response_type": "code",
        "code_challenge_method": "S256",
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "user": USER,
    }
    try:
        opener = urllib.request.build_opener(NoRedirect)
        opener.open(f"{issuer}/authorize?{urlencode(request)}")
        fail("the issuer gives no code")
    except HTTPError as answer:
        code = parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0]
    form = {
        **common,
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": verifier,
    }
    with urllib.request.urlopen(f"{issuer}/token", urlencode(form).encode()) as answer:
        return str(json.load(answer)["access_token"])


def prepare() -> None:
    """A machine on which the user has Python, psql and nothing of ours."""
    if not venv.exists():
        run(f"{sys.executable} -m venv {venv}", home)
        sudo = home / "bin" / "sudo"
        sudo.parent.mkdir()
        sudo.write_text('#!/bin/sh\nshift 2\nPGUSER=postgres exec "$@"\n')
        sudo.chmod(0o755)


def by_readme() -> None:
    (statements,) = (b for b in blocks(source / "README.md", "Install") if b.language == "sql")
    run("psql -X -v ON_ERROR_STOP=1 -U postgres postgres", home, input=statements.text)
    ok("the SQL of README.md")


def write(file: str, text: str, issuer_port: int) -> None:
    """A block is for the end of a file of the project."""
    if file == "settings.py":
        text, times = re.subn(
            r'"DOMAIN": "[^"]+"', f'"ISSUER": "http://127.0.0.1:{issuer_port}/"', text
        )
        if times != 1:
            fail("the settings name no issuer", text)
    with (project / "mysite" / file).open("a", encoding="utf-8") as out:
        out.write(f"\n{text}")
    ok(file)


def pip_command(command: str) -> str:
    """The page's, for the wheel and the Django that are asked for."""
    if wheel := os.environ.get("WHEEL"):
        if "./clients/django" not in command:
            fail("the page does not install the package", command)
        command = command.replace("./clients/django", wheel)
    if wanted := os.environ.get("DJANGO"):
        command += f" {shlex.quote(wanted)}"
    return command


def walk() -> None:
    page = source / "docs" / "django.md"
    own = [b for b in blocks(page, "The database by one command") if b.language == "sh"]
    steps = [b for b in blocks(page, "Quick start") if b not in own]
    if route == "page":
        # After the settings, as it takes the names from them.
        settings = next(i for i, b in enumerate(steps) if b.file == "settings.py")
        steps[settings + 1 : settings + 1] = own
    audience = re.search(r'"AUDIENCE": "([^"]+)"', "".join(b.text for b in steps))
    if audience is None:
        fail("the settings name no audience")
    port = issuer_port = count = 0
    session = ""
    for block in steps:
        if block.file:
            write(block.file, block.text, issuer_port)
        if block.language != "sh":
            continue
        for command in commands(block.text):
            if not session and block not in own:
                count += 1
            command = command.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
            if command.startswith("pip "):
                run(pip_command(command), source)
                ok(f"Django {run('django-admin --version', home).strip()}")
                project.mkdir()
                run("django-admin startproject mysite " + project.name, home)
                name = "examples/issuer/issuer.py"
                issuer_port = free_port()
                start(
                    shlex.split(
                        f"{venv}/bin/python {name} --port {issuer_port} --client walk"
                        f" --redirect {CALLBACK} --audience {audience[1]}"
                    ),
                    source,
                    issuer_port,
                )
            elif command.endswith("manage.py runserver"):
                port = free_port()
                start([*shlex.split(command), "--noreload", str(port)], project, port)
                token = access_token(f"http://127.0.0.1:{issuer_port}")
                environment["access_token"] = token
            else:
                output = run(command, project)
                if "/sessions/create/" in command:
                    if "201 Created" not in output or "session_token=sm1_" not in output:
                        fail(command, output)
                    session = json.loads(output.splitlines()[-1])["session"]["id"]
                elif "/sessions/current/" in command:
                    answer = json.loads(output.splitlines()[-1])
                    if answer["session"]["id"] != session or answer["user"]["id"] != USER:
                        fail(command, output)
            ok(command)
    if not session:
        fail("there is no session")
    if count >= TOO_MANY:
        fail(f"the first session took {count} commands")
    ok(f"the first session by {count} commands")


def afterwards() -> None:
    page = source / "docs" / "django.md"
    found = run("python manage.py check --database default --fail-level WARNING", project)
    ok("the checks have nothing to say")
    if query("SELECT usesuper FROM pg_user WHERE usename = 'webapp'") != "f":
        fail("webapp is an ordinary role", found)
    owner = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tableowner = 'webapp'"
    if query(owner) == "0":
        fail("webapp has made Django's tables")
    # Whatever has been done before, and again.
    for block in blocks(page, "The database by one command"):
        if block.language == "sh":
            for command in commands(block.text):
                run(command, project)
                run(command, project)
    states = query("SELECT string_agg(state, ' ') FROM session_keys()")
    if states != "active":
        fail("one key", states)
    ok("the page's command again, and one key")
    run("python manage.py check --database default --fail-level WARNING", project)
    ok("the checks still have nothing to say")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        prepare()
        if route == "readme":
            by_readme()
        walk()
        afterwards()
    finally:
        for server in reversed(running):
            server.terminate()
            server.wait()


main()
