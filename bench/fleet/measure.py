"""The cost of each operation on one server, as costs.json says it.

    measure.py SERVERS STATE CONFIGURE REDIS STANDBY DATA FACTS

CONFIGURE is a program that takes a setting and its value, sets it on the server, and returns when
it is in effect.  REDIS is the socket of a Redis server.  STANDBY is a program that starts a standby
with the data directory DATA.  FACTS is a JSON object that is included in the output.  Prints
costs.json.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from load import (
    OPERATIONS,
    Client,
    Server,
    Snapshot,
    cpu_seconds,
    payload,
    prepare,
    run,
    servers_in,
    snapshot,
)

SECONDS = float(os.environ["PHASE_SECONDS"])
SESSIONS = int(os.environ["SESSIONS"])
RATE = float(os.environ["RATE"])
DATA = 400
LARGER = 1600
CLIENTS = 4


def only(operation: str) -> dict[str, float]:
    return dict.fromkeys(OPERATIONS, 0.0) | {operation: RATE}


class Bench:
    def __init__(self, server: Server, state: Path, configure: str, redis: str) -> None:
        self.server = server
        self.state = state
        self.configure_program = configure
        self.redis_socket = redis

    def configure(self, name: str, value: str) -> None:
        subprocess.run([self.configure_program, name, value], check=True)  # noqa: S603

    def redis(self, *words: str) -> str:
        command = ["redis-cli", "-s", self.redis_socket, "-n", "1", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603

    def redis_cpu(self) -> float:
        fields = re.findall(r"^used_cpu_(?:user|sys):([0-9.]+)", self.redis("INFO", "cpu"), re.M)
        return sum(map(float, fields))

    def phase(self, operation: str) -> dict[str, Any]:
        print(f"measure: {operation}", file=sys.stderr)
        return run([self.server], self.state, only(operation), SECONDS, CLIENTS)

    def rested(self, seconds: float) -> tuple[Snapshot, Snapshot]:
        before = snapshot(self.server)
        time.sleep(seconds)
        return before, snapshot(self.server)

    def value(self, sql: str) -> float:
        with self.server.connect() as connection:
            row = connection.execute(sql).fetchone()
        assert row is not None
        return float(row[0])


def private_bytes(server: Server, state: Path) -> tuple[float, float]:
    """Memory of a backend that has been at work, and of all other processes of the server."""
    client = Client([server], state, 0, 1)
    for _ in range(200):
        client.perform("reads")
    row = client.connections[0].execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    postmaster = server.postmaster()
    backend = 0.0
    others = 0.0
    for status in Path("/proc").glob("[0-9]*/smaps_rollup"):
        pid = int(status.parent.name)
        try:
            parent = int((status.parent / "stat").read_text().rpartition(")")[2].split()[1])
            if postmaster not in (pid, parent):
                continue
            text = status.read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        kilobytes = sum(
            int(found) for found in re.findall(r"^Private_(?:Clean|Dirty): +(\d+)", text, re.M)
        )
        if pid == row[0]:
            backend = kilobytes * 1024
        else:
            others += kilobytes * 1024
    return backend, others


def operations(bench: Bench, idle_cpu: float) -> dict[str, dict[str, float]]:
    """Without images of pages: those depend on how many pages there are."""
    found: dict[str, dict[str, float]] = {}
    for operation in OPERATIONS:
        result = bench.phase(operation)
        done, used = result["done"][operation], result["total"]
        found[operation] = {
            "cpu_us": (used["cpu"] - idle_cpu * result["seconds"]) / done * 1e6,
            "client_cpu_us": result["client_cpu"] / done * 1e6,
            "wait_us": result["waited"][operation] / done * 1e6,
            "wal": used["wal"] / done,
            "events": used["events"] / done,
        }
    return found


def touches(bench: Bench, idle_cpu: float, read_us: float) -> dict[str, float]:
    """A use that is written: what reads cost more when all are due."""
    bench.configure("session_manager.flush_interval", "1s")
    bench.configure("session_manager.touch_interval", "0")
    result = bench.phase("reads")
    before, after = bench.rested(3)
    bench.configure("session_manager.touch_interval", "60s")
    bench.configure("session_manager.flush_interval", "10s")
    flushed = result["total"]["touches"] + after.touches - before.touches
    cpu = result["total"]["cpu"] + after.cpu - before.cpu
    cpu -= idle_cpu * (result["seconds"] + 3) + result["done"]["reads"] * read_us / 1e6
    wal = result["total"]["wal"] + after.wal - before.wal
    return {
        "cpu_us": max(0.0, cpu) / flushed * 1e6,
        "wait_us": 0.0,
        "wal": wal / flushed,
        "events": 0.0,
    }


def swept(bench: Bench, idle_cpu: float) -> dict[str, float]:
    """An expired session that a worker deletes, and the event of that."""
    count = SESSIONS // 4
    with bench.server.connect() as connection:
        connection.execute(
            "SELECT count(s.session_id) FROM generate_series(1, %s) AS i, LATERAL "
            "session_create('expiring' || i, %s::jsonb, ttl => '1 s', ip => '192.0.2.1') AS s",
            [count, payload(DATA)],
        )
        connection.execute("VACUUM user_sessions")
    before = snapshot(bench.server)
    began = time.monotonic()
    bench.configure("session_manager.sweep_interval", "1s")
    while (after := snapshot(bench.server)).swept - before.swept < count:
        if time.monotonic() > began + 120:
            sys.exit("the worker does not sweep")
        time.sleep(0.5)
    bench.configure("session_manager.sweep_interval", "1d")
    done = after.swept - before.swept
    cpu = after.cpu - before.cpu - idle_cpu * (time.monotonic() - began)
    return {
        "cpu_us": max(0.0, cpu) / done * 1e6,
        "wait_us": 0.0,
        "wal": (after.wal - before.wal) / done,
        "events": (after.events - before.events) / done,
    }


def images(bench: Bench, wal: float) -> float:
    """Bytes of WAL of the image of a page, whose unused middle is left out."""
    bench.configure("full_page_writes", "on")
    result = bench.phase("refreshes")
    bench.configure("full_page_writes", "off")
    used = result["total"]
    return float((used["wal"] - result["done"]["refreshes"] * wal) / used["page_images"])


def redis(bench: Bench, idle_cpu: float, rotation_us: float) -> dict[str, float]:
    bench.configure("session_manager.redis_mode", "strict")
    time.sleep(5)
    before = bench.redis_cpu()
    result = bench.phase("rotations")
    tombstones = bench.redis_cpu() - before
    bench.configure("session_manager.redis_mode", "off")
    time.sleep(5)
    done = result["done"]["rotations"]
    cpu = result["total"]["cpu"] - idle_cpu * result["seconds"]

    # what a reader sends: a value as large as one of a session, and an epoch
    value = "V" * (33 + 24 + 16 + (16 + DATA + 500 + 255) // 256 * 256)
    bench.redis("SET", "session:0", value)
    bench.redis("SET", "session:epoch:0", "0" * 32)
    size = float(bench.redis("MEMORY", "USAGE", "session:0"))
    calls = 50000
    benchmark = ["redis-benchmark", "-q", "-s", bench.redis_socket, "--dbnum", "1"]
    benchmark += ["-c", str(CLIENTS), "-n", str(calls)]

    def cost(*command: str) -> float:
        began = bench.redis_cpu()
        subprocess.run(  # noqa: S603
            [*benchmark, *command],
            check=True,
            capture_output=True,
        )
        return (bench.redis_cpu() - began) / calls * 1e6

    read = cost("MGET", "session:0", "session:epoch:0")
    script = (
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return 0 end "
        "redis.call('SET', KEYS[1], ARGV[1], 'PX', 3000) return 1"
    )
    # two scripts: for the lease, and for the value
    fill = 2 * cost("EVAL", script, "1", "session:1", value)
    return {
        "change_cpu_us": max(0.0, cpu / done * 1e6 - rotation_us),
        "tombstone_cpu_us": tombstones / done * 1e6,
        "read_cpu_us": read,
        "fill_cpu_us": fill,
        "value_bytes": size,
    }


def replaying(bench: Bench, start: str, standby: Server, idle_cpu: float) -> float:
    """Of a standby, in seconds for each million bytes of WAL."""
    subprocess.run([start], check=True, stdout=sys.stderr)  # noqa: S603
    before = cpu_seconds(standby.postmaster())
    result = bench.phase("logins")
    used = cpu_seconds(standby.postmaster()) - before - idle_cpu * result["seconds"]
    return max(0.0, float(used)) / float(result["total"]["wal"] / 1e6)


def main() -> None:
    servers = servers_in(sys.argv[1])
    state, configure, redis_socket = Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    start_standby, standby_data = sys.argv[5], Path(sys.argv[6])
    facts: dict[str, Any] = json.loads(sys.argv[7])
    bench = Bench(servers[0], state, configure, redis_socket)

    empty = snapshot(servers[0])
    prepare(servers, state, SESSIONS, DATA)
    full = snapshot(servers[0])
    session_bytes = (full.session_bytes - empty.session_bytes) / SESSIONS
    heap = bench.value("SELECT pg_relation_size('user_sessions')") / SESSIONS
    user_index = bench.value("SELECT pg_relation_size('user_sessions_user_id_idx')") / SESSIONS
    print("measure: an idle server", file=sys.stderr)
    before, after = bench.rested(SECONDS)
    idle_cpu = (after.cpu - before.cpu) / SECONDS
    idle_wal = (after.wal - before.wal) / SECONDS

    bench.configure("full_page_writes", "off")
    found = operations(bench, idle_cpu)
    found["touches"] = touches(bench, idle_cpu, found["reads"]["cpu_us"])
    found["swept"] = swept(bench, idle_cpu)
    page_image = images(bench, found["refreshes"]["wal"])
    cache = redis(bench, idle_cpu, found["rotations"]["cpu_us"])
    replay = replaying(bench, start_standby, Server("", standby_data), idle_cpu)
    event_indexes = bench.value(
        "SELECT sum(pg_relation_size(indexrelid)) FROM pg_index WHERE indrelid IN "
        "(SELECT relid FROM pg_partition_tree('session_events')) AND NOT indisprimary"
    )
    count = bench.value("SELECT count(*) FROM session_events")
    backend, others = private_bytes(servers[0], state)

    with servers[0].connect() as connection:
        connection.execute("VACUUM FULL user_sessions")
        small = bench.value("SELECT pg_relation_size('user_sessions')")
        more = connection.execute(
            "SELECT count(s.session_id) FROM generate_series(1, %s) AS i, LATERAL "
            "session_create('large' || i, %s::jsonb) AS s",
            [SESSIONS // 4, payload(LARGER)],
        ).fetchone()
    assert more is not None
    large = (bench.value("SELECT pg_relation_size('user_sessions')") - small) / more[0]

    print(
        json.dumps(
            facts
            | {
                "data": DATA,
                "rate": RATE,
                "operations": found,
                "idle_cpu": idle_cpu,
                "idle_wal": idle_wal,
                "page_image_bytes": page_image,
                "session_bytes": session_bytes,
                "session_bytes_per_byte": (large - heap) / (LARGER - DATA),
                "heap_bytes": heap,
                "user_index_bytes": user_index,
                "event_bytes": snapshot(servers[0]).event_bytes / count,
                "event_index_bytes": event_indexes / count,
                "backend_bytes": backend,
                "server_bytes": others,
                "replay_cpu_s_per_mb": replay,
                "redis": cache,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
