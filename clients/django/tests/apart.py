"""A database of its own for sessions; the rest of the application is in default."""

from __future__ import annotations

from django.db import connections

NAME = "sm_apart"


def add_alias(alias: str, name: str) -> None:
    """After Django's tests have settled which aliases a test may use."""
    connections.settings[alias] = {**connections["default"].settings_dict, "NAME": name}
    added = connections[alias]

    def ensure_connection() -> None:
        if added.connection is None:
            with added.wrap_database_errors:
                added.connect()

    added.ensure_connection = ensure_connection  # type: ignore[method-assign]


def remove_alias(alias: str) -> None:
    connections[alias].close()
    del connections[alias]
    del connections.settings[alias]
