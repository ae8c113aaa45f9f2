#!/usr/bin/env python3
"""Turn the results of bench/growth.sh into a table on standard output, and, given a folder, into
a section of benchmarks.md, bench-growth.svg and bench-day.svg there.

    growth.py RESULTS [FOLDER | --new]

With --new in the place of the folder it prints the rows that it has not printed before.

Results, tab-separated: "blocks" and "drains" as the driver prints them, with the label
CALL:CACHE:SIZE:SESSIONS, where SESSIONS are those of the database and SIZE those that the few are
compared with; "counts" (name, figures), "day" (figures of a moment), "indexes" (name, bytes, bytes
as new), "facts" (name, value).  A growth is the ratio of the medians of a turn with many sessions
and of the turn with few before it.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from plot import Line, Panel, plot
from report import GROWTH, cores, processor, shown, write_section

QUANTITIES = ("time", "server CPU")
CACHES = {"cached": "holds them", "uncached": "a tenth"}


class Call(NamedTuple):
    name: str
    peer: str
    colour: str  # none: not in the picture, and nothing is promised
    side: str


CALLS = {
    "get": Call("session_get", "bare look-up", "#3b7dd8", "session_get"),
    "create": Call("session_create", "bare insertion of both rows", "#d8703b", "session_create"),
    "create_off": Call("the same with new_device_events off", "", "", "session_create"),
    "cleanup": Call("session_cleanup", "bare DELETE with events", "#4a9a52", "session_cleanup"),
}


class Row(NamedTuple):
    """What becomes of the time of a call with many sessions."""

    measure: str
    sessions: str
    cache: str
    few: str
    many: str
    growth: str
    floor: str  # the growth of the bare tables
    over: str  # growth over that of the floor
    target: str = ""
    verdict: str = ""


class Count(NamedTuple):
    measure: str
    number: str = ""  # of sessions, or of what the measure says
    figure: str = ""
    target: str = ""
    verdict: str = ""


ROW_HEADER = Row(
    "measure",
    "sessions",
    "cache",
    "with few, µs",
    "with many, µs",
    "growth",
    "the floor's",
    "of the floor's",
    "target",
)
COUNT_HEADER = Count("measure", "number", "figure", "target")


def verdict(holds: bool) -> str:
    return "pass" if holds else "MISS"


def with_spread(ratios: list[float]) -> str:
    median = str(shown(statistics.median(ratios)))
    if len(ratios) < 2:
        return median
    tenths = statistics.quantiles(ratios, n=10, method="inclusive")
    return f"{median} ({shown(tenths[0])} – {shown(tenths[-1])})"


class Growth(NamedTuple):
    """Of one call from few sessions to many: a figure for each turn."""

    few: list[float]
    many: list[float]
    bare_few: list[float]
    bare_many: list[float]

    def ours(self) -> list[float]:
        return [many / few for few, many in zip(self.few, self.many, strict=True)]

    def floor(self) -> list[float]:
        return [many / few for few, many in zip(self.bare_few, self.bare_many, strict=True)]

    def over(self) -> list[float]:
        return [ours / bare for ours, bare in zip(self.ours(), self.floor(), strict=True)]


class Day(NamedTuple):
    hour: float
    sessions: float
    logged_out: float
    table: float
    indexes: float
    updates: float
    hot: float
    requeued: float


class Results:
    def __init__(self, folder: Path) -> None:
        self.facts = {line[0]: line[1] for line in self.lines(folder / "facts", 2)}
        self.base = int(self.facts["base"])
        self.counts: dict[str, list[list[float]]] = defaultdict(list)
        for name, *figures in self.lines(folder / "counts"):
            self.counts[name].append([float(figure) for figure in figures])
        self.day = [Day(*map(float, line)) for line in self.lines(folder / "day", len(Day._fields))]
        self.indexes = [
            (name, float(size), float(fresh))
            for name, size, fresh in self.lines(folder / "indexes", 3)
        ]
        # wall and CPU time in microseconds of the blocks of a turn
        blocks: dict[tuple[str, str, int], list[tuple[float, float]]] = defaultdict(list)
        for label, turn, _, side, _, *times in self.lines(folder / "blocks", 7):
            wall, cpu = (float(time) / 1000 for time in times)
            blocks[label, side, int(turn)].append((wall, cpu))
        for label, turn, side, rows, *times in self.lines(folder / "drains", 6):
            wall, cpu = (float(time) / 1000 / float(rows) for time in times)
            blocks[label, side, int(turn)].append((wall, cpu))
        self.turns = {
            key: [statistics.median(column) for column in zip(*values, strict=True)]
            for key, values in blocks.items()
        }

    @staticmethod
    def lines(path: Path, fields: int = 0) -> list[list[str]]:
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        # a step that was ended may have left half a line
        return [line for line in lines if not fields or len(line) == fields]

    def sizes(self) -> list[int]:
        return sorted({int(label.split(":")[2]) for label, _, _ in self.turns})

    def growth(self, call: str, cache: str, size: int, quantity: int) -> Growth | None:
        keys = [
            (f"{call}:{cache}:{size}:{sessions}", side)
            for side in (CALLS[call].side, "bare")
            for sessions in (self.base, size)
        ]
        turns = [
            [self.turns[label, side, turn][quantity] for label, side in keys]
            for turn in range(1 + max((turn for _, _, turn in self.turns), default=0))
            # a step that failed may have come to a part of its turn
            if all((label, side, turn) in self.turns for label, side in keys)
        ]
        return Growth(*(list(column) for column in zip(*turns, strict=True))) if turns else None


def growth_rows(r: Results, size: int, cache: str, call: str) -> list[Row]:
    out = []
    for quantity, name in enumerate(QUANTITIES):
        found = r.growth(call, cache, size, quantity)
        if not found:
            continue
        promise: tuple[str, ...] = ()
        if call == "get":
            promise = ("≤ 1.03 of the floor's", verdict(statistics.median(found.over()) <= 1.03))
        elif CALLS[call].colour:
            promise = ("1 ± 0.05", verdict(abs(statistics.median(found.ours()) - 1) <= 0.05))
        row = Row(
            f"{CALLS[call].name}, {name}",
            f"{size:,}",
            CACHES[cache],
            f"{statistics.median(found.few):,.1f}",
            f"{statistics.median(found.many):,.1f}",
            with_spread(found.ours()),
            with_spread(found.floor()),
            with_spread(found.over()),
            *promise,
        )
        out.append(row)
    return out


def size_counts(r: Results) -> list[Count]:
    out = []
    for sessions, rate in r.counts["fill"]:
        # starting takes longer than a few thousand logins
        target = ("≥ 25,000", verdict(rate >= 25000)) if sessions >= 100000 else ()
        out.append(
            Count(
                "logins per second, on two connections", f"{sessions:,.0f}", f"{rate:,.0f}", *target
            )
        )
    pairs = zip(r.counts["bytes"][::2], r.counts["bytes"][1::2], strict=False)
    for (sessions, ours, table), (_, bare, bare_table) in pairs:
        out += [
            Count(
                f"bytes of a session, {ours:,.0f}, over those of a plain row, {bare:,.0f}",
                f"{sessions:,.0f}",
                shown(ours / bare),
                "≤ 1.3",
                verdict(ours <= 1.3 * bare),
            ),
            Count(
                f"without indexes, {table:,.0f} over {bare_table:,.0f}",
                f"{sessions:,.0f}",
                shown(table / bare_table),
            ),
        ]
    return out


def day_counts(r: Results) -> list[Count]:
    if "day_calls" not in r.counts:
        return []
    ((table, indexes),) = r.counts["day_size"]
    ((fresh_table, fresh_indexes, rows),) = r.counts["day_fresh"]
    ((done, planned),) = r.counts["day_calls"]
    first, last = r.day[0], r.day[-1]
    held = f"{rows:,.0f}"
    updates = last.updates - first.updates
    requeued = last.requeued - first.requeued
    hot = (last.hot - first.hot) / (updates - requeued)
    return [
        Count(
            "after a day: table over its size as new",
            held,
            shown(table / fresh_table),
            "≤ 1.3",
            verdict(table <= 1.3 * fresh_table),
        ),
        Count("indexes over their size as new", held, shown(indexes / fresh_indexes)),
        *(Count(f"of them {name}", held, shown(size / new)) for name, size, new in r.indexes),
        Count("rows of sessions that were logged out", held, f"{last.logged_out / rows:.1%}"),
        Count("calls of the day, of those planned", f"{planned:,.0f}", f"{done / planned:.1%}"),
        Count(
            "rows that the sweep has queued again", f"{requeued:,.0f}", f"{requeued / updates:.1%}"
        ),
        Count("HOT updates, of the others", f"{updates - requeued:,.0f}", f"{hot:.2%}"),
    ]


def rows(r: Results) -> list[Row]:
    return [
        row
        for size in r.sizes()
        for cache in CACHES
        for call in CALLS
        for row in growth_rows(r, size, cache, call)
    ]


def counts(r: Results) -> list[Count]:
    failed = [
        Count(f"step {name.removeprefix('failed_')}: {why}", verdict="FAILED")
        for name, why in r.facts.items()
        if name.startswith("failed_")
    ]
    return size_counts(r) + day_counts(r) + failed


def growth_plot(r: Results) -> str:
    panels = []
    ticks = [(math.log10(size), f"{size:,}") for size in (r.base, *r.sizes())]
    for cache, title in (
        ("cached", "time over that with few sessions, all in the cache"),
        ("uncached", "the same, with a cache of a tenth"),
    ):
        lines = []
        for name, call in CALLS.items():
            if not call.colour:
                continue
            found = {size: r.growth(name, cache, size, 0) for size in r.sizes()}
            grown = {math.log10(size): growth for size, growth in found.items() if growth}
            start = [(math.log10(r.base), 1.0)]
            ours = [(x, statistics.median(growth.ours())) for x, growth in grown.items()]
            floor = [(x, statistics.median(growth.floor())) for x, growth in grown.items()]
            lines.append(Line(call.name, call.colour, False, start + ours))
            lines.append(Line(call.peer, call.colour, True, start + floor))
        panels.append(Panel(title, "sessions", ticks, lines))
    return plot(panels)


def day_plot(r: Results) -> str:
    ((fresh_table, _, fresh_rows),) = r.counts["day_fresh"]
    new = [(at.hour, at.sessions * fresh_table / fresh_rows / 1e6) for at in r.day]
    lines = [
        Line("table", "#3b7dd8", False, [(at.hour, at.table / 1e6) for at in r.day]),
        Line("as new", "#4a9a52", False, new),
        Line("indexes", "#999", False, [(at.hour, at.indexes / 1e6) for at in r.day]),
        Line("1.3 times as new", "#c00", True, [(hour, 1.3 * size) for hour, size in new]),
    ]
    ticks = [(float(hour), str(hour)) for hour in range(0, 25, 6)]
    return plot([Panel("user_sessions, MB", "hour of the day", ticks, lines)])


ABOUT_SIZES = """\
- **Turns.** Few sessions, {few:,}, and many are in a database each, on one server, and take turns.
  Each growth compares two turns that follow each other; the table has the median of the ratios, and
  in brackets their 10th and 90th percentile. **The floor** are bare tables of the same size, whose
  statements alternate with ours in short blocks, or, for a cleanup, within each turn.
