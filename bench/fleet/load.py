"""Traffic of an application against one or several shards, and what it costs the servers.

The client routes as applications do: by the bucket in a token, and by that of a user at a login.
Everything that is measured is printed as one JSON object.

    load.py prepare SERVERS STATE --sessions N --data BYTES
    load.py run SERVERS STATE --seconds S --reads R [--logins L --refreshes F --rotations O
        --updates U --logouts E]

SERVERS is a file with a line for each shard: the directory of its socket and its data directory,
separated by a tab.  STATE is a file for the tokens.  Rates are those of all shards together.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

OPERATIONS = ("reads", "logins", "refreshes", "rotations", "updates", "logouts")
BUCKETS = 65536
TICKS = os.sysconf("SC_CLK_TCK")
DATABASE = "dbname=postgres user=postgres"

LOGIN = """SELECT session_token FROM session_create(%s, %s::jsonb, ip => '192.0.2.1',
    user_agent => 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0')"""
PREPARE = """SELECT u, (session_create(u, %s::jsonb, ip => '192.0.2.1',
    user_agent => 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0')
    ).session_token FROM unnest(%s::text[]) AS u"""


class Server(NamedTuple):
    socket: str
    data: Path

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(f"host={self.socket} {DATABASE}", autocommit=True)

    def postmaster(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])


def servers_in(path: str) -> list[Server]:
    return [
        Server(socket, Path(data))
        for socket, data in (line.split("\t") for line in Path(path).read_text().splitlines())
    ]


def shard_of(bucket: int, shards: int) -> int:
    return bucket * shards // BUCKETS


