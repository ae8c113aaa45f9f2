#!/usr/bin/env python3
"""Turn the results of bench/run.sh into a table on standard output, and, given
a folder, into benchmarks.md and bench.svg there.

With --new in the place of the folder it prints the rows that it has not printed
before.

Results, tab-separated: "blocks" and "drains" as the driver prints them,
"rounds" (label, round, side, figure) and "facts" (name, value).  A ratio is
taken between blocks that ran next to each other, or between the sides of a
round where it has no blocks; shown are the median of the ratios and their
10th and 90th percentile.
"""

import html
import platform
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROUND_TRIP, CPU = 0, 1
# Begin the sections that bench/stores.sh, growth.sh, django.sh, shards.sh and router.sh write, in the order of the page.
STORES = "## Against other session stores\n"
GROWTH = "## Growth\n"
DJANGO = "## A request to Django\n"
SHARDS = "## Shards, routed by the Django package\n"
ROUTER = "## Shards behind a router\n"
SECTIONS = (STORES, GROWTH, DJANGO, SHARDS, ROUTER)


class Row(NamedTuple):
    what: str
    peer: str
    ratios: list            # of the blocks or rounds; one figure for a count
    limit: tuple            # (comparison, number), or () where nothing is promised
    ours: str = ""
    theirs: str = ""
    unit: str = ""

    def holds(self):
        if not self.limit:
            return None
        comparison, number = self.limit
        value = statistics.median(self.ratios)
        return {"≤": value <= number, "≥": value >= number,
                "=": value == number,
                "±": abs(value - 1) <= number}[comparison]

    def verdict(self):
        if not self.ratios:
            return "FAILED"
        return {True: "pass", False: "MISS", None: ""}[self.holds()]

    def target(self):
        if not self.limit:
            return ""
        comparison, number = self.limit
        if comparison == "±":
            return f"1 ± {number:g}"
        return f"{comparison} {shown(number)}{self.unit}"

    def median(self):
        return shown(statistics.median(self.ratios)) + self.unit if self.ratios else ""

    def range(self):
        if len(self.ratios) < 2:
            return self.ratios[0], self.ratios[0]
        tenths = statistics.quantiles(self.ratios, n=10, method="inclusive")
        return tenths[0], tenths[-1]

    def spread(self):
        return " – ".join(map(shown, self.range())) if len(self.ratios) > 1 else ""


def shown(number: float) -> str:
    if number == int(number):
        return f"{number:.0f}"
    return f"{number:.3f}" if number < 0.3 else f"{number:.2f}"


class Results:
    def __init__(self, folder):
        self.figures = defaultdict(lambda: defaultdict(dict))
        for label, turn, block, side, _, wall, cpu in self.lines(folder / "blocks", 7):
            self.figures[label][side][int(turn), int(block)] = (
                float(wall) / 1000, float(cpu) / 1000)
        # drains: microseconds for each row that was deleted
        for label, turn, side, rows, wall, cpu in self.lines(folder / "drains", 6):
            self.figures[label][side][int(turn)] = (
                float(wall) / float(rows) / 1000, float(cpu) / float(rows) / 1000)
        for label, turn, side, figure in self.lines(folder / "rounds", 4):
            self.figures[label][side][int(turn)] = (float(figure),)
        self.facts = dict(self.lines(folder / "facts", 2))
        # parts: what share of a call's server CPU goes where
        self.parts = defaultdict(dict)
        if (folder / "parts").exists():
            for call, part, share in self.lines(folder / "parts", 3):
                self.parts[part][call] = float(share)

    @staticmethod
    def lines(path, fields):
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        # a step that was ended may have left half a line
        return [line for line in lines if len(line) == fields]

    def median(self, label, side, what=ROUND_TRIP):
        return statistics.median(v[what] for v in self.figures[label][side].values())

    def best(self, label, peers, what):
        """The peer that is faster, which is the one to be compared with."""
        return min(peers, key=lambda peer: self.median(label, peer, what))

    def row(self, what, peer, ours, theirs, limit, quantity=ROUND_TRIP, inverse=False, calls=1):
        """ours and theirs are (label, side); no row where a step was left out."""
        if ours[0] not in self.figures or theirs[0] not in self.figures:
            return []
        a, b = (self.figures[label][side] for label, side in (ours, theirs))
        # a step that failed may have come to one side only
        turns = [turn for turn in a if turn in b]
        if not turns:
            return []
        ratios = [a[turn][quantity] / b[turn][quantity] for turn in turns]
        if inverse:
            ratios = [1 / r for r in ratios]
        return [Row(what, peer, ratios, limit,
                    f"{self.median(*ours, quantity) / calls:,.1f}",
                    f"{self.median(*theirs, quantity) / calls:,.1f}")]

    def fact(self, name, what, limit, unit=""):
        if name not in self.facts:
            return []
        return [Row(what, "", [float(self.facts[name])], limit, unit=unit)]


