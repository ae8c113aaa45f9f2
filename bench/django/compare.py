"""Let the sides of bench/django.sh take turns, and print what they took as JSON.

    compare.py FOLDER GENERATIONS ROUNDS BLOCK

FOLDER has SIDE.json of every side.  A block is BLOCK requests.  In a round each comparison runs a
block of either side, next to each other; which comes first, and the order of the comparisons,
change by chance.  After ROUNDS rounds all processes are started again, GENERATIONS times in all: a
process keeps the luck of its memory layout as long as it lives.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import psycopg
import redis

from sides import COMPARISONS, SIDES

PACKAGES = ("Django", "djangorestframework", "django-rest-knox", "psycopg", "redis", "hiredis")


class Process:
    """A side's process; see side.py."""

    def __init__(self, side: str, file: Path) -> None:
        self.sent = 0
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, Path(__file__).with_name("side.py"), "serve", file],
            env={**os.environ, "BENCH_SIDE": side},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str, count: int) -> list[int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command} {self.sent} {count}\n")
        self.process.stdin.flush()
        self.sent += count
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a side ended early")
        return [int(number) for number in answer.split()]

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(folder: Path, generations: int, rounds: int, block: int) -> dict[str, Any]:
    """Requests per second of each block, ratios of neighbours, what a request asks.

    And nanoseconds of the client's CPU for a look-up of a session, once a round.
    """
    rates: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    with_cookies = [side for side, description in SIDES.items() if description.middleware]
    ratios: list[list[float]] = [[] for _ in COMPARISONS]
    queries: dict[str, float] = {}
    commands: dict[str, float] = {}
    chance = random.Random(1)  # noqa: S311
    for generation in range(generations):
        processes = {}
        for side in SIDES:
            file = folder / f"{side}.json"
            users = len(json.loads(file.read_text()))
            process = processes[side] = Process(side, file)
            # The first time fills caches, and prepares statements.
            process.ask("count", users)
            if generation == 0:
                asked = process.ask("count", users)
                queries[side], commands[side] = (number / users for number in asked)
            process.ask("time", block)
        for _ in range(rounds):
            for number in chance.sample(range(len(COMPARISONS)), len(COMPARISONS)):
                ours, peer, _ = COMPARISONS[number]
                pair = [ours, peer]
                chance.shuffle(pair)
                for side in pair:
                    [nanoseconds] = processes[side].ask("time", block)
                    rates[side].append(block / nanoseconds * 1e9)
                ratios[number].append(rates[ours][-1] / rates[peer][-1])
            for side in chance.sample(with_cookies, len(with_cookies)):
                [nanoseconds] = processes[side].ask("cpu", block)
                cpu[side].append(nanoseconds / block)
        for process in processes.values():
            process.end()
    return {
        "rates": rates,
        "ratios": ratios,
        "queries": queries,
        "commands": commands,
        "cpu": cpu,
    }


def main() -> None:
    folder, *numbers = sys.argv[1:]
    generations, rounds, block = map(int, numbers)
    results = measure(Path(folder), generations, rounds, block)
    server = redis.Redis(unix_socket_path=os.environ["BENCH_REDIS"])
    with psycopg.connect(host=os.environ["BENCH_PGHOST"], dbname="app", user="web") as connection:
        versions = {
            "PostgreSQL": connection.execute("SHOW server_version").fetchone()[0],
            "Redis": server.info("server")["redis_version"],
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        }
    results.update(generations=generations, rounds=rounds, block=block, versions=versions)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
