#!/usr/bin/env python3
"""Turn the figures of bench/run.sh into a table, and with a folder as the last
argument into benchmarks.md and bench.svg there.

Input, tab-separated: the driver's lines (label, round, block, side, calls, wall
nanoseconds and CPU nanoseconds per call), "value, name, figure" and
"round, name, round, figure".  A ratio is taken block by block, or round by
round; the median is given with the 10th and the 90th percentile.
"""

import platform
import statistics
import sys
from collections import defaultdict
from pathlib import Path

WALL, CPU = 0, 1


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Figures:
    def __init__(self, path):
        self.blocks = defaultdict(dict)
        self.values = {}
        self.rounds = defaultdict(list)
        for line in Path(path).read_text().splitlines():
            field = line.split("\t")
            if field[0] == "value":
                self.values[field[1]] = float(field[2])
            elif field[0] == "round":
                self.rounds[field[1]].append(float(field[3]))
            elif int(field[1]) >= 0:
                self.blocks[field[0], field[3]][field[1], field[2]] = (
                    float(field[5]), float(field[6]))

    def ratio(self, label, side, peer, what):
        ours, theirs = self.blocks[label, side], self.blocks[label, peer]
        return [ours[k][what] / theirs[k][what] for k in ours]

    def median(self, label, side, what):
        return statistics.median(v[what] for v in self.blocks[label, side].values())

    def faster(self, label, peers):
        return min(peers, key=lambda peer: self.median(label, peer, WALL))

    def round_ratio(self, name, peer):
        return [a / b for a, b in zip(self.rounds[name], self.rounds[peer])]


def rows(f, sweep, live):
    """(what, ratios or figure, target text, does it hold)"""

    def at_most(what, values, limit):
        return what, values, f"≤ {limit:g}", statistics.median(values) <= limit

    def at_least(what, values, limit):
        return what, values, f"≥ {limit:g}", statistics.median(values) >= limit

    yield at_most("session_get, round trip / bare look-up",
                  f.ratio("get", "session_get", "bare", WALL), 1.15)
    yield at_most("session_get, server CPU / bare look-up",
                  f.ratio("get", "session_get", "bare", CPU), 2.2)
    yield at_most("session_get through pgbench, with a look-up of the token / the same, bare",
                  f.round_ratio("pgbench_get", "pgbench_get_bare"), 1.15)
    for commit in ("on", "off"):
        label = f"create_{commit}"
        peer = f.faster(label, ("bare_cte", "bare_pipeline"))
        yield at_most(f"session_create, synchronous_commit {commit} / {peer.replace('_', ' ')}",
                      f.ratio(label, "session_create", peer, WALL), 1.4)
    yield at_most("session_refresh / bare update and event",
                  f.ratio("refresh", "session_refresh", "bare", WALL), 1.4)
    hot = f.values["hot_percent"]
    yield "session_refresh, share of HOT updates", f"{hot:g} %", "100 %", hot >= 100
    for name, what in (("wal_read_only", "session_get in a read-only transaction, WAL"),
                       ("wal_touching", "session_get that notes every use, WAL")):
        yield what, f"{f.values[name]:.0f} bytes", "0 bytes", f.values[name] == 0
    yield ("updates by which a worker writes the uses of 10,000 sessions",
           f"{f.values['flush_updates']:.0f}", "≤ 10000", f.values["flush_updates"] <= 10000)
    yield at_least("session_get, 8 clients, calls per second with touches / without",
                   f.round_ratio("clients_on", "clients_off"), 0.95)
    for variant in ("default", "fast"):
        yield at_most(f"session_get, CPU of the call / pgcrypto, {variant} options",
                      f.ratio("inside", "session_get", f"pgcrypto_{variant}", CPU), 1 / 15)
        yield at_most(f"session_get, server CPU with the round trip / pgcrypto, {variant} options",
                      f.ratio("pgcrypto", "session_get", f"pgcrypto_{variant}", CPU), 1)
    if f.rounds["p99_sweeping"]:
        yield at_most(f"session_get, 4 clients, 99th percentile while a worker sweeps "
                      f"{f.values['swept_meanwhile']:,.0f} / without",
                      f.round_ratio("p99_sweeping", "p99_alone"), 2)
    small, large = f"cleanup_{live // 10}", f"cleanup_{live}"
    yield at_most(f"session_cleanup of {sweep:,} among {live:,} live / among {live // 10:,}",
                  f.round_ratio(large, small), 1.1)
    for how, what in (("delete", "DELETE in batches"),
                      ("delete_event", "DELETE in batches and its events")):
        if f.rounds[how]:
            yield at_least(f"session_cleanup, rate / bare {what}",
                           f.round_ratio(how, large), 0.7)


