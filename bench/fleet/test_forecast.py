#!/usr/bin/env python3
"""Tests of the forecast, by the costs in costs.json."""

# They run without pytest.
# ruff: noqa: PT009, PT027

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from model import DAY, Load, Machine, Option, costs_in, distinct, expected, needed, once_in

HERE = Path(__file__).resolve().parent
COSTS = costs_in(HERE / "costs.json")
PAGE = HERE.parent.parent / "docs" / "scaling.md"
LOAD = Load(
    sessions=5e6,
    reads=10000,
    logins=80,
    refreshes=100,
    rotations=20,
    updates=30,
    logouts=25,
    expiries=55,
    in_use=0.1,
    data=400,
    touch_interval=60,
    cache_ttl=300,
    event_retention=90 * DAY,
    event_partition=30 * DAY,
    checkpoint=300,
)
MACHINE = Machine(cores=4, utilisation=0.5, memory=16e9, connections=200)
ALONE = Option("alone", cache=False, standbys=0, read_standbys=False)
CACHED = replace(ALONE, cache=True)
STANDBY = replace(ALONE, standbys=1)
READ = replace(STANDBY, read_standbys=True)


def forecast(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, str(HERE / "forecast.py"), *arguments], capture_output=True, text=True
    )


class Parts(unittest.TestCase):
    def test_uses(self) -> None:
        self.assertAlmostEqual(once_in(60, 1e6, 1), 1, places=3)
        self.assertAlmostEqual(once_in(60, 600, 1e9), 10, places=3)
        self.assertEqual(once_in(60, 0, 10), 0)
        self.assertEqual(once_in(60, 10, 0), 0)

    def test_pages(self) -> None:
        self.assertAlmostEqual(distinct(1e9, 5), 5, places=3)
        self.assertAlmostEqual(distinct(100, 1e6), 100)
        self.assertEqual(distinct(0, 5), 0)


class Forecasts(unittest.TestCase):
    def test_twice_the_load_is_twice_the_work(self) -> None:
        rates = ("sessions", "reads", "logins", "refreshes", "rotations", "updates", "logouts")
        twice = replace(LOAD, **{n: 2 * getattr(LOAD, n) for n in (*rates, "expiries")})
        one, two = expected(COSTS, LOAD, ALONE, 2), expected(COSTS, twice, ALONE, 4)
        for name in ("primary_cpu", "wal", "events", "connections", "memory", "disk"):
            self.assertAlmostEqual(getattr(two, name) / getattr(one, name), 2, places=6, msg=name)

    def test_shards_divide_the_pages_and_repeat_what_idles(self) -> None:
        one, four = expected(COSTS, LOAD, ALONE, 1), expected(COSTS, LOAD, ALONE, 4)
        self.assertAlmostEqual(four.cpu["idle"], 4 * one.cpu["idle"])
        self.assertEqual(four.cpu["logins"], one.cpu["logins"])
        self.assertEqual(four.events, one.events)

    def test_events(self) -> None:
        found = expected(COSTS, LOAD, ALONE, 1)
        # login, refresh, rotation, update and end leave one each
        wanted = 80 + 100 + 20 + 30 + 25 + 55
        self.assertAlmostEqual(found.events / wanted, 1, delta=0.1)
        self.assertAlmostEqual(found.event_count, found.events * 90 * DAY)

    def test_a_cache_takes_reads(self) -> None:
        alone, cached = expected(COSTS, LOAD, ALONE, 1), expected(COSTS, LOAD, CACHED, 1)
        self.assertLess(cached.cpu["reads"], alone.cpu["reads"] / 2)
        self.assertLess(cached.primary_cpu, alone.primary_cpu)
        self.assertGreater(cached.redis_cpu, 0)
        self.assertGreater(cached.redis_memory, LOAD.sessions * LOAD.data)
        self.assertEqual(alone.redis_memory, 0)

    def test_a_standby_copies_and_may_take_reads(self) -> None:
        alone, standby = expected(COSTS, LOAD, ALONE, 1), expected(COSTS, LOAD, STANDBY, 1)
        read = expected(COSTS, LOAD, READ, 1)
        self.assertEqual(standby.primary_cpu, alone.primary_cpu)
        self.assertEqual(standby.disk, 2 * alone.disk)
        self.assertGreater(standby.standby_cpu, 0)
        self.assertEqual(read.cpu["reads"], 0)
        self.assertGreater(read.standby_cpu, standby.standby_cpu)

    def test_no_shard_too_many(self) -> None:
        for machine in (
            MACHINE,
            replace(MACHINE, cores=64, memory=3e9),
            replace(MACHINE, cores=64, memory=1e12, connections=2),
        ):
            found = needed(COSTS, LOAD, machine, ALONE)
            self.assertGreater(found.shards, 1)
            fewer = expected(COSTS, LOAD, ALONE, found.shards - 1)
            exceeded = (
                fewer.primary_cpu > (found.shards - 1) * machine.cores * machine.utilisation,
                fewer.memory > (found.shards - 1) * machine.memory,
                fewer.connections > (found.shards - 1) * machine.connections,
            )
            self.assertIn(True, exceeded, msg=str(machine))

    def test_one_suffices(self) -> None:
        quiet = {"refreshes": 0, "rotations": 0, "updates": 0, "logouts": 0}
        little = replace(LOAD, sessions=1000, reads=10, logins=1, expiries=1, **quiet)
        self.assertEqual(needed(COSTS, little, MACHINE, ALONE).shards, 1)

    def test_impossible(self) -> None:
        with self.assertRaisesRegex(ValueError, "memory"):
            needed(COSTS, LOAD, replace(MACHINE, memory=COSTS["server_bytes"] / 2), ALONE)


class CommandLine(unittest.TestCase):
    def test_page(self) -> None:
        """docs/scaling.md has a command, and what it prints."""
        page = PAGE.read_text()
        command = re.search(r"^bench/fleet/forecast\.py (.*)$", page, re.M)
        assert command is not None
        answer = forecast(*command[1].split())
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertIn(answer.stdout.strip(), page)

    def test_picture(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "a.svg"
            few = ["--sessions", "1M", "--reads", "100", "--logins", "5", "--svg", str(path)]
            self.assertEqual(forecast(*few).returncode, 0)
            text = path.read_text()
        root = ElementTree.fromstring(text)  # noqa: S314
        bars = [e for e in root.iter() if re.fullmatch("p[0-9]", e.get("class", ""))]
        self.assertGreater(len(bars), 10)
        self.assertTrue(all(float(e.get("width", "0")) >= 0 for e in bars))
        self.assertIn("prefers-color-scheme: dark", text)

    def test_refusals(self) -> None:
        good = {"--sessions": "1M", "--reads": "100", "--logins": "5"}
        for option, value, complaint in (
            ("--sessions", "-1", "argument --sessions"),
            ("--reads", "many", "argument --reads"),
            ("--ttl", "0", "longer than 0"),
            ("--ttl", "5 weeks", "is not a number"),
            ("--utilisation", "1.5", "at most 1"),
            ("--memory", "1M", "no fleet suffices"),
            ("--cores", "0", "must be more than 0"),
        ):
            words = [word for pair in (good | {option: value}).items() for word in pair]
            answer = forecast(*words)
            self.assertNotEqual(answer.returncode, 0, option)
            self.assertIn(complaint, answer.stderr)
            self.assertNotIn("Traceback", answer.stderr)


if __name__ == "__main__":
    unittest.main()
