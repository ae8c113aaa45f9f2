#!/usr/bin/env python3
"""Run the services of deploy/compose.yml as containers of buildah, and use the application.

compose.py STORE RUNROOT COMPOSE-FILE DIRECTORY ISSUER

The file is what docker-compose config has printed.  Services start in the order of what they
depend on, with their users, commands, environments, secrets and volumes, and are waited for by
their health checks.  What is not done is what a daemon does: networks (all share the host's: it
must run in namespaces of its own for the network and for mounts), read-only roots and restarts.
Prints lines "ok ..." and "not ok ...".
"""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from html import unescape
from pathlib import Path
from typing import Any

import yaml

ISSUER_PORT = 9000
SECONDS = 120


class Services:
    """The services of a file, and the containers that run."""

    def __init__(self, store: str, runroot: str, compose: dict[str, Any], work: Path) -> None:
        self.buildah = ["buildah", "--root", store, "--runroot", runroot]
        self.compose = compose
        self.work = work
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.containers: set[str] = set()
        hosts = ["127.0.0.1 localhost"]
        for name, service in compose["services"].items():
            aliases = (
                [
                    alias
                    for network in service["networks"].values()
                    for alias in (network or {}).get("aliases", [])
                ]
                if isinstance(service["networks"], dict)
                else []
            )
            hosts.append(" ".join(["127.0.0.1", name, *aliases]))
        # what buildah makes the containers' from
        (work / "hosts").write_text("\n".join(hosts) + "\n")
        subprocess.run(["mount", "--bind", work / "hosts", "/etc/hosts"], check=True)

    def call(self, *arguments: str) -> str:
        return subprocess.run(
            [*self.buildah, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    def volume(self, container: str, name: str, target: str) -> Path:
        """The directory of a volume, which is at first as the image has it."""
        directory = self.work / name
        if not directory.exists():
            origin = Path(self.call("mount", container), target.lstrip("/"))
            if origin.exists():
                subprocess.run(["cp", "-a", origin, directory], check=True)
            else:
                directory.mkdir(mode=0o755)
        return directory

    def arguments(self, name: str) -> list[str]:
        """What buildah run is given for a service, except the command."""
        service = self.compose["services"][name]
        found = ["--isolation", "chroot"]
        for secret in service.get("secrets", []):
            source = secret["source"] if isinstance(secret, dict) else secret
            file = self.compose["secrets"][source]["file"]
            found += ["-v", f"{file}:/run/secrets/{source}:ro"]
        for volume in service.get("volumes", []):
            source, target, *mode = volume.split(":")
            if not source.startswith("/"):
                source = str(self.volume(name, source, target))
            found += ["-v", ":".join([source, target, *(m for m in mode if m == "ro")])]
        for variable, value in service.get("environment", {}).items():
            found += ["--env", f"{variable}={value}"]
        if "user" in service:
            found += ["--user", service["user"]]
        for capability in service.get("cap_drop", []):
            found += ["--cap-drop", capability.lower()]
        return found

    def image(self, service: dict[str, Any]) -> str:
        name = service["image"]
        return f"localhost/{name if ':' in name else name + ':latest'}"

    def start(self, name: str) -> None:
        service = self.compose["services"][name]
        for other, needed in service.get("depends_on", {}).items():
            self.wait_for(other, needed["condition"])
        if name not in self.containers:
            image = self.image(service)
            self.call("from", "-q", "--pull-never", "--name", name, image)
            self.containers.add(name)
        config = json.loads(self.call("inspect", name))["Docker"]["config"]
        command = [
            *(config.get("Entrypoint") or []),
            *(service.get("command") or config.get("Cmd") or []),
        ]
        with (self.work / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*self.buildah, "run", *self.arguments(name), name, "--", *command],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_healthy(self, name: str) -> bool:
        kind, *command = self.compose["services"][name]["healthcheck"]["test"]
        assert kind == "CMD"
        return self.run(name, *command).returncode == 0

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the container of a service that runs."""
        return subprocess.run(
            [*self.buildah, "run", *self.arguments(name), name, "--", *command],
            capture_output=True,
            text=True,
            check=False,
        )

    def wait_for(self, name: str, condition: str) -> None:
        end = time.monotonic() + SECONDS
        process = self.running[name]
        while time.monotonic() < end:
            if condition == "service_completed_successfully":
                if process.poll() is not None:
                    if process.returncode != 0:
                        break
                    return
            elif process.poll() is not None:
                break
            elif self.is_healthy(name):
                return
            time.sleep(0.5)
        raise TimeoutError(f"{name} is not {condition}:\n{self.log(name)}")

    def log(self, name: str) -> str:
        return (self.work / f"{name}.log").read_text(errors="replace")[-3000:]

    def stop(self, name: str, sign: int) -> None:
        process = self.running.pop(name)
        for pid in descendants(process.pid):
            # what runs in the container, not what runs the container
            if not command_of(pid).startswith("buildah"):
                signal_one(pid, sign)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            for pid in [*descendants(process.pid), process.pid]:
                signal_one(pid, signal.SIGKILL)
            process.wait()

    def end(self) -> None:
        for name in reversed(list(self.running)):
            self.stop(name, signal.SIGINT if name == "database" else signal.SIGTERM)
        for name in self.containers:
            subprocess.run([*self.buildah, "rm", name], capture_output=True, check=False)


def signal_one(pid: int, sign: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sign)


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0].rsplit("/", 1)[-1]
    return "buildah"


def descendants(pid: int) -> list[int]:
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    return [found for child in children for found in (int(child), *descendants(int(child)))]


def sign_in(opener: urllib.request.OpenerDirector, url: str) -> None:
    """As a browser does it: to the provider, where somebody is chosen, and back."""
    with opener.open(f"{url}/auth/login", timeout=20) as page:
        link = re.search(r'href="(/authorize[^"]*ada[^"]*)"', page.read().decode())
    if link is None:
        raise ValueError("the provider shows nobody to sign in as")
    opener.open(f"http://127.0.0.1:{ISSUER_PORT}{unescape(link[1])}", timeout=20).close()


def current_user(opener: urllib.request.OpenerDirector, url: str) -> str | None:
    """Who is signed in, by the application's own API."""
    with opener.open(f"{url}/api/session", timeout=20) as answer:
        found = json.load(answer)
    return None if found["session"] is None else found["user"]["id"]


def main() -> int:
    store, runroot, file, directory, issuer = sys.argv[1:]
    work = Path(directory)
    compose = yaml.safe_load(Path(file).read_text())
    services = Services(store, runroot, compose, work)
    failed = False

    def check(name: str, is_true: bool) -> None:
        nonlocal failed
        failed |= not is_true
        print(f"{'ok' if is_true else 'not ok'} compose: {name}", flush=True)

    url = "http://localhost:3000"
    opener = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    )
    provider = subprocess.Popen(
        [
            *("buildah", "--root", store, "--runroot", runroot, "run", "--isolation", "chroot"),
            *("-v", f"{issuer}:/issuer.py:ro", "provider", "--", "python", "/issuer.py"),
            *("--port", str(ISSUER_PORT), "--client", "web", "--redirect", f"{url}/auth/callback"),
            *("--audience", "https://api.example.com"),
        ]
    )
    try:
        for name in ("database", "redis", "migrate", "backend", "frontend"):
            services.start(name)
        services.wait_for("frontend", "service_healthy")
        check("each service becomes healthy, and what is to be done once is done", True)
        check("nobody is signed in at first", current_user(opener, url) is None)
        sign_in(opener, url)
        check("a user signs in through the frontend", current_user(opener, url) == "auth0|ada")
        psql = ("psql", "-XAtq", "-U", "postgres", "-d", "app", "-c")
        answer = services.run("database", *psql, "SELECT count(*) FROM session_list('auth0|ada')")
        check("the session is in the database", answer.stdout.strip() == "1")
        answer = services.run(
            "database", *psql, "SELECT value FROM session_info() WHERE key = 'cache'"
        )
        check("the cache in Redis is used", answer.stdout.strip() == "strict")
        services.stop("database", signal.SIGINT)
        services.start("database")
        services.wait_for("database", "service_healthy")
        check(
            "the user is still signed in after the database has been restarted",
            current_user(opener, url) == "auth0|ada",
        )
        for name in ("backend", "frontend", "redis", "database"):
            who = {
                int(Path(f"/proc/{pid}").stat().st_uid)
                for pid in descendants(services.running[name].pid)[-1:]
            }
            check(f"{name} does not run as root", bool(who) and 0 not in who)
    except (OSError, TimeoutError, ValueError, subprocess.CalledProcessError) as error:
        check(f"{type(error).__name__}: {error}", False)
        for name in services.running:
            print("\n".join(f"# {name}: {line}" for line in services.log(name).splitlines()[-15:]))
    finally:
        services.end()
        for pid in [*descendants(provider.pid), provider.pid]:
            signal_one(pid, signal.SIGTERM)
        provider.wait()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
