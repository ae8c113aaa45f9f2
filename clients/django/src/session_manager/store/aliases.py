"""Which of Django's databases has the sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.db import DEFAULT_DB_ALIAS, connections

from ..conf import settings

_alias: ContextVar[str | None] = ContextVar("session_manager_database", default=None)


@contextmanager
def using(alias: str | None) -> Iterator[None]:
    """Let calls in the block go to another database alias, such as an administrator's."""
    token = _alias.set(alias)
    try:
        yield
    finally:
        _alias.reset(token)


def chosen_alias() -> str | None:
    """The alias that ``using`` has named, if any."""
    return _alias.get()


def database_alias() -> str:
    """The alias that calls go to which concern no user."""
    return _alias.get() or settings.DATABASE


def model_alias() -> str | None:
    """The alias that the models read from; None leaves it to Django's routers, or to the query."""
    if settings.is_sharded or settings.DATABASE == DEFAULT_DB_ALIAS:
        return _alias.get()
    return database_alias()


def same_database(one: str, other: str) -> bool:
    """Whether two aliases are of one database, by another role for example."""
    first, second = (connections[alias].settings_dict for alias in (one, other))
    # Of libpq's own, what decides about the server and the database.
    options = ("service", "host", "hostaddr", "port", "dbname")
    return one == other or (
        all(first[part] == second[part] for part in ("ENGINE", "HOST", "PORT", "NAME"))
        and all(first["OPTIONS"].get(part) == second["OPTIONS"].get(part) for part in options)
    )
