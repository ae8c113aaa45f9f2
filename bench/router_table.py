"""The table of bench/router.sh.

    router_table.py RESULTS [PAGE]

RESULTS has tab-separated lines: call, way, median and 99th percentile of the round trip, CPU of the
processes in front and of those behind, all in microseconds.  PAGE is docs/benchmarks.md, for the
section to be written there.
"""

import sys
from pathlib import Path

from report import ROUTER, cores, markdown, processor, text, write_section

HEADER = ("call", "way", "p50, µs", "ratio", "p99, µs", "ratio", "CPU, µs", "behind", "ratio")


def table(results):
    rows = [HEADER]
    for line in results.splitlines():
        call, way, *numbers = line.split("\t")
        p50, p99, front, behind = map(float, numbers)
        if way == "direct":
            base = p50, p99, front + behind
        ratios = [
            f"{value / to:.2f}" for value, to in zip((p50, p99, front + behind), base, strict=True)
        ]
        rows.append(
            (
                call,
                way,
                f"{p50:.0f}",
                ratios[0],
                f"{p99:.0f}",
                ratios[1],
                f"{front:.0f}",
                f"{behind:.0f}",
                ratios[2],
            )
        )
    return rows


def section(rows):
    return f"""
Written by `bench/router.sh --write`; `make bench STEP=router` prints the same table. Calls by libpq
to the functions of [session_manager_router](router.md), to four servers on the same machine,
directly and through pgbouncer, against the same calls of the servers that have the sessions.
{processor()}, {cores()} cores.

{markdown(rows)}

- **CPU** is that of server processes: of those that the client is connected to, and of the shards'
  and pgbouncer's behind a router; the ratio is of both together.
- **Round trips** contain the time that each hand-over from one process to another waits for a free
  processor, of which there are {cores()}.
- Of the router's CPU, a good third is its backend's; a shard uses more than for a direct call
  because it parses and plans each call again.
"""


if __name__ == "__main__":
    found = table(Path(sys.argv[1]).read_text())
    print(text(found))
    if len(sys.argv) > 2:
        write_section(Path(sys.argv[2]), ROUTER, section(found))
