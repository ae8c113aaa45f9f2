"""Turn what compare.py wrote into tables on standard output.

    tables.py FILE [FOLDER]

Given a folder, write them into benchmarks.md there.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from sides import COMPARISONS, OPERATIONS, SIDES, Comparison

# bench/report.py: what the pages of all measurements have in common.
sys.path.append(str(Path(__file__).parents[1]))

from report import STORES, cores, markdown, processor, shown, text, write_section

Table = list[tuple[str, ...]]
Results = dict[str, Any]

CALLS = {
    "get": "get",
    "create": "create",
    "refresh": "refresh",
    "revoke_all": "revoke all",
    "mixed": "mixed day",
}


def ratios(
    results: Results, comparison: Comparison, operation: str, connections: int
) -> list[float]:
    """Calls per second over the peer's, of each round that both have."""
    ours, theirs = (
        {
            block["round"]: block["rate"]
            for block in results["blocks"].get(f"{operation} {connections} {side}", ())
        }
        for side in comparison[:2]
    )
    return [ours[number] / theirs[number] for number in ours if number in theirs]


def failure(results: Results, operation: str, connections: int, side: str) -> bool:
    return any(tuple(line[:3]) == (operation, connections, side) for line in results["failures"])


def highest(values: list[float]) -> float:
    """The 90th percentile."""
    return (
        statistics.quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]
    )


def spread(values: list[float]) -> str:
    if len(values) < 2:
        return shown(values[0])
    cut = statistics.quantiles(values, n=10, method="inclusive")
    return f"{shown(statistics.median(values))} ({shown(cut[0])} – {shown(cut[-1])})"


def median(results: Results, key: str, figure: str) -> float:
    return statistics.median(block[figure] for block in results["blocks"][key])


def cell_rows(results: Results, operation: str, connections: int, runtime: str) -> Table:
    """What has been measured of a call on so many connections."""
    rows: Table = []
    for comparison in COMPARISONS:
        ours, peer, operations = comparison
        if SIDES[ours].runtime != runtime or operation not in operations:
            continue
        found = ratios(results, comparison, operation, connections)
        if not found:
            continue
        keys = [f"{operation} {connections} {side}" for side in (ours, peer)]
        rows.append(
            (
                CALLS[operation],
                str(connections),
                SIDES[ours].title,
                SIDES[peer].title,
                *(f"{median(results, key, 'rate'):,.0f}" for key in keys),
                spread(found),
                *(f"{results['times'][key][p]:,.0f}" for p in ("p50", "p99") for key in keys),
            )
        )
    return rows


HEADER = (
    "call",
    "connections",
    "ours",
    "peer",
    "calls/s",
    "peer's",
    "ratio (10 – 90 %)",
    "p50, µs",
    "peer's",
    "p99, µs",
    "peer's",
)


def print_rows(rows: Table) -> None:
    if rows:
        print(text([HEADER, *rows]))


def comparisons(results: Results) -> list[tuple[float, tuple[str, ...]]]:
    """The lowest ratio of each call and pair, and its row."""
    rows = []
    for comparison in COMPARISONS:
        for operation in OPERATIONS:
            if operation not in comparison.operations:
                continue
            cells = []
            lowest = float("inf")
            verdict = ""
            for connections in results["connections"]:
                found = ratios(results, comparison, operation, connections)
                if found:
                    lowest = min(lowest, statistics.median(found))
                    if highest(found) < 1:
                        verdict = "slower"
                    cells.append(spread(found))
                else:
                    lowest = 0
                    cells.append("FAILED")
            ours, peer = (SIDES[side].title for side in comparison[:2])
            rows.append((lowest, (CALLS[operation], ours, peer, *cells, verdict)))
    return sorted(rows, key=lambda row: row[0])


def each_call(results: Results, operation: str) -> Table:
    """The figures of every side, at each number of connections."""
    table: Table = [
        (
            "side",
            f"calls/s at {numbers(results)}",
            "p50, µs",
            "p99, µs",
            "CPU of the client, µs",
            "CPU of the server, µs",
            "logged, bytes",
        )
    ]
    for side, description in SIDES.items():
        keys = [f"{operation} {connections} {side}" for connections in results["connections"]]
        if not any(key in results["times"] for key in keys):
            continue

        def of_blocks(figure: str, keys: list[str] = keys) -> str:
            return " / ".join(
                f"{median(results, key, figure):,.0f}" if key in results["times"] else "FAILED"
                for key in keys
            )

        def of_calls(figure: str, keys: list[str] = keys) -> str:
            return " / ".join(
                f"{results['times'][key][figure]:,.0f}" if key in results["times"] else "FAILED"
                for key in keys
            )

        written = results["written"].get(f"{operation} {side}")
        table.append(
            (
                description.title,
                of_blocks("rate"),
                of_calls("p50"),
                of_calls("p99"),
                of_blocks("client"),
                of_blocks("server"),
                "" if written is None else f"{written:,.0f}",
            )
        )
    return table


