"""Sessions on several databases: who has which, and what is asked of each.

    alias_of_user("auth0|ada")                       # "sessions2"
    each_shard(session_service.estimate_active)      # {"sessions1": 20113, "sessions2": 19874, ...}

SESSION_MANAGER["SHARDS"] names the databases; without it all of this answers with DATABASE.
"""

from __future__ import annotations

import uuid
from typing import Any

from .store.fan_out import each_shard
from .store.shards import all_aliases, bucket_of_id, bucket_of_user, home_of
from .store.tokens import session_id_of
from .store.users import user_id_of

__all__ = ["alias_of_id", "alias_of_token", "alias_of_user", "all_aliases", "each_shard"]


def alias_of_user(user: Any) -> str:
    """The alias of the database that has the sessions of a user, or of a session user id."""
    return home_of(bucket_of_user(user_id_of(user)))


def alias_of_token(token: str) -> str:
    """The alias of the database that has the session of a token.

    Nothing is asked: it may have ended.  Raises ValueError for what is no token.
    """
    return home_of(bucket_of_id(session_id_of(token)))


def alias_of_id(session_id: uuid.UUID | str) -> str:
    """The same by the session's id.  Raises ValueError for what is none."""
    return home_of(bucket_of_id(uuid.UUID(str(session_id))))