def rows(r):
    look_up, two_forms = "bare look-up", ("bare_cte", "bare_pipeline")
    out = []
    for call, trip, cpu in (("session_get_json", ("≤", 0.9), ("≤", 0.9)),
                            ("session_get", ("≤", 1.03), ("≤", 1.08))):
        out += r.row(f"{call}, round trip", look_up, ("get", call), ("get", "bare"), trip)
        out += r.row(f"{call}, server CPU", look_up, ("get", call), ("get", "bare"), cpu, CPU)
        out += r.row(f"{call}, server CPU, pipelined", look_up, ("get_pipelined", call),
                     ("get_pipelined", "bare"), cpu, CPU)
        out += r.row(f"{call} through pgbench", look_up, ("pgbench_get", call.removeprefix("session_")),
                     ("pgbench_get", "get_bare"), trip)
        out += r.row(f"{call} that records its use, round trip", look_up,
                     ("get_touching", call), ("get_touching", "bare"), ())
    for side, call in (("", "session_get_json"), ("_rows", "session_get")):
        for quantity, what in (("round trip", ROUND_TRIP), ("server CPU", CPU)):
            out += r.row(f"{call} of a session bound to a device, {quantity}", "an unbound one",
                         ("device", f"bound{side}"), ("device", f"unbound{side}"), ("≤", 1.05), what)
    out += r.row("session_active_count", "bare count(*), parallel", ("count", "count"), ("count", "bare"), ("≤", 1))
    out += r.row("session_active_count", "bare count(*), one process", ("count", "count"), ("count", "bare_alone"), ("≤", 1))
    out += r.row("session_active_estimate", "bare count(*), parallel", ("count", "estimate"), ("count", "bare"), ())
    out += r.row("session_active_count of a tenant with 200 sessions", "all of them", ("count", "tenant"),
                 ("count", "count"), ())
    out += r.fact("estimated", "session_active_estimate, error", ("≤", 6), " %")
    for call, name, peer, limit in (
            ("create", "session_create", "bare insertion of both rows", 1.1),
            ("refresh", "session_refresh", "bare update and event", 1),
            ("rotate", "session_refresh with a new token", "bare update and event", 1.15),
            ("update", "session_update", "bare update and event", 1.25),
            ("invalidate", "session_invalidate", "bare update and event", 1.1)):
        for commit in ("on", "off"):
            label = f"{call}_{commit}"
            for quantity, what in (("round trip", ROUND_TRIP), ("server CPU", CPU)):
                if all(r.figures[label][side] for side in two_forms):
                    best = r.best(label, two_forms, what)
                    out += r.row(f"{name}, {quantity}, synchronous_commit {commit}",
                                 f"{peer}, {best[5:].upper() if best == 'bare_cte' else best[5:]}",
                                 (label, f"session_{call}"), (label, best), ("≤", limit), what)
        out += r.row(f"{name} through pgbench, synchronous_commit off", f"{peer}, CTE",
                     (f"pgbench_{call}", call), (f"pgbench_{call}", f"{call}_bare"), ("≤", limit))
        out += r.row(f"{name}, bytes of WAL", peer, (f"bytes_{call}", "session"),
                     (f"bytes_{call}", "bare"), ("≤", 1.1))
    for found, left in (("sessions", "session"), ("events", "login known by events alone")):
        for n in (0, 1, 10, 100):
            plural = left if n == 1 else re.sub("(session|login)", r"\1s", left)
            for commit, what, quantity in (("off", "server CPU", CPU), ("on", "round trip", ROUND_TRIP)):
                label = f"new_device_{commit}_{found}_{n}"
                out += r.row(f"session_create after {n} {plural}, {what}, synchronous_commit {commit}",
                             "without new_device_events", (label, "on"), (label, "off"), ("≤", 1.05), quantity)
    for name, what in (("time for each", ROUND_TRIP), ("server CPU for each", CPU)):
        out += r.row(f"session_invalidate_all, {name} of {int(r.facts['of_one']):,} sessions",
                     "bare update and events", ("invalidate_all", "invalidate_all"),
                     ("invalidate_all", "invalidate_all_bare"), ("≤", 1.3), what)
    if "refreshed" in r.facts:
        share, bare = (100 * int(r.facts[f"{side}_hot"]) / int(r.facts[side])
                       for side in ("refreshed", "bare_updated"))
        out.append(Row("session_refresh, HOT updates", f"bare update, {shown(bare)} %", [share],
                       ("=", 100), unit=" %"))
    for variant, what in (("default", "pgcrypto, default options"),
                          ("fast", "pgcrypto, no key stretching")):
        limit = ("≤", 1 / 15) if variant == "default" else ()
        out += r.row("session_get, server CPU", what, ("pgcrypto", "session_get"),
                     ("pgcrypto", f"pgcrypto_{variant}"), limit, CPU)
        out += r.row("session_get, server CPU, 100 calls in a statement", what,
                     ("inside", "session_get"), ("inside", f"pgcrypto_{variant}"), limit, CPU, calls=100)
    out += r.fact("wal_read_only", "session_get, read-only transactions, WAL of 100,000 calls",
                  ("=", 0), " bytes")
    out += r.fact("wal_touching", "session_get that records its use, WAL of 100,000 calls",
                  ("=", 0), " bytes")
    out += r.fact("flush_updates", f"updates to write the uses of {int(r.facts.get('busy', 0)):,} sessions",
                  ("≤", float(r.facts.get("busy", 0))))
    out += r.row("session_get, 8 clients, calls per second", "the same without touches",
                 ("clients", "touches_1s"), ("clients", "touches_1d"), ("≥", 0.95))
    for label, through in (("connections", ""), ("pgbouncer", " through pgbouncer")):
        for call in ("session_get_json", "session_get"):
            for figure, what, limit in (("rate", "calls per second", ("≥", 0.97)),
                                        ("p99", "99th percentile", ("≤", 1.1))):
                out += r.row(f"{call}, 32 connections{through}, {what}", "bare look-up",
                             (f"{label}_{figure}", call), (f"{label}_{figure}", "bare"), limit)
    live, expired, swept = (int(r.facts[name]) for name in ("live", "expired", "swept"))
    for name, what in (("time", ROUND_TRIP), ("server CPU", CPU)):
        out += r.row(f"session_cleanup, {name}, {expired:,} expired among {live:,} live",
                     f"among {live // 10:,}", ("cleanup_many", "cleanup"),
                     ("cleanup_few", "cleanup"), ("±", 0.1), what)
    out += r.row("bare DELETE in batches, server CPU, the same", f"among {live // 10:,}",
                 ("cleanup_many", "delete"), ("cleanup_few", "delete"), (), CPU)
    for size, count in (("few", live // 10), ("many", live)):
        for side, what in (("delete", "bare DELETE in batches"),
                           ("delete_event", "the same that writes the events")):
            out += r.row(f"session_cleanup, rate, among {count:,} live", what,
                         (f"cleanup_{size}", "cleanup"), (f"cleanup_{size}", side),
                         ("≥", 0.7), inverse=True)
    reads = r.row(f"session_get, 4 clients, 99th percentile while {swept:,} are swept",
                  "without the sweep", ("sweep", "sweeping"), ("sweep", "quiet"), ())
    # what holds in every round is judged by the worst
    out += reads + [row._replace(what=f"{row.what}, worst of {len(row.ratios)} rounds", ratios=[max(row.ratios)],
                                 limit=("≤", 2), ours="", theirs="") for row in reads]
    if "swept" in r.figures:
        rates = [rate for rate, in r.figures["swept"]["per_second"].values()]
        what = "sessions that the worker sweeps per second, beside these reads"
        out += [Row(what, "", rates, ()),
                Row(f"{what}, worst of {len(rates)} rounds", "", [min(rates)], ("≥", 10000))]
    out += [Row(f"step {name[len('failed_'):]}", why, [], ()) for name, why in r.facts.items()
            if name.startswith("failed_")]
    return out


def svg(table, title="ratio to the peer"):
    bars = [row for row in table if row.peer and row.ratios]
    left, right, step, top = 480, 60, 24, 50
    scale = 130             # pixels for each unit of the ratio
    width, height = left + int(2.5 * scale) + right, top + step * len(bars) + 30
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
           'font-family="sans-serif" font-size="11">',
           f'<rect width="{width}" height="{height}" fill="#fff"/>',
           f'<text x="{width - 10}" y="18" font-size="13" text-anchor="end">{title}: bar median, '
           'line 10th to 90th percentile, red mark target</text>']
    x = lambda ratio: left + min(ratio, 2.5) * scale
    for tick in (0, 0.5, 1, 1.5, 2, 2.5):
        out.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top - 12}" y2="{height - 24}" '
                   f'stroke="{"#888" if tick == 1 else "#ddd"}"/>'
                   f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
    for i, row in enumerate(bars):
        y = top + i * step
        median = statistics.median(row.ratios)
        low, high = row.range()
        colour = {True: "#3b7dd8", False: "#d8703b", None: "#999"}[row.holds()]
        out.append(f'<text x="{left - 6}" y="{y + 8}" text-anchor="end">'
                   f'{html.escape(row.what)} <tspan fill="#777">/ {html.escape(row.peer)}</tspan></text>'
                   f'<rect x="{left}" y="{y - 3}" width="{x(median) - left:.1f}" height="14" '
                   f'fill="{colour}"/>'
                   f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y + 4}" '
                   f'y2="{y + 4}" stroke="#000"/>'
                   f'<text x="{x(high) + 6:.1f}" y="{y + 8}">{row.median()}</text>')
        if row.limit:
            comparison, number = row.limit
            for mark in ((1 - number, 1 + number) if comparison == "±" else (number,)):
                out.append(f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{y - 5}" y2="{y + 13}" '
                           'stroke="#c00" stroke-width="2"/>')
    return "\n".join(out + ["</svg>", ""])


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def cores() -> int:
    return Path("/proc/cpuinfo").read_text().count("processor\t")