def shown(values):
    if isinstance(values, str):
        return values, ""
    return (f"{statistics.median(values):.3g}",
            f"{percentile(values, 0.1):.3g} – {percentile(values, 0.9):.3g}")


def svg(table):
    bars = [r for r in table if not isinstance(r[1], str)]
    width, left, row = 960, 470, 34
    unit = (width - left - 40) / 2.4
    height = row * len(bars) + 60
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
           'font-family="sans-serif" font-size="13">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{left}" y="20">ratio to the peer: bar = median, line = 10th to 90th '
           'percentile, red = target</text>']
    for tick in (0, 0.5, 1, 1.5, 2):
        x = left + tick * unit
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="30" y2="{height - 25}" stroke="#ddd"/>'
                   f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
    for i, (what, values, target, good) in enumerate(bars):
        y = 36 + i * row
        median = statistics.median(values)
        low, high = percentile(values, 0.1), percentile(values, 0.9)
        limit = float(target.split()[1])
        out += [
            f'<text x="{left - 8}" y="{y + 16}" text-anchor="end" font-size="11">{what}</text>',
            f'<rect x="{left}" y="{y + 4}" width="{min(median, 2.4) * unit:.1f}" height="18" '
            f'fill="{"#3b7dd8" if good else "#d88a3b"}"/>',
            f'<line x1="{left + min(low, 2.4) * unit:.1f}" x2="{left + min(high, 2.4) * unit:.1f}" '
            f'y1="{y + 13}" y2="{y + 13}" stroke="black"/>',
            f'<line x1="{left + limit * unit:.1f}" x2="{left + limit * unit:.1f}" '
            f'y1="{y + 1}" y2="{y + 25}" stroke="red" stroke-width="2"/>',
            f'<text x="{left + min(max(median, high), 2.3) * unit + 8:.1f}" y="{y + 17}">{median:.2f}</text>',
        ]
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    path, version, sessions, sweep, live = sys.argv[1:6]
    table = list(rows(Figures(path), int(sweep), int(live)))
    width = max(len(r[0]) for r in table)
    for what, values, target, good in table:
        median, spread = shown(values)
        print(f"{what:<{width}}  {median:>9}  {spread:>15}  {target:>9}  {'ok' if good else 'MISSED'}")
    if len(sys.argv) > 6:
        folder = Path(sys.argv[6])
        lines = [
            "# Benchmarks", "",
            f"{version}, session_manager preloaded, {int(sessions):,} sessions of 400 bytes, "
            f"{platform.system()} on {platform.machine()}. Written by `make bench` "
            "(`bench/run.sh --write`), which also says how each figure is taken.", "",
            "Both sides ran on one server in one run, in alternating blocks of prepared "
            "statements. The peer is the table a careful developer would write without the "
            "extension: the same columns unsealed, the same indexes, the same fillfactor. "
            "Ratios are medians over the blocks, with the 10th and 90th percentile.", "",
            "![ratios](bench.svg)", "",
            "| measure | median | spread | target | |", "|---|---|---|---|---|"]
        lines += [f"| {what} | {shown(values)[0]} | {shown(values)[1]} | {target} | "
                  f"{'ok' if good else '**missed**'} |" for what, values, target, good in table]
        (folder / "benchmarks.md").write_text("\n".join(lines) + "\n")
        (folder / "bench.svg").write_text(svg(table))


main()