def properties() -> Table:
    table: Table = [("side", "flushed when a call returns", "sealed", "sign out everywhere")]
    for side in SIDES.values():
        table.append((side.title, side.durable, side.sealed, side.revokes_all))
    return table


def numbers(results: Results) -> str:
    return ", ".join(map(str, results["connections"]))


def header(results: Results) -> tuple[str, ...]:
    return ("call", "ours", "peer", *(f"at {n}" for n in results["connections"]), "")


def failures(results: Results) -> str:
    lines = [
        f"- **FAILED**: {CALLS[operation]} at {connections}, {SIDES[side].title}: {reason}"
        for operation, connections, side, reason in results["failures"]
    ]
    return "".join(f"{line}\n" for line in lines) + ("\n" if lines else "")


def circumstances(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return f"{versions}.\n{processor()}, {cores()} cores."


def section(results: Results) -> str:
    rows = comparisons(results)
    slower = [row for lowest, row in rows if lowest < 1]
    others = [row for lowest, row in rows if lowest >= 1]
    lost = markdown([header(results), *slower]) if slower else "In none of these comparisons."
    details = "\n\n".join(
        f"**{CALLS[operation].capitalize()}**\n\n{markdown(each_call(results, operation))}"
        for operation in OPERATIONS
    )
    return f"""
Written by `bench/stores.sh --write`; `make bench STEP=stores` prints the same tables. Calls per
second of this extension over those of another store, called from the same program by the same kind
of client, with {results["sessions"]:,} sessions of 400 bytes; more than 1 is faster.
{circumstances(results)}

{failures(results)}### Where this extension is slower

At {numbers(results)} connections, median and 10th to 90th percentile; lowest median first. Without
a mark in the last column, 1 lies within the percentiles.

{lost}

### Where it is not

{markdown([header(results), *others])}

### What each side does

{markdown(properties())}

- **The same data** on every side: 400 bytes of JSON, the user, an address and a user agent. knox
  has only the user; connect-pg-simple and `django.contrib.sessions` keep all in one value, the
  latter without an address and a user agent.
- **This extension** does more in each call than its peers: a write leaves a row in the audit trail,
  a look-up verifies the MAC of the row and records the session's use. It is read by
  `session_get_json`, without the cache in Redis; [below](#a-request-to-django) are requests with
  it.
- **Redis alone** is what a careful developer writes, `bench/stores/native.c`: keys are hashes of
  tokens, values are sealed with XChaCha20-Poly1305 and bound to their keys, each user has a set of
  keys, and what belongs together is one transaction or script. It has no audit trail, no rotation
  with detection of replays, and no transaction with the rest of the application's data.
- **A refresh** extends the session under the same token: EXPIRE, `touch`, `updateSession`, a load
  and a save of Django's sessions, `renew_token`.
- **Revoke all** ends the three sessions of a user.
- **The mixed day** is 95 % get, 2 % create, and 1 % each of refresh, update and revoke. An update
  changes one member of the data: this extension merges it under the row's lock, Redis alone watches
  the key, and connect-pg-simple, better-auth and Django's sessions read and write the whole, the
  last save winning; knox refreshes in its place.
- **A look-up** by better-auth or knox loads the user's row as well. The others leave that to the
  application.
- **Each side at its best.** PostgreSQL and Redis are reached through Unix sockets, connections are
  kept, every statement is prepared on each connection (also those of connect-pg-simple and
  better-auth, which do not do so themselves), better-auth joins (`advanced.database.joins`),
  psycopg runs in C, redis-py parses with hiredis. `fsync` is on, and `synchronous_commit` unless a
  side says otherwise. A comparison with Redis alone is one of equal durability, except
  revocations, which this extension always flushes.
- **Connections** are threads of one C program, queries of one Node process, or processes of Python.
  On {cores()} cores the client's own work is part of every figure; the CPU columns tell it apart.
  The CPU of the server is that of all processes of PostgreSQL, or of Redis.
- **Sides take turns** in blocks of {results["milliseconds"]} ms, in an order that changes by
  chance; a ratio is that of two blocks of one of {results["rounds"]} rounds. p50 and p99 are of
  all calls. Every answer is looked at, and before anything is timed each side makes, changes and
  revokes sessions and must give the right answers.
- **Logged** are bytes of WAL and of Redis' append-only file for each call, in a separate pass
  without images of whole pages. Autovacuum is off; the tables are vacuumed between the calls, and
  no checkpoint comes in between.

### Figures of each side

{details}
"""


def main() -> None:
    results = json.loads(Path(sys.argv[1]).read_text())
    rows = comparisons(results)
    print()
    print(circumstances(results), text([header(results), *(row for _, row in rows)]), sep="\n\n")
    for operation in OPERATIONS:
        print(f"\n{CALLS[operation]}\n\n{text(each_call(results, operation))}")
    print(f"\n{failures(results)}", end="")
    if len(sys.argv) > 2:
        write_section(Path(sys.argv[2]) / "benchmarks.md", STORES, section(results))


if __name__ == "__main__":
    main()
