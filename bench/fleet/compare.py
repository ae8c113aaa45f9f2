"""A given load on real shards, and what the model forecasts for it.

    compare.py SERVERS STATE COSTS

Prints a table; fails if a figure is further from its forecast than the environment's TOLERANCE.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from load import prepare, run, servers_in
from model import Load, Option, costs_in, expected

SECONDS = float(os.environ["FLEET_SECONDS"])
TOLERANCE = os.environ["TOLERANCE"]
SESSIONS = int(os.environ["SESSIONS"])
DATA = 600
TOUCH_INTERVAL = 10.0
#: Of all shards together, per second.
RATES = {
    "reads": 500.0,
    "logins": 60.0,
    "refreshes": 40.0,
    "rotations": 40.0,
    "updates": 40.0,
    "logouts": 30.0,
}
CLIENTS = 4


def main() -> None:
    servers = servers_in(sys.argv[1])
    state, costs = Path(sys.argv[2]), costs_in(Path(sys.argv[3]))
    prepare(servers, state, SESSIONS, DATA)
    result = run(servers, state, RATES, SECONDS, CLIENTS)
    took, total = result["seconds"], result["total"]
    done = {name: count / took for name, count in result["done"].items()}
    load = Load(
        sessions=SESSIONS,
        **done,
        # the run is too short for that
        expiries=0.0,
        in_use=1.0,
        data=DATA,
        touch_interval=TOUCH_INTERVAL,
        cache_ttl=300.0,
        # what has been written when the run ends
        event_retention=took,
        event_partition=took,
        checkpoint=took,
    )
    forecast = expected(costs, load, Option("", False, 0, False), len(servers))
    figures = {
        "processors": (forecast.primary_cpu, total["cpu"] / took),
        "WAL, kB/s": (forecast.wal / 1e3, total["wal"] / took / 1e3),
        "events/s": (forecast.events, total["events"] / took),
        "bytes of a session": (
            forecast.session_bytes,
            total["session_size"] / total["live"],
        ),
    }
    cpus = [shard["cpu"] / took for shard in result["shards"]]
    print(f"load: {', '.join(f'{name} {rate:.0f}/s' for name, rate in done.items())}")
    print(f"processors of each shard: {', '.join(f'{cpu:.4f}' for cpu in cpus)}")
    print(f"{'':20}{'forecast':>12}{'measured':>12}{'ratio':>8}")
    worst = 0.0
    for name, (thought, measured) in figures.items():
        ratio = measured / thought
        worst = max(worst, abs(ratio - 1))
        print(f"{name:20}{thought:12.3f}{measured:12.3f}{ratio:8.2f}")
    if TOLERANCE != "none" and worst > float(TOLERANCE):
        sys.exit(f"compare.py: a figure is {worst:.0%} from its forecast")


if __name__ == "__main__":
    main()
