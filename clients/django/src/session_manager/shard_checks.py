"""What the checks say of several databases together: whether they are one set of shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.db import Error as DBError

from .exceptions import SessionError
from .store.aliases import using
from .store.database import call, function
from .store.fan_out import ranges_of, share_of, share_of_server
from .store.shards import map_of_shards


def fleet_problems(aliases: Sequence[str]) -> list[CheckMessage]:
    """Of the shards that are to be checked; each of them is in order by itself."""
    found: list[CheckMessage] = []
    known: dict[str, tuple[Any, Any]] = {}
    for alias in aliases:
        try:
            with using(alias):
                found += _share(alias)
                (row,) = call(
                    "SELECT extversion AS version, "
                    f"{function('session_audience')}() AS installation"
                    " FROM pg_extension WHERE extname = 'session_manager'"
                )
        except (SessionError, DBError) as error:
            found.append(
                Warning(
                    f"It is not known what the database {alias!r} has: {error}",
                    hint="Start it, and check DATABASES.",
                    id="session_manager.W012",
                )
            )
        else:
            known[alias] = (row["version"], row["installation"])
    found += _differences(known)
    return found


def _share(alias: str) -> Iterator[CheckMessage]:
    """Whether the server takes what the map sends it, and nothing else."""
    expected, own = share_of(alias, map_of_shards()), share_of_server()
    if own is None:
        yield Warning(
            f"The server of {alias!r} takes every user: a process with an old map of the shards "
            "would find no session there, and sign its user out.",
            hint=f"There: ALTER SYSTEM SET session_manager.shard = '{expected}'; "
            "SELECT pg_reload_conf();",
            id="session_manager.W074",
        )
        return
    wanted, has = ranges_of(expected), ranges_of(own)
    if wanted != has:
        lacks = not all(any(a <= c and d <= b for a, b in has) for c, d in wanted)
        kind, id_ = (Error, "session_manager.E073") if lacks else (Warning, "session_manager.W074")
        yield kind(
            f"SHARDS gives {alias!r} the share {expected} of the users, but session_manager.shard "
            f"of its server is {own}: "
            + ("it refuses some of them." if lacks else "it takes users of other shards."),
            hint=f"Change SHARDS, or there: ALTER SYSTEM SET session_manager.shard = '{expected}'; "
            "SELECT pg_reload_conf();",
            id=id_,
        )


def _differences(known: dict[str, tuple[Any, Any]]) -> Iterator[CheckMessage]:
    if len({version for version, _ in known.values()}) > 1:
        yield Error(
            "The shards have different versions of the extension: "
            + ", ".join(f"{alias} {version}" for alias, (version, _) in known.items()),
            hint="As a superuser on each: ALTER EXTENSION session_manager UPDATE.",
            id="session_manager.E075",
        )
    installations = [installation for _, installation in known.values()]
    if len(set(installations)) > 1:
        yield Warning(
            f"The shards {', '.join(known)} are not of one installation: no session can move from "
            "one to another.",
            hint="Give them the same key file, and copy session_installation and session_keys "
            "before the first session is made.",
            id="session_manager.W076",
        )
