"""Sessions of many users, by the Django package: what shard_traffic.c does without it.

    shard_traffic.py MAP STOP NAME SECONDS

SHARDS is a function that reads the file MAP, and the package finds out by itself when to call it
again.  What it refuses, as a view would by a 503, is retried for SECONDS.  Arguments and output are
those of shard_traffic.c: "wrong shard" counts calls that the package has given up after waiting for
a new map, "disconnects" those for which a server did not answer.
"""

from __future__ import annotations

import os
import random
import secrets
import shlex
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import django
from django.conf import settings
from django.db import close_old_connections, connections

T = TypeVar("T")

USERS = 500
MAX_SESSIONS = 20_000
PAUSE = 0.002
#: Of a map's entries, each has so many buckets.
STEP = 256

map_file, stop_file, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
patience = float(sys.argv[4])
#: Aliases by connection strings.
aliases: dict[str, str] = {}
count: Counter[str] = Counter()
longest_wait = 0.0


def database(conninfo: str) -> dict[str, Any]:
    """A connection string as an entry of DATABASES."""
    given = dict(part.split("=", 1) for part in shlex.split(conninfo))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": given["dbname"],
        "HOST": given["host"],
        "PORT": given["port"],
        "USER": given.get("user", os.environ.get("PGUSER", "postgres")),
        "CONN_MAX_AGE": None,
    }


def shards() -> list[str]:
    """SESSION_MANAGER["SHARDS"]."""
    found = [""] * (65536 // STEP)
    for line in map_file.read_text().splitlines():
        first, last, conninfo = line.split(" ", 2)
        if conninfo not in aliases:
            alias = f"server{len(aliases)}"
            # A server that has come since this process started.
            connections.settings[alias] = {
                **connections["default"].settings_dict,
                **database(conninfo),
            }
            aliases[conninfo] = alias
        for bucket in range(int(first), int(last) + 1, STEP):
            found[bucket // STEP] = aliases[conninfo]
    return found


def configure() -> None:
    conninfo = map_file.read_text().splitlines()[0].split(" ", 2)[2]
    settings.configure(
        DATABASES={"default": database(conninfo)},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "session_manager"],
        SECRET_KEY=secrets.token_hex(),
        SESSION_MANAGER={"SHARDS": "__main__.shards"},
        USE_TZ=True,
    )
    django.setup()


def call(function: Callable[..., T], *args: Any, **kwargs: Any) -> tuple[T | None, bool]:
    """What a function returns, and whether it may have been carried out before that.

    None after an error of another kind than StoreUnavailable.
    """
    global longest_wait
    began = time.monotonic()
    tried = False
    count["calls"] += 1
    while True:
        try:
            found = function(*args, **kwargs)
            longest_wait = max(longest_wait, time.monotonic() - began)
            return found, tried
        except StoreUnavailable as error:
            if isinstance(error, WrongShard):
                count["wrong shard"] += 1
            else:
                count["disconnects"] += 1
                tried = True
            if time.monotonic() > began + patience:
                sys.exit("no server answers")
        except Exception:
            print(f"error: {traceback.format_exc()}")
            count["errors"] += 1
            return None, True
        # As a request does at its end.
        close_old_connections()
        time.sleep(0.01)


live: list[str] = []
dead: list[str] = []


def add(tokens: list[str], token: str) -> None:
    if len(tokens) == MAX_SESSIONS:
        tokens[random.randrange(MAX_SESSIONS)] = token
    else:
        tokens.append(token)


def drop(tokens: list[str], i: int) -> None:
    tokens[i] = tokens[-1]
    tokens.pop()


def lose(what: str) -> None:
    print(f"lost: {what}")
    count["lost"] += 1


def log_in() -> None:
    created, _ = call(session_service.create, f"{name}-{random.randrange(USERS)}")
    if created is not None:
        add(live, created.token)


def log_out(i: int) -> None:
    token = live[i]
    ended, _ = call(session_service.invalidate, token)
    if not ended:
        # Perhaps by this call: the package repeats it where a kept connection was found closed.
        count["uncertain"] += 1
    drop(live, i)
    add(dead, token)


def rotate(i: int) -> None:
    renewed, tried = call(session_service.refresh, live[i], rotate=True)
    if renewed is not None and renewed.status == "rotated":
        assert renewed.token is not None
        live[i] = renewed.token
        return
    if tried:
        # The answer with the new token is lost.
        count["uncertain"] += 1
    elif renewed is not None:
        lose(f"{live[i]} is {renewed.status}")
    drop(live, i)


def read_live(i: int) -> None:
    found, _ = call(session_service.get, live[i])
    if found is None:
        lose(f"{live[i]} is not live")
        drop(live, i)


def read_dead(i: int) -> None:
    found, _ = call(session_service.get, dead[i])
    if found is not None:
        print(f"revived: {dead[i]} is live")
        count["revived"] += 1
        drop(dead, i)


configure()

from session_manager.exceptions import StoreUnavailable, WrongShard  # noqa: E402
from session_manager.services import session_service  # noqa: E402

if __name__ == "__main__":
    while not stop_file.exists():
        what = random.randrange(100)
        if what < 20 or len(live) < 20:
            log_in()
        elif what < 35:
            log_out(random.randrange(len(live)))
        elif what < 50:
            rotate(random.randrange(len(live)))
        elif what < 80 or not dead:
            read_live(random.randrange(len(live)))
        else:
            read_dead(random.randrange(len(dead)))
        time.sleep(PAUSE)
    for i in reversed(range(len(live))):
        read_live(i)
    for i in reversed(range(len(dead))):
        read_dead(i)
    counted = ("calls", "wrong shard", "disconnects", "uncertain", "lost", "revived", "errors")
    print(
        ", ".join(f"{what} {count[what]}" for what in counted),
        f", live {len(live)}, dead {len(dead)}, longest wait {longest_wait:.3f} s",
        sep="",
    )