def document(r, table):
    facts = r.facts
    lines = f"""# Benchmarks

Written by `bench/run.sh --write`; `make bench` prints the same table. PostgreSQL {facts['version']},
session_manager {facts['extension']} preloaded, {int(facts['sessions']):,} sessions of 400 bytes;
{processor()}, {cores()} cores. Settings: {facts['settings']}. Everything is in memory
(user_sessions {facts['user_sessions']}, the bare table {facts['bare']}, indexes included), no checkpoint
comes in between.

![ratios](bench.svg)

| measure | peer | ours, µs | peer, µs | ratio | 10 – 90 % | target | |
|---|---|---|---|---|---|---|---|
""".splitlines()
    # what misses its target stands first
    for row in sorted(table, key=lambda row: row.verdict() not in ("MISS", "FAILED")):
        verdict = re.sub("MISS|FAILED", r"**\g<0>**", row.verdict())
        lines.append(f"| {row.what} | {row.peer} | {row.ours} | {row.theirs} | {row.median()} | "
                     f"{row.spread()} | {row.target()} | {verdict} |")
    if r.parts:
        lines += f"""
## Where the time of a look-up goes

By a sampling profiler, in the server, of calls that are already waiting (*pipelined* below). A sample counts for the
innermost of the parts whose functions are on its stack. The bare look-up has no row to authenticate or open.

{markdown(where_time_goes(r))}
""".splitlines()
    lines += f"""
## How it is measured

- **The peer.** The tables that a careful developer would write without the extension: the columns,
  indexes, fillfactor and partitions of `user_sessions` and `session_events`, with the data as plain
  `jsonb`. What the extension generates itself, ids in the order of time and verifiers, the peer's
  client supplies at no cost. Before anything is timed, a sample of sessions is read from both sides
  and must be equal.
- **Both sides in one run.** `bench/driver.c` prepares every statement once on one connection and
  runs the sides in turn in short blocks, so that they share a backend and every disturbance. Each
  ratio compares blocks that ran next to each other; the table has the median of the ratios and
  their 10th and 90th percentile. Measurements of another kind have one ratio for each of 3 to 10
  rounds.
- **Round trip** is the time at the client, on a Unix socket. **Server CPU** is the CPU time of the
  backend by the kernel's clock, including the protocol and the output of the result. *Pipelined*:
  the next call is already waiting when one is done, so that the backend neither sleeps nor wakes in
  between.
- **session_active_count** is compared with `count(*)` over the bare table with the same conditions, to which
  the server gives as many processes as its defaults allow; the times are those of EXPLAIN ANALYZE.
- **pgbench** runs prepared; each transaction fetches a token and an id of its own choice first, on both
  sides alike, and only the time of the statement after it counts.
- **session_get** against a look-up is measured where no use needs to be recorded, as for a session
  that is requested again within `session_manager.touch_interval`; a call that records its use has a
  row of its own.
- **Insertions and updates** are compared with two forms of the peer, one statement with a common table
  expression and a pipeline of both statements in one transaction, of which the faster counts.
  `session_refresh` and its peers go over {int(facts.get('busy', 0)):,} sessions again and again, so that
  full-page images do not blur the ratio.
- **New devices.** `session_create` for users who have logged in 0, 1, 10 or 100 times from the same
  client, against itself with `session_manager.new_device_events` off. Those whose sessions are gone
  are known by their events.
- **Sessions bound to a device** are read with a valid proof, against unbound sessions of the same server.
- **A rotation, a revocation** can be made of a session once: these go through the sessions in the order
  of their logins. A revocation flushes its commit whatever `synchronous_commit` says, so there is
  one measurement of it. `session_invalidate_all` ends {int(facts.get('of_one', 0)):,} sessions of one user in one statement.
- **Bytes of WAL** are those of 1,000 calls, without images of whole pages, against the form with a common
  table expression. Sealed data changes as a whole, where `jsonb` changes in one place.
- **pgcrypto**: a table looked up by the hash of the token, and a PL/pgSQL function around
  `pgp_sym_decrypt`. Its default options stretch the key on every call; the row without stretching
  is its best case, which is secure only for a random key.
- **WAL** is the difference of the insert position around the calls with autovacuum off, after a
  VACUUM, because the next reader of a page, on whichever side, cleans up what an earlier update
  left behind. `session_manager.touch_interval` is 0 in both measurements, so that every call has a
  use to record.
- **Eight clients** go over {int(facts['busy']):,} sessions, with `session_manager.touch_interval` at 1 s, a
  flush every 5 s, and at a day; the two columns are calls per second.
- **32 connections** each make their next call as soon as they have an answer; one thread of the driver
  serves them all, and the sides take turns of a quarter of a second. Where a row is of calls per second, so
  are its two columns. Through pgbouncer in transaction mode ({facts.get('pgbouncer', 'not measured')}) they
  share 8 connections to the server; before its version 1.21 that mode knows no prepared statements, and
  every call of either side is parsed and planned again.
- **Cleanup.** {int(facts['expired']):,} sessions that expired lie together, older than the live ones.
  The bare DELETE takes batches of 1,000, each a transaction, found through an index and deleted by ctid.
  All times are with `synchronous_commit` off. `session_cleanup` records an event for every session that it
  deletes, which the first of the two peers does not.
- **Sweep.** Four clients read live sessions, 1,000 times a second in all, from the table that the
  worker sweeps; the percentile covers the calls that ended during the sweep, each measured from the
  moment when it was due.
""".splitlines()
    return "\n".join(lines + [""])


