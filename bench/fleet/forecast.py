#!/usr/bin/env python3
"""How many servers a fleet needs, and what they are busy with, from measured costs.

    bench/fleet/forecast.py --sessions 10000000 --reads 20000 --logins 120 --ttl 14d

Prints a table with a column for each option: without and with a Redis beside each shard, with a
standby, and with reads from it.  --svg FILE draws the processors of each option.  The costs are in
costs.json, which bench/fleet.sh --write measures on this machine.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import bars
from model import DAY, Forecast, Load, Machine, Option, costs_in, needed

HERE = Path(__file__).resolve().parent
UNITS = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0, "d": DAY}
SIZES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
OPTIONS = (
    Option("primaries alone", cache=False, standbys=0, read_standbys=False),
    Option("with Redis", cache=True, standbys=0, read_standbys=False),
    Option("with a standby", cache=False, standbys=1, read_standbys=False),
    Option("reads from it", cache=False, standbys=1, read_standbys=True),
    Option("standby and Redis", cache=True, standbys=1, read_standbys=False),
)


def parsed(text: str, units: dict[str, float]) -> float:
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]+)?)([a-zA-Z]*)", text)
    if found is None or found[2] not in units:
        names = " ".join(filter(None, units)) or "nothing"
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number, alone or followed by one of {names}"
        )
    return float(found[1]) * units[found[2]]


def duration(text: str) -> float:
    value = parsed(text, UNITS)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be longer than 0")
    return value


def number(text: str) -> float:
    return parsed(text, SIZES)


def positive(text: str) -> float:
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def share(text: str) -> float:
    value = parsed(text, {"": 1.0})
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("must be more than 0, and at most 1")
    return value


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    load = result.add_argument_group("what the application does; rates are per second")
    load.add_argument("--sessions", type=positive, required=True, help="live at a time")
    load.add_argument("--reads", type=number, required=True)
    load.add_argument("--logins", type=number, required=True)
    load.add_argument("--ttl", type=duration, default=14 * DAY, help="of a session; 14d")
    load.add_argument("--refresh", type=duration, help="between two refreshes of a session in use")
    load.add_argument("--rotate", type=duration, help="between two replacements of its token")
    load.add_argument("--in-use", type=share, default=0.1, help="share of the sessions; 0.1")
    load.add_argument("--updates", type=number, default=0.0)
    load.add_argument("--logouts", type=share, default=0.3, help="share of the logins; 0.3")
    load.add_argument("--data", type=positive, default=400.0, help="bytes of a session's data; 400")
    load.add_argument("--touch-interval", type=duration, default=60.0)
    load.add_argument("--cache-ttl", type=duration, default=300.0)
    load.add_argument("--event-retention", type=duration, default=90 * DAY)
    load.add_argument("--event-partition", type=duration, default=30 * DAY)
    load.add_argument("--checkpoint", type=duration, default=300.0, help="checkpoint_timeout; 300s")
    machine = result.add_argument_group("a server")
    machine.add_argument("--cores", type=positive, default=8.0)
    machine.add_argument("--utilisation", type=share, default=0.5, help="of its processors; 0.5")
    machine.add_argument("--memory", type=positive, default=32e9, help="that it may use; 32G")
    machine.add_argument("--connections", type=positive, default=200.0, help="busy at once; 200")
    result.add_argument("--costs", type=Path, default=HERE / "costs.json")
    result.add_argument("--svg", type=Path, help="draw the processors of each option")
    return result


def amount(value: float) -> str:
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g} "


def rows(forecasts: list[Forecast]) -> list[tuple[str, list[str]]]:
    def row(name: str, cells: list[str]) -> tuple[str, list[str]]:
        return name, cells

    return [
        row("shards", [f"{f.shards}" for f in forecasts]),
        row("the limit is", [f.because for f in forecasts]),
        row("processors, primaries", [f"{f.primary_cpu:.2f}" for f in forecasts]),
        *(
            row(f"  {name}", [f"{f.cpu.get(name, 0.0):.2f}" for f in forecasts])
            for name in forecasts[1].cpu
        ),
        row("processors, standbys", [f"{f.standby_cpu:.2f}" for f in forecasts]),
        row("processors, Redis", [f"{f.redis_cpu:.2f}" for f in forecasts]),
        row("busy connections", [f"{f.connections:.1f}" for f in forecasts]),
        row("memory", [amount(f.memory) + "B" for f in forecasts]),
        row("memory, Redis", [amount(f.redis_memory) + "B" for f in forecasts]),
        row("disk", [amount(f.disk) + "B" for f in forecasts]),
        row("WAL per second", [amount(f.wal) + "B" for f in forecasts]),
        row("events per day", [amount(f.events * DAY) for f in forecasts]),
        row("events kept", [amount(f.event_count) for f in forecasts]),
    ]


def table(forecasts: list[Forecast]) -> str:
    head = ["of all shards", *(option.name for option in OPTIONS)]
    body = [[name, *cells] for name, cells in rows(forecasts)]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, ["-" * width for width in widths], *body]
    ]
    return "\n".join(lines)


def load_of(arguments: argparse.Namespace) -> Load:
    used = arguments.sessions * arguments.in_use
    return Load(
        sessions=arguments.sessions,
        reads=arguments.reads,
        logins=arguments.logins,
        refreshes=used / arguments.refresh if arguments.refresh else 0.0,
        rotations=used / arguments.rotate if arguments.rotate else 0.0,
        updates=arguments.updates,
        logouts=arguments.logins * arguments.logouts,
        expiries=arguments.logins * (1 - arguments.logouts),
        in_use=arguments.in_use,
        data=arguments.data,
        touch_interval=arguments.touch_interval,
        cache_ttl=arguments.cache_ttl,
        event_retention=arguments.event_retention,
        event_partition=arguments.event_partition,
        checkpoint=arguments.checkpoint,
    )


def main() -> None:
    arguments = parser().parse_args()
    costs = costs_in(arguments.costs)
    load = load_of(arguments)
    lasting = load.logins * arguments.ttl
    machine = Machine(
        arguments.cores, arguments.utilisation, arguments.memory, arguments.connections
    )
    try:
        forecasts = [needed(costs, load, machine, option) for option in OPTIONS]
    except ValueError as error:
        sys.exit(f"forecast.py: {error}")
    print(table(forecasts))
    print(f"\nCosts: {costs['machine']}, {costs['version']}, session_manager {costs['extension']}.")
    if load.sessions > lasting:
        print(
            f"Without refreshes, {amount(load.logins)}logins per second that last "
            f"{arguments.ttl:.0f} s are {amount(lasting)}sessions at most, "
            f"fewer than the {amount(load.sessions)}given."
        )
    if arguments.svg:
        names = [option.name for option in OPTIONS]
        arguments.svg.write_text(bars.drawn(names, forecasts))


if __name__ == "__main__":
    main()
