"""The map of the shards as a function, which a test changes."""

from __future__ import annotations

from django.conf import settings

from session_manager.store import shards

PATH = f"{__name__}.current"

#: None: as it should be.
wanted: list[str] | None = None
calls = 0


def current() -> list[str]:
    """SESSION_MANAGER["SHARDS"]."""
    global calls
    calls += 1
    return wanted or settings.SHARDS


def change(aliases: list[str] | None, *, known: bool = False) -> None:
    """known: to this process, which would else read it when it has to, or seconds later."""
    global wanted
    wanted = aliases
    if known:
        shards._map.reload()
