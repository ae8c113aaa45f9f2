"""Which sessions the open transaction has changed: others, and the cache, have them as before."""

from __future__ import annotations

import uuid

from django.db import connections

from .conf import settings
from .database import database_alias
from .tokens import session_id_of

# On a connection: the outermost transaction, and the sessions that it has changed.
_CHANGED = "_session_manager_changed"


def note_change(session_id: uuid.UUID | None) -> None:
    """Remember that the open transaction changes a session; None for an unknown number."""
    connection = connections[database_alias()]
    if not connection.in_atomic_block:
        return
    outermost = connection.atomic_blocks[0]
    block, ids = getattr(connection, _CHANGED, (None, frozenset()))
    kept: frozenset[uuid.UUID | None] = ids if block is outermost else frozenset()
    setattr(connection, _CHANGED, (outermost, kept | {session_id}))


def changed_here(token: str) -> bool:
    """Whether the transaction that is open may have changed the session of a token."""
    connection = connections[database_alias()]
    if database_alias() != settings.DATABASE:
        return True
    if not connection.in_atomic_block:
        return False
    block, ids = getattr(connection, _CHANGED, (None, frozenset()))
    return block is connection.atomic_blocks[0] and (None in ids or session_id_of(token) in ids)
