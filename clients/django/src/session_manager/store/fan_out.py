"""What concerns no single user: asked of each shard, which answers for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..conf import settings
from ..exceptions import (
    InvalidArgument,
    SessionError,
    ShardsUnreachable,
    StoreUnavailable,
    WrongShard,
)
from .aliases import chosen_alias, using
from .database import call, function, verdict
from .shards import Retries, map_of_shards

R = TypeVar("R")


def each_shard(
    work: Callable[[], R], combine: Callable[[R, R], R] = lambda before, now: now
) -> dict[str, R]:
    """Do work on each shard, one after the other; the results by the shards' aliases.

    A shard that cannot be reached stops none of the others.  Raises ShardsUnreachable afterwards,
    which has the others' results; doing it again is for those that are missing.

    Sessions that move to another shard meanwhile are not missed: where a server's share is no
    longer what the map says, the work is done again by the new map, and ``combine`` makes one
    result of two.

    Without SHARDS, and where ``using`` names an alias, it is done once, and raises what work does.
    """
    chosen = chosen_alias()
    if chosen is not None or not settings.is_sharded:
        return {chosen or settings.DATABASE: work()}
    results: dict[str, R] = {}
    failed: dict[str, SessionError] = {}
    done: set[tuple[str, str]] = set()
    retries = Retries()
    while True:
        moved: dict[str, SessionError] = {}
        shards = map_of_shards()
        for alias in dict.fromkeys(shards):
            share = share_of(alias, shards)
            if alias in failed or (alias, share) in done:
                continue
            try:
                with using(alias):
                    result = work()
                    if not _has(share):
                        moved[alias] = WrongShard("its share of the buckets is another one")
            except InvalidArgument:
                # Every shard would say so, and the first one has.
                raise
            except SessionError as error:
                failed[alias] = error
                continue
            results[alias] = combine(results[alias], result) if alias in results else result
            if alias not in moved:
                done.add((alias, share))
        if map_of_shards() != shards:
            continue
        if not moved or not retries.again():
            failed.update(moved)
            break
    for alias in failed:
        results.pop(alias, None)
    if failed:
        raise ShardsUnreachable(results, failed)
    return results


def revoke_everywhere(name: str, params: Sequence[Any], result: str) -> int:
    """Call session_NAME, which ends sessions; what it returns, or 0 where that is nothing.

    A router (docs/router.md) only warns of shards that it cannot reach, and no driver shows
    warnings.  So its session_router_NAME is called instead, which returns a row for each shard,
    with ``result`` where that has done it, and ShardsUnreachable is raised as each_shard does.
    """
    places = ", ".join(["%s"] * len(params))
    if not _is_router():
        (row,) = call(f"SELECT {function(f'session_{name}')}({places}) AS n", params)
        return int(row["n"] or 0)
    results: dict[str, int] = {}
    failed: dict[str, SessionError] = {}
    for row in call(
        f"SELECT shard, {result} AS result, state, message"
        f" FROM {function(f'session_router_{name}')}({places})",
        params,
    ):
        shard, state, message = row["shard"], row["state"], row["message"]
        if state is None:
            results[shard] = row["result"]
            continue
        error = verdict(state, message)
        if isinstance(error, InvalidArgument):
            # Every shard says so.
            raise error
        failed[shard] = error or StoreUnavailable(f"{message} ({state})")
    if failed:
        raise ShardsUnreachable(results, failed)
    return sum(results.values())


def _is_router() -> bool:
    """Whether the database has session_manager_router in the place of the sessions."""
    if settings.stand_in is not None:
        return False
    (row,) = call(
        "SELECT pg_catalog.to_regproc(%s) IS NOT NULL AS found", [function("session_router_map")]
    )
    return bool(row["found"])


def share_of(alias: str, shards: Sequence[str]) -> str:
    """What a map gives an alias, as session_manager.shard has it: "2/4", "1/8, 2/8", or "none"."""
    parts = [n for n, name in enumerate(shards, 1) if name == alias]
    return ", ".join(f"{part}/{len(shards)}" for part in parts) or "none"


def ranges_of(share: str) -> list[tuple[int, int]]:
    """The buckets of a share, from one up to (without) another, in order and joined.

    share: as session_manager.shard has it: "none", or a list of "part/parts" and "first-last".
    Raises ValueError for what is no share.
    """
    found: list[tuple[int, int]] = []
    for text in share.split(",") if share != "none" else ():
        if "-" in text:
            first, last = map(int, text.split("-"))
            found.append((first, last + 1))
            continue
        part, parts = map(int, text.split("/"))
        # The first bucket for which floor(bucket * parts / 65536) is part - 1.
        first, end = (-(-n * 65536 // parts) for n in (part - 1, part))
        found.append((first, end))
    joined: list[tuple[int, int]] = []
    for first, end in sorted(found):
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    return joined


def share_of_server() -> str | None:
    """session_manager.shard of the server that calls go to; None if it is not set."""
    # The setting is known once a function of the extension has been called.
    (row,) = call(
        f"SELECT CASE WHEN {function('session_bucket')}(''::text) IS NOT NULL"
        " THEN current_setting('session_manager.shard') END AS share"
    )
    share: str = row["share"]
    return share or None


def _has(share: str) -> bool:
    """Whether the server has a share of the map's; one that does not know its own has all."""
    own = share_of_server()
    if own is None:
        return True
    return all(
        any(first <= start and end <= stop for start, stop in ranges_of(own))
        for first, end in ranges_of(share)
    )