def cpu_seconds(postmaster: int) -> float:
    """Of a server: its processes, and those that it has had."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name of the program, in parentheses, may hold anything.
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(stat.parent.name) == postmaster:
            ticks += sum(int(field) for field in fields[11:15])
        elif int(fields[1]) == postmaster:
            ticks += sum(int(field) for field in fields[11:13])
    return ticks / TICKS


class Snapshot(NamedTuple):
    """What a server has used up so far."""

    cpu: float
    wal: int
    page_images: int
    events: int
    touches: int
    swept: int
    sessions: int
    session_bytes: int
    event_bytes: int


SNAPSHOT = """SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, (SELECT wal_fpi FROM pg_stat_wal),
    (SELECT count(*) FROM session_events), touches_flushed, sessions_swept,
    (SELECT count(*) FROM user_sessions), pg_total_relation_size('user_sessions'),
    (SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_partition_tree('session_events'))
    FROM session_stats WHERE database_name = current_database()"""


def snapshot(server: Server) -> Snapshot:
    with server.connect() as connection:
        row = connection.execute(SNAPSHOT).fetchone()
    assert row is not None
    return Snapshot(cpu_seconds(server.postmaster()), *(int(value) for value in row))


def payload(size: int) -> str:
    """Data of about so many bytes as JSON, which does not compress."""
    return json.dumps({"k": random.Random(1).randbytes(size // 2).hex()})  # noqa: S311


def prepare(servers: list[Server], state: Path, sessions: int, data: int) -> None:
    users = [f"user{i}" for i in range(sessions)]
    tokens: list[list[str]] = [[] for _ in servers]
    with servers[0].connect() as connection:
        buckets = connection.execute(
            "SELECT session_bucket(u) FROM unnest(%s::text[]) AS u", [users]
        ).fetchall()
    for shard, server in enumerate(servers):
        own = [
            user
            for user, (bucket,) in zip(users, buckets, strict=True)
            if shard_of(bucket, len(servers)) == shard
        ]
        with server.connect() as connection:
            for begin in range(0, len(own), 1000):
                print(f"\r{shard}: {begin} of {len(own)}", end="", file=sys.stderr)
                rows = connection.execute(PREPARE, [payload(data), own[begin : begin + 1000]])
                tokens[shard] += [token for _, token in rows]
            found = connection.execute(
                "SELECT DISTINCT session_token_bucket(t) * %s / 65536 FROM unnest(%s::text[]) AS t",
                [len(servers), tokens[shard]],
            ).fetchall()
            if found != [(shard,)]:
                sys.exit(f"tokens of shard {shard} name {found}")
            connection.execute("VACUUM (ANALYZE) user_sessions")
            connection.execute("CHECKPOINT")
    print(file=sys.stderr)
    state.write_text(json.dumps({"data": data, "tokens": tokens}))


def keep_tokens(state: Path, shards: int, tokens: list[tuple[int, str]]) -> None:
    """Those that clients have now, as they replace and end sessions."""
    known = json.loads(state.read_text())
    known["tokens"] = [[token for at, token in tokens if at == shard] for shard in range(shards)]
    state.write_text(json.dumps(known))


class Client:
    """One process, with a connection to each shard."""

    def __init__(self, servers: list[Server], state: Path, number: int, clients: int) -> None:
        known = json.loads(state.read_text())
        self.data = payload(known["data"])
        self.connections = [server.connect() for server in servers]
        # Each client has tokens of its own, as it replaces and ends some.
        self.tokens = [
            (shard, token)
            for shard, tokens in enumerate(known["tokens"])
            for token in tokens[number::clients]
        ]
        self.random = random.Random(number)  # noqa: S311
        self.random.shuffle(self.tokens)
        self.users = [f"client{number}-{i}" for i in range(20000)]
        rows = self.connections[0].execute(
            "SELECT session_bucket(u) FROM unnest(%s::text[]) AS u", [self.users]
        )
        self.shards = [shard_of(bucket, len(servers)) for (bucket,) in rows]
        self.done = dict.fromkeys(OPERATIONS, 0)
        self.waited = dict.fromkeys(OPERATIONS, 0.0)

    def ask(self, shard: int, sql: str, *parameters: Any) -> Any:
        row = self.connections[shard].execute(sql, parameters, prepare=True).fetchone()
        if row is None or row[0] is None:
            sys.exit(f"shard {shard} has no answer to {sql}")
        return row[0]

    def perform(self, operation: str) -> None:
        began = time.perf_counter()
        if operation == "logins":
            i = self.done[operation] % len(self.users)
            shard = self.shards[i]
            self.tokens.append((shard, self.ask(shard, LOGIN, self.users[i], self.data)))
        else:
            at = self.random.randrange(len(self.tokens))
            shard, token = self.tokens[at]
            if operation == "reads":
                self.ask(shard, "SELECT session_get_json(%s)", token)
            elif operation == "refreshes":
                self.ask(shard, "SELECT session_id FROM session_refresh(%s)", token)
            elif operation == "rotations":
                self.tokens[at] = (
                    shard,
                    self.ask(
                        shard,
                        "SELECT session_token FROM session_refresh(%s, rotate => true)",
                        token,
                    ),
                )
            elif operation == "updates":
                patch = json.dumps({"n": self.done[operation]})
                self.ask(shard, "SELECT version FROM session_update(%s, %s::jsonb)", token, patch)
            else:
                self.tokens[at] = self.tokens[-1]
                self.tokens.pop()
                self.ask(shard, "SELECT session_invalidate(%s)", token)
        self.waited[operation] += time.perf_counter() - began
        self.done[operation] += 1

    def run(self, rates: dict[str, float], seconds: float) -> None:
        """Operations at random, at their rates; what is late is not left out."""
        end = time.perf_counter() + seconds
        names = [name for name in OPERATIONS if rates[name] > 0]
        weights = [rates[name] for name in names]
        due = time.perf_counter()
        while due < end:
            late = time.perf_counter() - due
            if late < 0:
                time.sleep(-late)
            self.perform(self.random.choices(names, weights)[0])
            due += self.random.expovariate(sum(weights))


def client_process(
    servers: list[Server],
    state: Path,
    number: int,
    clients: int,
    rates: dict[str, float],
    seconds: float,
    ready: Any,
    results: Any,
) -> None:
    client = Client(servers, state, number, clients)
    for shard in range(len(servers)):
        client.connections[shard].execute("SELECT 1")
    ready.wait()
    before = time.process_time()
    client.run({name: rate / clients for name, rate in rates.items()}, seconds)
    cpu = time.process_time() - before
    results.put((client.done, client.waited, cpu, client.tokens))


def answer(results: Any, processes: list[Any]) -> Any:
    """The next result; the end, if a client has failed."""
    while True:
        try:
            return results.get(timeout=1)
        except queue.Empty:
            if any(process.exitcode for process in processes):
                sys.exit("a client has failed")


def run(
    servers: list[Server], state: Path, rates: dict[str, float], seconds: float, clients: int
) -> dict[str, Any]:
    context = get_context("fork")
    ready = context.Barrier(clients + 1)
    results: Any = context.Queue()
    processes = [
        context.Process(
            target=client_process,
            args=(servers, state, number, clients, rates, seconds, ready, results),
        )
        for number in range(clients)
    ]
    for process in processes:
        process.start()
    for server in servers:
        with server.connect() as connection:
            connection.execute("CHECKPOINT")
    before = [snapshot(server) for server in servers]
    ready.wait()
    began = time.perf_counter()
    answers = [answer(results, processes) for _ in processes]
    for process in processes:
        process.join()
    took = time.perf_counter() - began
    # What was used at the end is written within flush_interval.
    after = [snapshot(server) for server in servers]
    keep_tokens(state, len(servers), [token for found in answers for token in found[3]])
    shards = [
        {name: getattr(b, name) - getattr(a, name) for name in Snapshot._fields}
        | {"live": b.sessions, "session_size": b.session_bytes}
        for a, b in zip(before, after, strict=True)
    ]
    return {
        "seconds": took,
        "done": {name: sum(found[0][name] for found in answers) for name in OPERATIONS},
        "waited": {name: sum(found[1][name] for found in answers) for name in OPERATIONS},
        "client_cpu": sum(found[2] for found in answers),
        "shards": shards,
        "total": {name: sum(shard[name] for shard in shards) for name in shards[0]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("prepare", "run"))
    parser.add_argument("servers")
    parser.add_argument("state", type=Path)
    parser.add_argument("--sessions", type=int, default=10000)
    parser.add_argument("--data", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=4)
    for name in OPERATIONS:
        parser.add_argument(f"--{name}", type=float, default=0)
    arguments = parser.parse_args()
    servers = servers_in(arguments.servers)
    if arguments.what == "prepare":
        prepare(servers, arguments.state, arguments.sessions, arguments.data)
    else:
        rates = {name: getattr(arguments, name) for name in OPERATIONS}
        result = run(servers, arguments.state, rates, arguments.seconds, arguments.clients)
        print(json.dumps(result))


if __name__ == "__main__":
    main()