- **A cache that holds them.** Reads go to at most {read:,} sessions, spread evenly over the table,
  and their users log in again. **A tenth**: the cache is a tenth of both sides' tables and indexes,
  reads and logins are of all users, and what the cache lacks comes from the memory of the operating
  system or from the disk.
- **Logins and cleanups** have `synchronous_commit` off, and `full_page_writes` too: the number of
  images depends on the last checkpoint. A cleanup is of {expired:,} expired sessions, its time
  that of one of them; dead entries have been removed from the indexes before. With
  `new_device_events` on, a login reads one more row, which is elsewhere in the table: that of an
  earlier session of its user.
- **Logins per second**: `INSERT … SELECT` from `session_create`, 1,000 logins in a transaction, on
  each of two connections, with `synchronous_commit` off. Every session is sealed, and its digest
  kept.
- **Bytes** are those of the table and its indexes after the logins.
"""
ABOUT_DAY = """\
- **The day** passes {speed:g} times as fast as others. It begins with {sessions:,} sessions of the
  day before, which expire at the hour of their login, and has as many logins, few at night and 1.8
  times the mean at noon. For each login there are 20 reads, which record the use, 4 refreshes, half
  of them with a new token, and an update; a fifth log out, whose rows stay until they would have
  expired. Lifetimes, the intervals of the worker and of autovacuum, and the pauses of autovacuum
  are shorter by the same factor, as far as the settings allow: no interval is below a second.
  *As new* is a copy of the rows that the table holds at the end, with the same fillfactor and
  indexes built afterwards.
