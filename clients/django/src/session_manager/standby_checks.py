"""What the checks say of READ_DATABASE: whether requests can rely on it, and what it names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.db import Error as DBError
from django.db import connections

from .conf import settings
from .store.aliases import same_database

_SERVER = (
    "SELECT pg_catalog.pg_is_in_recovery(),"
    " (SELECT system_identifier FROM pg_catalog.pg_control_system()),"
    " (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()),"
    " pg_catalog.pg_postmaster_start_time(),"
    " (SELECT default_version FROM pg_catalog.pg_available_extensions"
    " WHERE name = 'session_manager')"
)


def setting_problems() -> Iterator[CheckMessage]:
    """What the settings alone tell."""
    for primary, aliases in settings.standbys.items():
        for alias in aliases:
            if alias not in connections:
                yield Error(
                    f'SESSION_MANAGER["READ_DATABASE"] has {alias!r}, which is not in DATABASES.',
                    hint="Name the alias of a standby.",
                    id="session_manager.E011",
                )
            elif primary in connections:
                yield from _alias_problems(primary, alias)


def _alias_problems(primary: str, alias: str) -> Iterator[CheckMessage]:
    config = connections[alias].settings_dict
    if config["TEST"]["MIRROR"] is None and same_database(primary, alias):
        yield Error(
            f'SESSION_MANAGER["READ_DATABASE"] has {alias!r}, which is the same database as '
            f"{primary!r}, the primary.",
            hint="Name the alias of a standby, or remove the setting.",
            id="session_manager.E080",
        )
    if config["ATOMIC_REQUESTS"] or not config["AUTOCOMMIT"]:
        yield Error(
            f"ATOMIC_REQUESTS is on, or AUTOCOMMIT off, for {alias!r}, a standby: no request would "
            "be served while it is down.",
            hint="Leave both as they are by default there.",
            id="session_manager.E081",
        )
    if "," in config["HOST"]:
        yield Error(
            f"{alias!r}, a standby, has several hosts: how far one of them is behind would be "
            "taken for the others as well.",
            hint='Give each an alias, and SESSION_MANAGER["READ_DATABASE"] a list of them.',
            id="session_manager.E085",
        )
    options = config["OPTIONS"]
    pool = options.get("pool")
    if "connect_timeout" not in options or (
        pool and "timeout" not in (pool if isinstance(pool, dict) else {})
    ):
        yield Warning(
            f"A request may wait long for a connection with {alias!r}, a standby, when that hangs.",
            hint='Give it OPTIONS = {"connect_timeout": 2}, and its pool, if it has one, a '
            '"timeout".',
            id="session_manager.W082",
        )


def server_problems(primary: str) -> Iterator[CheckMessage]:
    """What the standbys of a primary tell."""
    for alias in settings.standbys.get(primary, ()):
        if alias not in connections or connections[alias].settings_dict["TEST"]["MIRROR"]:
            continue
        try:
            servers = [_server(primary), _server(alias)]
        except DBError as error:
            yield Warning(
                f"It is not known what the standby {alias!r} has: {error}".strip(),
                hint="Start it, and check DATABASES. Until then its primary is asked.",
                id="session_manager.W012",
            )
        else:
            yield from _differences(primary, alias, *servers)


def _server(alias: str) -> tuple[Any, ...]:
    with connections[alias].cursor() as cursor:
        cursor.execute(_SERVER)
        found: tuple[Any, ...] = cursor.fetchone()
    return found


def _differences(
    primary: str, alias: str, first: tuple[Any, ...], second: tuple[Any, ...]
) -> Iterator[CheckMessage]:
    if first[1:3] != second[1:3]:
        yield Error(
            f"{alias!r} is no standby of {primary!r}, but another database: it would serve what "
            "sessions that has, and those ended since it was made, if it is a copy.",
            hint='Set SESSION_MANAGER["READ_DATABASE"] to a standby that streams from the primary.',
            id="session_manager.E083",
        )
    elif first[0] or (not second[0] and first[3] != second[3]):
        yield Error(
            f"{primary!r} is in recovery: nothing can be written there."
            if first[0]
            else f"{alias!r} has been promoted, and is no standby of {primary!r} any more.",
            hint="After a failover, name the servers as they are now; docs/django.md, Reading from "
            "standbys, has a HOST that finds the primary.",
            id="session_manager.E084",
        )
    elif first[4] != second[4]:
        yield Warning(
            f"Version {second[4]} of the extension is installed on the standby {alias!r}, and "
            f"{first[4]} on the primary.",
            hint="Install the same on both.",
            id="session_manager.W015",
        )
