"""What a fleet of servers with the extension needs, from the measured cost of each operation.

The costs are those that bench/fleet.sh measures (costs.json).  Everything is linear in the rates
except for two things: uses of a session are written at most once in touch_interval, and PostgreSQL
logs the image of a page that is written for the first time after a checkpoint, so that writes to
random pages cost more WAL the more pages there are.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

DAY = 86400.0
PAGE = 8192


@dataclass(frozen=True)
class Load:
    """What an application does; rates are per second, times in seconds, sizes in bytes."""

    sessions: float
    reads: float
    logins: float
    refreshes: float
    rotations: float
    updates: float
    logouts: float
    #: Sessions that end without a logout.
    expiries: float
    #: Share of the sessions that reads are of.
    in_use: float
    data: float
    touch_interval: float
    cache_ttl: float
    event_retention: float
    #: The time that a partition of events covers.
    event_partition: float
    #: Between two checkpoints.
    checkpoint: float


@dataclass(frozen=True)
class Machine:
    """One server of the fleet: processors, the share of them to use, memory to use in bytes."""

    cores: float
    utilisation: float
    memory: float
    connections: float


@dataclass(frozen=True)
class Option:
    """What the fleet has beside its primaries."""

    name: str
    cache: bool
    standbys: int
    #: Reads are sent to the standbys.
    read_standbys: bool


@dataclass(frozen=True)
class Forecast:
    """Of the whole fleet; CPU in processors, that is in seconds per second."""

    shards: int
    because: str
    cpu: dict[str, float]
    session_bytes: float
    standby_cpu: float
    redis_cpu: float
    memory: float
    redis_memory: float
    disk: float
    wal: float
    events: float
    event_count: float
    connections: float

    @property
    def primary_cpu(self) -> float:
        return sum(self.cpu.values())


Costs = dict[str, Any]


def costs_in(path: Path) -> Costs:
    costs: Costs = json.loads(path.read_text())
    return costs


def distinct(pages: float, writes: float) -> float:
    """How many of so many pages so many writes at random touch."""
    return pages * -math.expm1(-writes / pages) if pages > 0 else 0.0


def once_in(interval: float, sessions: float, uses: float) -> float:
    """Per second: the first use of each session after interval has passed since the last such."""
    if uses == 0 or sessions == 0:
        return 0.0
    return sessions / (interval + sessions / uses)


def session_size(costs: Costs, load: Load) -> float:
    """A row of user_sessions and its entries in indexes, in bytes."""
    extra = load.data - costs["data"]
    return float(costs["session_bytes"] + extra * costs["session_bytes_per_byte"])


def expected(costs: Costs, load: Load, option: Option, shards: int) -> Forecast:
    """What so many shards need, without a look at what they can do."""
    operations = costs["operations"]
    changes = load.refreshes + load.rotations + load.updates + load.logouts
    used = load.sessions * load.in_use
    misses = load.reads
    if option.cache:
        # a session is read again when its value is too old, and after it has been changed
        misses = min(load.reads, once_in(load.cache_ttl, used, load.reads) + changes)
    # a use counts where the read arrives; standbys write nothing
    on_primary = 0.0 if option.read_standbys else misses
    touches = once_in(load.touch_interval, used, on_primary)
    rates = {
        "reads": on_primary,
        "logins": load.logins,
        "refreshes": load.refreshes,
        "rotations": load.rotations,
        "updates": load.updates,
        "logouts": load.logouts,
        "touches": touches,
        "swept": load.expiries + load.logouts,
    }
    cpu = {name: rate * operations[name]["cpu_us"] / 1e6 for name, rate in rates.items()}
    cpu["idle"] = shards * costs["idle_cpu"]
    redis_cpu = 0.0
    if option.cache:
        cpu["cache"] = changes * costs["redis"]["change_cpu_us"] / 1e6
        redis_cpu = (
            load.reads * costs["redis"]["read_cpu_us"]
            + misses * costs["redis"]["fill_cpu_us"]
            + changes * costs["redis"]["tombstone_cpu_us"]
        ) / 1e6

    extra = load.data - costs["data"]
    records = sum(rate * operations[name]["wal"] for name, rate in rates.items())
    records += (load.logins + load.updates) * extra + shards * costs["idle_wal"]
    # a session that was ended has left its event then; one that expires does when it is swept
    by_event = rates | {"swept": load.expiries}
    events = sum(rate * operations[name]["events"] for name, rate in by_event.items())
    event_count = events * load.event_retention
    # those in the partition that is written to
    newest = events * min(load.event_retention, load.event_partition)

    # of one shard, as each has its own pages
    interval = load.checkpoint
    writes = (changes + touches + rates["swept"]) / shards * interval
    heap = load.sessions / shards * costs["heap_bytes"] / PAGE
    heap += load.sessions / shards * extra * costs["session_bytes_per_byte"] / PAGE
    user_index = load.sessions / shards * costs["user_index_bytes"] / PAGE
    event_index = newest / shards * costs["event_index_bytes"] / PAGE
    images = distinct(heap, writes) + distinct(user_index, load.logins / shards * interval)
    # two indexes, by user and by session
    images += 2 * distinct(event_index / 2, events / shards * interval)
    wal = records + images / interval * shards * costs["page_image_bytes"]

    size = session_size(costs, load)
    copies = 1 + option.standbys
    connections = sum(rate * operations[name]["wait_us"] for name, rate in rates.items()) / 1e6
    # to replay the image of a page is to copy it
    standby_cpu = option.standbys * records / 1e6 * costs["replay_cpu_s_per_mb"]
    if option.read_standbys:
        standby_cpu += misses * operations["reads"]["cpu_us"] / 1e6
    memory = load.sessions * size + newest * costs["event_index_bytes"]
    memory += shards * costs["server_bytes"] + connections * costs["backend_bytes"]
    value = costs["redis"]["value_bytes"] + extra
    redis_memory = load.sessions * value if option.cache else 0.0
    disk = load.sessions * size + event_count * costs["event_bytes"] + wal * interval * 2
    return Forecast(
        shards=shards,
        because="",
        cpu=cpu,
        session_bytes=size,
        standby_cpu=standby_cpu,
        redis_cpu=redis_cpu,
        memory=memory * copies,
        redis_memory=redis_memory,
        disk=disk * copies,
        wal=wal,
        events=events,
        event_count=event_count,
        connections=connections,
    )


def needed(costs: Costs, load: Load, machine: Machine, option: Option) -> Forecast:
    """The smallest fleet in which no primary does more than the machine may."""
    shards = 1
    while True:
        forecast = expected(costs, load, option, shards)
        limits = {
            "CPU": forecast.primary_cpu / shards / (machine.cores * machine.utilisation),
            "memory": forecast.memory / (1 + option.standbys) / shards / machine.memory,
            "connections": forecast.connections / shards / machine.connections,
        }
        worst = max(limits, key=lambda name: limits[name])
        if limits[worst] <= 1:
            return replace(forecast, because=worst)
        larger = max(shards + 1, math.floor(shards * limits[worst]))
        if larger > 65536:
            raise ValueError(f"no fleet suffices: a server's own needs exceed its {worst}")
        shards = larger