"""


def markdown(table: Sequence[Row | Count], header: Row | Count) -> str:
    lines = [header, ["---"] * len(header), *table]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return text.replace("MISS", "**MISS**").replace("FAILED", "**FAILED**") + "\n"


def section(r: Results) -> str:
    facts = r.facts
    parts, about = [], ""
    if r.sizes():
        parts += ["![growth](bench-growth.svg)\n", markdown(rows(r), ROW_HEADER)]
        about += ABOUT_SIZES.format(
            few=r.base, read=int(facts["read"]), expired=int(facts["expired"])
        )
    if day_counts(r):
        parts.append("![size of the table during a day](bench-day.svg)\n")
        speed = 1440 / int(facts["day_minutes"])
        about += ABOUT_DAY.format(speed=speed, sessions=int(facts["day_sessions"]))
    parts += [markdown(counts(r), COUNT_HEADER), about]
    return f"""
Written by `make bench-long WRITE=1`; `make bench-long` prints the same tables. PostgreSQL
{facts["version"]}, session_manager {facts["extension"]} preloaded, sessions of 400 bytes;
{processor()}, {cores()} cores.
Settings: {facts["settings"]}; shared_buffers {facts["shared_buffers"]}, or a tenth.

{chr(10).join(parts)}"""


def print_table(table: Sequence[Row | Count]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        line = (
            cell.ljust(width) if field in ("measure", "cache") else cell.rjust(width)
            for field, cell, width in zip(row._fields, row, widths, strict=True)
        )
        print("  ".join(line).rstrip())


def print_new(folder: Path, tables: Sequence[Sequence[Row | Count]]) -> None:
    """The rows that have not been printed before."""
    path = folder / "printed"
    known = set(path.read_text().splitlines()) if path.exists() else set()
    for table in tables:
        names = {"\t".join(row[:3] if isinstance(row, Row) else row[:2]): row for row in table}
        new = [row for name, row in names.items() if name not in known]
        known.update(names)
        if new:
            print_table(new)
    path.write_text("".join(f"{name}\n" for name in known))


def main() -> None:
    folder = Path(sys.argv[1])
    r = Results(folder)
    if sys.argv[2:] == ["--new"]:
        print_new(folder, [rows(r), counts(r)])
        return
    print(
        f"\nPostgreSQL {r.facts['version']}, session_manager {r.facts['extension']} preloaded, "
        f"{cores()} cores"
    )
    if r.sizes():
        print(f"\nfrom {r.base:,} sessions to many\n")
        print_table([ROW_HEADER, *rows(r)])
    print()
    print_table([COUNT_HEADER, *counts(r)])
    if len(sys.argv) > 2:
        docs = Path(sys.argv[2])
        write_section(docs / "benchmarks.md", GROWTH, section(r))
        if r.sizes():
            (docs / "bench-growth.svg").write_text(growth_plot(r))
        if day_counts(r):
            (docs / "bench-day.svg").write_text(day_plot(r))


if __name__ == "__main__":
    main()
