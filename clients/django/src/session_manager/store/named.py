"""Which database a query of the models is for: that of the user or of the session that it names."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from django.db.models.lookups import Exact, In
from django.db.models.sql.where import AND, WhereNode

from ..exceptions import ShardUnknown
from .shards import bucket_of_id, bucket_of_user, home_of

_MESSAGE = (
    "The sessions are on several databases (SHARDS), and this query names neither a user nor a "
    "session that tells which one it is for. Filter by one user_id or session_id, choose one with "
    ".using(alias), or run it on each with session_manager.shards.each_shard."
)


def alias_named_by(query: Any) -> str:
    """The alias of the users or sessions that a query is restricted to.

    Raises ShardUnknown if it names none, or some of several databases.
    """
    for found in _restrictions(query.where):
        aliases = {home_of(bucket) for bucket in found}
        if len(aliases) == 1:
            return aliases.pop()
    raise ShardUnknown(_MESSAGE)


def _restrictions(where: WhereNode) -> Iterator[list[int | None]]:
    """The buckets that each of the conditions allows which all rows must fulfil."""
    if where.negated or (where.connector != AND and len(where.children) != 1):
        return
    for child in where.children:
        if isinstance(child, WhereNode):
            yield from _restrictions(child)
        elif isinstance(child, Exact | In):
            values = child.rhs if isinstance(child, In) else [child.rhs]
            target = getattr(child.lhs, "target", None)
            name = getattr(target, "column", None)
            if isinstance(values, list | tuple | set) and name in ("session_id", "user_id"):
                buckets = [_bucket_of(name, value) for value in values]
                if buckets and None not in buckets:
                    yield buckets


def _bucket_of(column: str, value: Any) -> int | None:
    if column == "user_id":
        return bucket_of_user(value) if isinstance(value, str) else None
    try:
        return bucket_of_id(value if isinstance(value, uuid.UUID) else str(value))
    except ValueError:
        return None
