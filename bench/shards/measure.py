"""Client routing to shards against direct access, in one interleaved run, as rows of a table.

    measure.py DIRECTORY ...     of the servers' sockets; as many shards as there are

From the environment: CALLS of each kind on each side (4000), SECONDS_EACH of throughput (5).

"direct" is one database without SHARDS.  "routed 1" is the same with SHARDS of one alias, the
others share the users among more servers.  Client CPU is this process's; server CPU is that of the
backends of its connections (/proc/PID/schedstat).
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django
from django.conf import settings

DIRECTORIES = sys.argv[1:]
CALLS = int(os.environ.get("CALLS", "4000"))
SECONDS = float(os.environ.get("SECONDS_EACH", "5"))
BLOCK = 50
CLIENTS = 8
USERS = 200

ALIASES = [f"s{n}" for n, _ in enumerate(DIRECTORIES, 1)]
DATABASES = {
    alias: {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": directory,
        "CONN_MAX_AGE": None,
    }
    for alias, directory in zip(ALIASES, DIRECTORIES, strict=True)
}
settings.configure(
    SECRET_KEY="of the measurement",  # noqa: S106
    DATABASES={**DATABASES, "default": DATABASES["s1"]},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "session_manager"],
    SESSION_MANAGER={},
)
django.setup()

from django.db import connections  # noqa: E402
from django.test import override_settings  # noqa: E402

from session_manager.services import session_service  # noqa: E402
from session_manager.store.shards import bucket_of_user  # noqa: E402

SIDES: dict[str, dict[str, Any]] = {"direct": {"DATABASE": "s1"}}
for count in (1, 2, 4):
    if count <= len(ALIASES):
        SIDES[f"routed {count}"] = {"DATABASE": "s1", "SHARDS": ALIASES[:count]}

DATA = {"plan": "team", "locale": "de-DE", "flags": {"beta": True}}


@contextmanager
def side(name: str) -> Iterator[None]:
    with override_settings(SESSION_MANAGER=SIDES[name]):
        yield


def backends_cpu() -> int:
    """Nanoseconds that the backends of this process's connections have computed."""
    total = 0
    for alias in ALIASES:
        connection = connections[alias].connection
        if connection is not None:
            path = Path(f"/proc/{connection.info.backend_pid}/schedstat")
            total += int(path.read_text().split()[0])
    return total


class Calls:
    """The users and tokens of a side, and what is done with them."""

    def __init__(self, name: str) -> None:
        self.users = itertools.cycle([f"user{n}" for n in range(USERS)])
        with side(name):
            self.tokens = [
                session_service.create(next(self.users), DATA).token for _ in range(USERS)
            ]

    def get(self) -> None:
        if session_service.get(random.choice(self.tokens)) is None:  # noqa: S311
            raise RuntimeError("a session is lost")

    def create(self) -> None:
        session_service.create(next(self.users), DATA)

    def refresh(self) -> None:
        if not session_service.refresh(random.choice(self.tokens)).live:  # noqa: S311
            raise RuntimeError("a session is lost")


def compare(kind: str, calls: dict[str, Calls]) -> None:
    """Rows for one kind of call: block after block, each side in turn, in random order."""
    took: dict[str, list[int]] = {name: [] for name in SIDES}
    client, server = dict.fromkeys(SIDES, 0), dict.fromkeys(SIDES, 0)
    for _ in range(max(CALLS // BLOCK, 1)):
        for name in random.sample(list(SIDES), len(SIDES)):
            call: Callable[[], None] = getattr(calls[name], kind)
            with side(name):
                # The first reads the settings.
                call()
                on_server, here = backends_cpu(), time.process_time_ns()
                for _ in range(BLOCK):
                    began = time.perf_counter_ns()
                    call()
                    took[name].append(time.perf_counter_ns() - began)
                client[name] += time.process_time_ns() - here
                server[name] += backends_cpu() - on_server
    base = {}
    for name in SIDES:
        count = len(took[name])
        values = {
            "p50": statistics.median(took[name]) / 1000,
            "p99": statistics.quantiles(took[name], n=100)[98] / 1000,
            "client CPU": client[name] / count / 1000,
            "server CPU": server[name] / count / 1000,
        }
        base = base or values
        cells = [f"{value:.0f} ({value / base[what]:.2f})" for what, value in values.items()]
        print(f"| {kind} | {name} | " + " | ".join(cells) + " |", flush=True)


def _client(name: str, seed: int, tokens: list[str], counts: Any) -> None:
    random.seed(seed)
    with side(name):
        end = time.monotonic() + SECONDS
        done = 0
        while time.monotonic() < end:
            if session_service.get(random.choice(tokens)) is None:  # noqa: S311
                raise RuntimeError("a session is lost")
            done += 1
    counts.put(done)


def throughput(calls: dict[str, Calls]) -> None:
    """Calls per second of several processes at once."""
    connections.close_all()
    base = 0.0
    for name in SIDES:
        counts: Any = multiprocessing.Queue()
        clients = [
            multiprocessing.Process(target=_client, args=(name, seed, calls[name].tokens, counts))
            for seed in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        rate = sum(counts.get() for _ in clients) / SECONDS
        for client in clients:
            client.join()
        base = base or rate
        print(f"| get, {CLIENTS} clients | {name} | {rate:.0f}/s ({rate / base:.2f}) |", flush=True)


def bucket() -> None:
    """What it takes to know a user's bucket."""
    rounds = 100_000
    with side(list(SIDES)[-1]):
        began = time.process_time_ns()
        for _ in range(rounds):
            bucket_of_user("auth0|0123456789abcdef01234567")
        print(f"| bucket of a user | | {(time.process_time_ns() - began) / rounds / 1000:.2f} us |")


def main() -> None:
    calls = {name: Calls(name) for name in SIDES}
    print("| call | side | p50, us | p99, us | client CPU, us | server CPU, us |")
    print("|---|---|---|---|---|---|")
    for kind in ("get", "create", "refresh"):
        compare(kind, calls)
    bucket()
    throughput(calls)


if __name__ == "__main__":
    main()
