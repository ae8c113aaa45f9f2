"""Let the sides of bench/django.sh take turns, and print the tables in Markdown.

    compare.py FOLDER GENERATIONS ROUNDS BLOCK

FOLDER has SIDE.json of every side.  A block is BLOCK requests.  In a round each comparison runs a
block of either side, next to each other; which comes first, and the order of the comparisons,
change by chance.  After ROUNDS rounds all processes are started anew, GENERATIONS times in all: a
process keeps the luck of its memory layout as long as it lives.
"""

from __future__ import annotations

import importlib.metadata
import os
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from sides import SIDES


class Comparison(NamedTuple):
    ours: str
    peer: str
    #: Whether ours is to be at least as fast.
    promised: bool = False


COMPARISONS = (
    Comparison("cached", "cached_db", promised=True),
    Comparison("cached", "cache"),
    Comparison("cached", "db"),
    Comparison("cached", "knox"),
    Comparison("uncached", "db", promised=True),
    Comparison("uncached", "knox"),
    Comparison("uncached", "cached_db"),
    Comparison("uncached", "cache"),
    Comparison("cached_bare", "cached"),
    Comparison("uncached_bare", "uncached"),
)


class Process:
    """A side's process; see side.py."""

    def __init__(self, side: str, folder: Path) -> None:
        self.sent = 0
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("side.py"), "serve", folder / f"{side}.json"],
            env={**os.environ, "BENCH_SIDE": side},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str, count: int) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command} {self.sent} {count}\n")
        self.process.stdin.flush()
        self.sent += count
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a side ended early")
        return int(answer)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(
    folder: Path, generations: int, rounds: int, block: int
) -> tuple[dict[str, list[float]], dict[Comparison, list[float]], dict[str, float]]:
    """Requests per second of each block, ratios of neighbours, queries per request."""
    rates: dict[str, list[float]] = defaultdict(list)
    ratios: dict[Comparison, list[float]] = defaultdict(list)
    queries: dict[str, float] = {}
    chance = random.Random(1)  # noqa: S311
    for generation in range(generations):
        processes = {side: Process(side, folder) for side in SIDES}
        users = (folder / "db.json").read_text().count("HTTP_")
        for side, process in processes.items():
            # Twice: the first time fills caches, and prepares statements.
            process.ask("count", users)
            if generation == 0:
                queries[side] = process.ask("count", users) / users
            process.ask("time", block)
        for _ in range(rounds):
            for comparison in chance.sample(COMPARISONS, len(COMPARISONS)):
                pair = [comparison.ours, comparison.peer]
                chance.shuffle(pair)
                for side in pair:
                    rates[side].append(block / processes[side].ask("time", block) * 1e9)
                ratios[comparison].append(
                    rates[comparison.ours][-1] / rates[comparison.peer][-1]
                )
        for process in processes.values():
            process.end()
    return rates, ratios, queries


def tenths(values: list[float]) -> tuple[float, float]:
    cut = statistics.quantiles(values, n=10, method="inclusive")
    return cut[0], cut[-1]


def main() -> None:
    folder, *numbers = sys.argv[1:]
    rates, ratios, queries = measure(Path(folder), *map(int, numbers))
    packages = ("Django", "djangorestframework", "django-rest-knox", "psycopg", "redis", "hiredis")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"Python {sys.version.split()[0]}, {versions}; {len(next(iter(ratios.values())))} pairs")
    print("of blocks for each comparison.\n")
    print("| side | requests/s | 10 – 90 % | database queries per request |")
    print("|---|---|---|---|")
    for side, description in SIDES.items():
        low, high = tenths(rates[side])
        print(
            f"| {description.title} | {statistics.median(rates[side]):,.0f} "
            f"| {low:,.0f} – {high:,.0f} | {queries[side]:.2f} |"
        )
    print("\n| requests/s of | against | ratio | 10 – 90 % | target | |")
    print("|---|---|---|---|---|---|")
    for comparison in COMPARISONS:
        low, high = tenths(ratios[comparison])
        ratio = statistics.median(ratios[comparison])
        verdict = "pass" if ratio >= 1 else "**MISS**"
        target = f"≥ 1 | {verdict}" if comparison.promised else "| "
        print(
            f"| {SIDES[comparison.ours].title} | {SIDES[comparison.peer].title} "
            f"| {ratio:.2f} | {low:.2f} – {high:.2f} | {target} |"
        )


if __name__ == "__main__":
    main()
