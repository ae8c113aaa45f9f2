"""Let the sides of bench/stores.sh take turns; print rows as they come; write all of it as JSON.

    compare.py OUTPUT SESSIONS ROUNDS MILLISECONDS MINUTES CONNECTIONS ...

A side is a process that reads commands from standard input and answers each with a line:

    connect N           make N connections; answers the ids of its processes
    load N              make N sessions, each of a user of its own (kind a)
    check               make, read, change and revoke some sessions (kind c); every answer must be
                        right
    stock N             make three sessions of each of N users (kind b)
    run CALL N MS       on N connections call again and again for MS milliseconds, or revoke_all
                        once for each user of the stock; answers nanoseconds: the whole, each call

or with "error" and a reason, after which it ends.  A connection goes over sessions of its own, and
every answer is looked at: a call that finds no session, or another user's, is an error.

In a round every side of a runtime runs a block, in an order that changes by chance; a ratio is that
of two blocks of one round.  A side that fails, or does not answer in time, is a row that says so,
and is started once more, for the next call; after MINUTES nothing more is begun.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import random
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import redis

from sides import OPERATIONS, SIDES, sides_of
from tables import cell_rows, print_rows

ANSWER_SECONDS = 60
USERS_OF_STOCK = 64
PACKAGES = ("Django", "django-rest-knox", "django-user-sessions", "psycopg", "redis", "hiredis")
NODE_PACKAGES = ("pg", "connect-pg-simple", "better-auth")


class Failed(Exception):
    """A side gave no right answer."""


class Process:
    """A side's process."""

    def __init__(self, side: str, sessions: int) -> None:
        runtime, name = SIDES[side].runtime, SIDES[side].name
        arguments = [text.format(**places()) for text in SIDES[side].arguments]
        program = json.loads(os.environ["BENCH_PROGRAMS"])[runtime]
        self.rest = b""
        self.connections = 0
        self.pids: list[int] = []
        self.process = subprocess.Popen(  # noqa: S603
            [*program, name, *arguments, Path(__file__).with_name("data.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self.connect(1)
            self.ask(f"load {sessions}")
            self.ask("check")
        except Failed:
            self.end()
            raise

    def ask(self, command: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        output = self.process.stdout.fileno()
        limit = time.monotonic() + ANSWER_SECONDS
        try:
            self.process.stdin.write(f"{command}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed("it ended early") from None
        while b"\n" not in self.rest:
            if not select.select([output], [], [], max(0, limit - time.monotonic()))[0]:
                raise Failed(f"no answer to {command} in {ANSWER_SECONDS} s")
            part = os.read(output, 1 << 20)
            if not part:
                raise Failed(f"it ended at {command}")
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\n")
        answer = line.decode()
        if answer.startswith("error"):
            raise Failed(answer.removeprefix("error "))
        return answer

    def connect(self, count: int) -> None:
        if count != self.connections:
            self.pids = [int(pid) for pid in self.ask(f"connect {count}").split()]
            self.connections = count

    def end(self) -> None:
        """Its own end, or else a violent one."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self.process.stdin.close()
            self.process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def places() -> dict[str, str]:
    return {
        "postgres": os.environ["BENCH_PGHOST"],
        "everysec": os.environ["BENCH_REDIS"],
        "always": os.environ["BENCH_REDIS_ALWAYS"],
    }


def cpu_ns(pids: list[int]) -> dict[int, int]:
    """The CPU time of processes, by the kernel's clock of each."""
    times = {}
    for pid in pids:
        try:
            times[pid] = time.clock_gettime_ns((~pid << 3) | 2)
        except OSError:
            continue
    return times


def used(before: dict[int, int], after: dict[int, int]) -> int:
    return sum(after[pid] - before[pid] for pid in after if pid in before)


def children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


class Servers:
    """PostgreSQL and the two Redis: their processes, and the bytes that they have logged."""

    def __init__(self) -> None:
        self.superuser = psycopg.connect(
            host=places()["postgres"], dbname="app", user="postgres", autocommit=True
        )
        self.redis = {
            name: redis.Redis(unix_socket_path=places()[name]) for name in ("everysec", "always")
        }
        data = self.superuser.execute("SHOW data_directory").fetchone()
        assert data is not None
        self.postmaster = int((Path(data[0]) / "postmaster.pid").read_text().split()[0])

    def pids(self, names: tuple[str, ...]) -> list[int]:
        own = self.superuser.info.backend_pid
        found = []
        for name in names:
            if name == "postgres":
                found += [pid for pid in children(self.postmaster) if pid != own]
            else:
                found.append(int(self.redis[name].info("server")["process_id"]))
        return found

    def logged(self, names: tuple[str, ...]) -> int:
        total = 0
        for name in names:
            if name == "postgres":
                row = self.superuser.execute(
                    "SELECT pg_current_wal_insert_lsn() - '0/0'"
                ).fetchone()
                assert row is not None
                total += int(row[0])
            else:
                total += int(self.redis[name].info("persistence")["aof_current_size"])
        return total

    def configure(self, setting: str) -> None:
        self.superuser.execute(f"ALTER SYSTEM SET {setting}")
        self.superuser.execute("SELECT pg_reload_conf()")
        time.sleep(0.5)

    def tidy(self) -> None:
        self.superuser.execute("VACUUM (ANALYZE)")


class Measurement:
    def __init__(
        self,
        sessions: int,
        rounds: int,
        milliseconds: int,
        minutes: int,
        connections: list[int],
    ) -> None:
        self.sessions = sessions
        self.rounds = rounds
        self.milliseconds = milliseconds
        self.connections = connections
        self.servers = Servers()
        self.start = time.monotonic()
        self.limit = self.start + 60 * minutes
        self.processes: dict[str, Process] = {}
        self.starts: dict[str, int] = defaultdict(int)
        self.chance = random.Random(1)  # noqa: S311
        #: of each "call connections side": blocks, and the times of all their calls
        self.blocks: dict[str, list[dict[str, float]]] = defaultdict(list)
        self.times: dict[str, dict[str, float]] = {}
        #: bytes logged for each call, of each "call side"
        self.written: dict[str, float] = {}
        self.failures: list[tuple[str, int, str, str]] = []

    def process(self, side: str) -> Process:
        if side not in self.processes:
            if self.starts[side] > 1:
                raise Failed("it has failed twice")
            self.starts[side] += 1
            self.processes[side] = Process(side, self.sessions)
        return self.processes[side]

    def failed(self, operation: str, connections: int, side: str, reason: str) -> None:
        self.failures.append((operation, connections, side, reason))
        print(f"{operation}, {connections} connections, {SIDES[side].title}: FAILED, {reason}")
        if side in self.processes:
            self.processes.pop(side).end()

    def block(self, operation: str, connections: int, side: str) -> tuple[int, list[int]]:
        """The nanoseconds of a block, and of its calls."""
        whole, *calls = map(
            int,
            self.process(side).ask(f"run {operation} {connections} {self.milliseconds}").split(),
        )
        if not calls:
            raise Failed("no call was made")
        return whole, calls

    def prepare(self, operation: str, side: str) -> None:
        if operation == "revoke_all":
            self.process(side).ask(f"stock {USERS_OF_STOCK}")

    def cell(self, operation: str, connections: int, runtime: str) -> None:
        """A call by the sides of a runtime on so many connections."""
        sides = sides_of(runtime, operation)
        server_pids = {}
        latencies: dict[str, list[int]] = defaultdict(list)
        for side in list(sides):
            try:
                self.process(side).connect(connections)
                self.prepare(operation, side)
                # every connection prepares its statements
                self.block(operation, connections, side)
                server_pids[side] = self.servers.pids(SIDES[side].servers)
            except Failed as failure:
                self.failed(operation, connections, side, str(failure))
                sides.remove(side)
        for number in range(self.rounds):
            for side in self.chance.sample(sides, len(sides)):
                process = self.processes[side]
                try:
                    self.prepare(operation, side)
                    client = cpu_ns(process.pids)
                    server = cpu_ns(server_pids[side])
                    whole, calls = self.block(operation, connections, side)
                except Failed as failure:
                    self.failed(operation, connections, side, str(failure))
                    sides.remove(side)
                    continue
                self.blocks[f"{operation} {connections} {side}"].append(
                    {
                        "round": number,
                        "rate": len(calls) / whole * 1e9,
                        "client": used(client, cpu_ns(process.pids)) / len(calls) / 1000,
                        "server": used(server, cpu_ns(server_pids[side])) / len(calls) / 1000,
                    }
                )
                latencies[side] += calls
        for side, calls in latencies.items():
            calls.sort()
            self.times[f"{operation} {connections} {side}"] = {
                "p50": calls[len(calls) // 2] / 1000,
                "p99": calls[int(len(calls) * 0.99)] / 1000,
                "calls": len(calls),
            }

    def bytes_of(self, operation: str, side: str) -> None:
        try:
            self.process(side).connect(1)
            self.prepare(operation, side)
            before = self.servers.logged(SIDES[side].servers)
            _, calls = self.block(operation, 1, side)
        except Failed as failure:
            self.failed(operation, 1, side, str(failure))
            return
        logged = self.servers.logged(SIDES[side].servers) - before
        self.written[f"{operation} {side}"] = logged / len(calls)

    def all(self) -> None:
        runtimes = list(dict.fromkeys(side.runtime for side in SIDES.values()))
        cells = [
            (operation, connections, runtime)
            for operation in OPERATIONS
            for connections in self.connections
            for runtime in runtimes
        ]
        for done, (operation, connections, runtime) in enumerate(cells):
            if time.monotonic() > self.limit:
                for side in sides_of(runtime, operation):
                    self.failures.append((operation, connections, side, "the time was over"))
                continue
            if done:
                passed = time.monotonic() - self.start
                left = passed * (len(cells) - done) / done
                print(f"{done} of {len(cells)}, about {left:.0f} s left", file=sys.stderr)
            if runtime == runtimes[0]:
                self.servers.tidy()
            self.cell(operation, connections, runtime)
            print_rows(cell_rows(self.results(), operation, connections, runtime))
            sys.stdout.flush()
        self.servers.tidy()
        # Their number depends on the last checkpoint, not on the calls.
        self.servers.configure("full_page_writes = off")
        for operation in OPERATIONS:
            for runtime in runtimes:
                for side in sides_of(runtime, operation):
                    measured = f"{operation} {self.connections[0]} {side}" in self.times
                    if measured and time.monotonic() < self.limit:
                        self.bytes_of(operation, side)

    def end(self) -> None:
        for process in self.processes.values():
            process.end()

    def results(self) -> dict[str, Any]:
        return {
            "blocks": self.blocks,
            "times": self.times,
            "written": self.written,
            "failures": self.failures,
            "sessions": self.sessions,
            "rounds": self.rounds,
            "milliseconds": self.milliseconds,
            "connections": self.connections,
        }

    def versions(self) -> dict[str, str]:
        row = self.servers.superuser.execute("SHOW server_version").fetchone()
        assert row is not None
        modules = Path(os.environ["BENCH_NODE_MODULES"])
        return {
            "PostgreSQL": row[0],
            "Redis": self.servers.redis["always"].info("server")["redis_version"],
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
            "Node": subprocess.check_output(["node", "--version"], text=True).strip("v\n"),  # noqa: S607
            **{
                name: json.loads((modules / name / "package.json").read_text())["version"]
                for name in NODE_PACKAGES
            },
        }


def main() -> int:
    output, *numbers = sys.argv[1:]
    sessions, rounds, milliseconds, minutes, *connections = map(int, numbers)
    measurement = Measurement(sessions, rounds, milliseconds, minutes, connections)
    try:
        measurement.all()
        results = {**measurement.results(), "versions": measurement.versions()}
    finally:
        measurement.end()
    Path(output).write_text(json.dumps(results))
    return 1 if measurement.failures else 0


if __name__ == "__main__":
    sys.exit(main())
