"""Client routing to shards against direct access, in one interleaved run, as tables.

    measure.py [--write PAGE] DIRECTORY ...     of the servers' sockets; as many shards as there are

--write puts the tables into their section of a page as well.  From the environment: CALLS of each
kind on each side (4000), SECONDS_EACH of a run with several clients (5).

"direct" is one database without SHARDS.  "routed 1" is the same with SHARDS of one alias, the
others share the users among more servers.  "4 connections" routes as "routed 4" does, but all its
aliases are of one server: what it costs to change from one server process to another.  Client CPU
is this process's; server CPU is that of the backends of its connections (/proc/PID/schedstat).
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

PAGE = Path(sys.argv[2]) if sys.argv[1] == "--write" else None
DIRECTORIES = sys.argv[3:] if PAGE else sys.argv[1:]
CALLS = int(os.environ.get("CALLS", "4000"))
SECONDS = float(os.environ.get("SECONDS_EACH", "5"))
BLOCK = 50
CLIENTS = 8
ROUNDS = 3
USERS = 200

#: How much more CPU a call may cost on four servers than on one.
TARGET = 1.1

ALIASES = [f"s{n}" for n, _ in enumerate(DIRECTORIES, 1)]
#: Aliases of the first server.
SAME = [f"c{n}" for n, _ in enumerate(DIRECTORIES, 1)]


def database(directory: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": directory,
        "CONN_MAX_AGE": None,
    }


DATABASES = {
    **{alias: database(path) for alias, path in zip(ALIASES, DIRECTORIES, strict=True)},
    **{alias: database(DIRECTORIES[0]) for alias in SAME},
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

sys.path.insert(0, str(Path(__file__).parents[1]))
from report import SHARDS, cores, markdown, processor, text, write_section  # noqa: E402
from session_manager.services import session_service  # noqa: E402
from session_manager.store.shards import bucket_of_user  # noqa: E402

SIDES: dict[str, dict[str, Any]] = {"direct": {"DATABASE": "s1"}}
for count in (1, 2, 4):
    if count <= len(ALIASES):
        SIDES[f"routed {count}"] = {"DATABASE": "s1", "SHARDS": ALIASES[:count]}
SIDES["4 connections"] = {"DATABASE": "s1", "SHARDS": SAME}

DATA = {"plan": "team", "locale": "de-DE", "flags": {"beta": True}}


@contextmanager
def side(name: str) -> Iterator[None]:
    with override_settings(SESSION_MANAGER=SIDES[name]):
        yield


def backends_cpu() -> int:
    """Nanoseconds that the backends of this process's connections have computed."""
    total = 0
    for alias in (*ALIASES, *SAME):
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


Table = list[tuple[str, ...]]


def compare(kind: str, calls: dict[str, Calls]) -> Table:
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
    base: dict[str, float] = {}
    rows = []
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
        rows.append((kind, name, *cells))
    return rows


def _client(name: str, seed: int, tokens: list[str], results: Any) -> None:
    random.seed(seed)
    with side(name):
        # Connections to all servers.
        for token in tokens:
            session_service.get(token)
        on_server, here = backends_cpu(), time.process_time_ns()
        end = time.monotonic() + SECONDS
        done = 0
        while time.monotonic() < end:
            if session_service.get(random.choice(tokens)) is None:  # noqa: S311
                raise RuntimeError("a session is lost")
            done += 1
        results.put((done, time.process_time_ns() - here, backends_cpu() - on_server))


def throughput(calls: dict[str, Calls]) -> Table:
    """Rows: calls per second of several processes at once, and what a call computes then."""
    connections.close_all()
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SIDES}
    for _ in range(ROUNDS):
        for name in random.sample(list(SIDES), len(SIDES)):
            results: Any = multiprocessing.Queue()
            clients = [
                multiprocessing.Process(
                    target=_client, args=(name, seed, calls[name].tokens, results)
                )
                for seed in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            done, here, on_server = map(sum, zip(*(results.get() for _ in clients), strict=True))
            for client in clients:
                client.join()
            found[name].append((done / SECONDS, here / done / 1000, on_server / done / 1000))
    rows = []
    base = 0.0
    for name in SIDES:
        rate, here, on_server = map(statistics.median, zip(*found[name], strict=True))
        both = here + on_server
        base = base or both
        target = verdict = ""
        if name == "routed 4":
            target = f"≤ {TARGET}"
            verdict = "pass" if both / base <= TARGET else "MISS"
        cells = (f"{rate:,.0f}", f"{here:.0f}", f"{on_server:.0f}", f"{both / base:.2f}")
        rows.append((name, *cells, target, verdict))
    return rows


def bucket() -> float:
    """Microseconds that it takes to know a user's bucket."""
    rounds = 100_000
    with side(list(SIDES)[-1]):
        began = time.process_time_ns()
        for _ in range(rounds):
            bucket_of_user("auth0|0123456789abcdef01234567")
        return (time.process_time_ns() - began) / rounds / 1000


def main() -> None:
    calls = {name: Calls(name) for name in SIDES}
    times: Table = [("call", "side", "p50, µs", "p99, µs", "client CPU, µs", "server CPU, µs")]
    for kind in ("get", "create", "refresh"):
        times += compare(kind, calls)
    took = bucket()
    head = ("side", "get, calls/s", "client CPU, µs", "server CPU, µs", "both, ratio", "target", "")
    rates: Table = [head, *throughput(calls)]
    for table in (times, rates):
        print(text(table), end="\n\n")
    print(f"The bucket of a user takes {took:.2f} µs.")
    if PAGE:
        write_section(PAGE, SHARDS, section(times, rates, took))


def section(times: Table, rates: Table, took: float) -> str:
    return f"""
Written by `bench/shards.sh --write`; `make bench STEP=shards` prints the same tables. Calls of the
Django package's `session_service` by one process, {CALLS:,} of each kind on each side, in blocks of
{BLOCK} that take turns, all servers on one machine with 16 MB of `shared_buffers` each; in brackets
the ratio to direct access.
{processor()}, {cores()} cores.

{markdown(times)}

{CLIENTS} processes at once, so that the processors are busy; medians of {ROUNDS} runs:

{markdown(rates)}

- **Sides.** *direct* is one database without `SHARDS`, *routed n* is `SHARDS` of so many servers,
  and *4 connections* is `SHARDS` of four aliases that are all the same server's.
- **What it costs to route.** To find the bucket of a user takes {took:.2f} µs; that of a token is
  part of it.
- **On one machine** a call to another server than the last one finds a process that has waited for
  longer, and memory that is no longer in the processor's caches. *4 connections* shows the former
  alone. Shards that have machines of their own share no processor.
"""


if __name__ == "__main__":
    main()
