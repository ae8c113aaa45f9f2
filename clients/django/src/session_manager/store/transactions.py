"""Which sessions the open transaction has changed: others, and the cache, have them as before.

They are noted in Django's list of hooks for the commit, so that they are forgotten with the
transaction, or the savepoint, that they belong to.  Where Django does not know of the transaction
(autocommit off, BEGIN by hand) any session may have been changed.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.db import connections, transaction

from ..conf import settings
from .database import database_alias, is_managed
from .tokens import session_id_of

# libpq's PQTRANS_IDLE: connected, and no transaction is open.
_IDLE = 0


class _Changes:
    """A hook that does nothing, and holds ids; None is an unknown number of sessions."""

    def __init__(self) -> None:
        self.ids: set[uuid.UUID | None] = set()

    def __call__(self) -> None:
        pass


def _changes(connection: Any) -> _Changes | None:
    hooks = (hook[1] for hook in connection.run_on_commit)
    return next((hook for hook in hooks if isinstance(hook, _Changes)), None)


def note_change(session_id: uuid.UUID | None) -> None:
    """Remember that the open transaction changes a session; None for an unknown number."""
    connection = connections[database_alias()]
    if not is_managed(connection):
        return
    changes = _changes(connection)
    if changes is None:
        changes = _Changes()
        transaction.on_commit(changes, using=connection.alias)
    changes.ids.add(session_id)


def changed_here(token: str) -> bool:
    """Whether the transaction that is open may have changed the session of a token."""
    alias = database_alias()
    if alias != settings.DATABASE:
        return True
    connection = connections[alias]
    if is_managed(connection):
        changes = _changes(connection)
        return changes is not None and (None in changes.ids or session_id_of(token) in changes.ids)
    driver: Any = connection.connection
    return driver is not None and driver.info.transaction_status != _IDLE