def write_section(page: Path, heading: str, text: str) -> None:
    """Write a section of benchmarks.md, or with the heading "" what is before all of them."""
    before = page.read_text() if page.exists() else ""
    parts, current = {"": ""}, ""
    for line in before.splitlines(keepends=True):
        if line in SECTIONS:
            current = line
            parts[current] = ""
        else:
            parts[current] += line
    parts[heading] = text
    page.write_text("\n".join(f"{part}{parts[part]}".rstrip("\n") + "\n"
                              for part in ("", *SECTIONS) if part in parts))


def text(table):
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def markdown(table):
    head, *lines = ("| " + " | ".join(line) + " |" for line in table)
    lines = [re.sub("MISS|FAILED|slower", r"**\g<0>**", line) for line in lines]
    return "\n".join([head, "|" + "---|" * len(table[0]), *lines])


def where_time_goes(r):
    """A table of the parts of a look-up, each in microseconds of the server's CPU and as a share."""
    calls = {"get_bare": ("bare look-up", "bare"), "get": ("session_get", "session_get"),
             "get_json": ("session_get_json", "session_get_json")}
    lines = [("part", *(f"{title}, µs" for title, _ in calls.values()))]
    total = {call: r.median("get_pipelined", side, CPU) if r.figures["get_pipelined"][side] else None
             for call, (_, side) in calls.items()}

    def cell(part, call):
        share = r.parts[part].get(call, 0)
        percent = f"{100 * share:.0f} %"
        return percent if total[call] is None else f"{share * total[call]:.1f} ({percent})"

    lines += [(part, *(cell(part, call) for call in calls)) for part in r.parts]
    if all(total.values()):
        lines.append(("all", *(f"{total[call]:.1f}" for call in calls)))
    return lines


HEADER = ("measure", "peer", "ours, µs", "peer, µs", "ratio", "10 – 90 %", "target", "")


def print_table(table, header=()):
    cells = [*header] + [(row.what, row.peer, row.ours, row.theirs, row.median(), row.spread(),
                          row.target(), row.verdict()) for row in table]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADER))]
    for line in cells:
        print("  ".join(cell.ljust(w) if i in (0, 1, 7) else cell.rjust(w)
                        for i, (cell, w) in enumerate(zip(line, widths))).rstrip())


def print_new(folder, table):
    """The rows that have not been printed before."""
    shown_rows = folder / "printed"
    known = set(shown_rows.read_text().splitlines()) if shown_rows.exists() else set()
    names = {f"{row.what}\t{row.peer}": row for row in table}
    new = {name: row for name, row in names.items() if name not in known}
    shown_rows.write_text("".join(f"{name}\n" for name in (*known, *new)))
    if new:
        print_table(new.values())


def main():
    folder = Path(sys.argv[1])
    results = Results(folder)
    table = rows(results)
    if sys.argv[2:] == ["--new"]:
        print_new(folder, table)
        return
    facts = results.facts
    print(f"\nPostgreSQL {facts['version']}, session_manager {facts['extension']} preloaded, "
          f"{int(facts['sessions']):,} sessions of 400 bytes, {cores()} cores\n{facts['settings']}\n")
    print_table(table, [HEADER])
    if results.parts:
        print(f"\n{text(where_time_goes(results))}")
    if len(sys.argv) > 2:
        docs = Path(sys.argv[2])
        write_section(docs / "benchmarks.md", "", document(results, table))
        (docs / "bench.svg").write_text(svg(table))


if __name__ == "__main__":
    main()
