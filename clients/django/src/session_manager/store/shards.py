"""Which database has a session: by the bucket of its user, which the session's id carries.

The bucket is what session_bucket and session_token_bucket say (docs/reference.md, "Buckets").  The
map, SHARDS, names an alias for each of n equal shares of the buckets, in the order of part/parts in
session_manager.shard.  Without SHARDS no bucket is computed, and everything is in DATABASE.

``alias_of`` alone answers where a call goes.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from nacl.bindings import crypto_shorthash_siphash24

from ..conf import settings
from ..exceptions import ShardUnknown, StoreUnavailable
from .aliases import chosen_alias
from .tokens import token_bytes

logger = logging.getLogger("session_manager")

#: 0 to 65535; None without SHARDS, and for what concerns no user.
Bucket = int | None

#: Of SipHash-2-4 (Aumasson and Bernstein, 2012); the extension's, which is published.
KEY = b"session_bucketv1"
#: Seconds after which a map that a function returns is read again.
MAP_SECONDS = 5.0
#: How long a call that the wrong shard refused is made again, and the pause before each time.
RETRY_SECONDS = 2.0
RETRY_PAUSE = 0.05


def bucket_of_user(user_id: str | None) -> Bucket:
    """The low 16 bits of the SipHash-2-4 of a user id in UTF-8."""
    if not settings.is_sharded:
        return None
    try:
        text = (user_id or "").encode()
    except UnicodeEncodeError:
        # No user has such an id, as every shard will say.
        return 0
    return int.from_bytes(crypto_shorthash_siphash24(text, KEY)[:2], "little")


def bucket_of_bytes(raw: bytes) -> Bucket:
    """The bucket in a session id, which a token's bytes begin with."""
    return raw[14] << 8 | raw[15] if settings.is_sharded else None


def bucket_of_id(session_id: uuid.UUID | str) -> Bucket:
    """The bucket in a session id.  Raises ValueError for what is none."""
    if not settings.is_sharded:
        return None
    return bucket_of_bytes(uuid.UUID(str(session_id)).bytes)


def bucket_of_token(token: str | None) -> Bucket:
    """The bucket in a token; 0 for what is no token, as every shard can say that."""
    if not settings.is_sharded:
        return None
    raw = token_bytes(token)
    return 0 if raw is None else bucket_of_bytes(raw)


class _Map:
    """The aliases, as the setting or its function has last said."""

    def __init__(self) -> None:
        self._source: object = None
        self._aliases: tuple[str, ...] = ()
        self._read_at = 0.0

    def aliases(self) -> tuple[str, ...]:
        source = settings.SHARDS
        if self._source is not source:
            self._aliases = _read(source)
            self._source, self._read_at = source, time.monotonic()
        elif isinstance(source, str) and time.monotonic() - self._read_at >= MAP_SECONDS:
            self.reload()
        return self._aliases

    def reload(self) -> None:
        """Ask the function again; if it fails, what it said before holds."""
        # First, so that others do not ask as well.
        self._read_at = time.monotonic()
        try:
            self._aliases = _read(settings.SHARDS)
        except (ImproperlyConfigured, StoreUnavailable) as error:
            logger.error("the map of the shards stays as it was: %s", error)


def _read(source: Sequence[str] | str | None) -> tuple[str, ...]:
    found: Sequence[str]
    if isinstance(source, str):
        try:
            found = settings.load(source)()
        except Exception as error:
            # It is the application's, and may ask anybody.
            raise StoreUnavailable(f"{source} does not tell the shards: {error!r}") from error
    else:
        found = source or ()
    if isinstance(found, str) or not found:
        raise ImproperlyConfigured('SESSION_MANAGER["SHARDS"] must be a list of aliases.')
    unknown = sorted({str(alias) for alias in found if alias not in connections})
    if unknown:
        raise ImproperlyConfigured(
            f'SESSION_MANAGER["SHARDS"] has {", ".join(unknown)}, which DATABASES does not have.'
        )
    return tuple(found)


_map = _Map()
#: The map while a transaction is open that must not come apart.
_held: ContextVar[tuple[str, ...] | None] = ContextVar("session_manager_map", default=None)


@contextmanager
def holding_map() -> Iterator[None]:
    """Let the map be the same in the block."""
    if not settings.is_sharded or _held.get() is not None:
        yield
        return
    token = _held.set(_map.aliases())
    try:
        yield
    finally:
        _held.reset(token)


def home_of(bucket: Bucket) -> str:
    """The alias of the database that has a bucket."""
    if bucket is None:
        if settings.is_sharded:
            raise ShardUnknown(
                "SHARDS has several databases, and nothing here says which is meant: name one "
                "with administration.using(alias), or ask each with shards.each_shard(function)."
            )
        return settings.DATABASE
    aliases = _held.get() or _map.aliases()
    return aliases[bucket * len(aliases) >> 16]


def alias_of(bucket: Bucket) -> str:
    """The alias that a call goes to: the one named by ``using``, else its bucket's."""
    return chosen_alias() or home_of(bucket)


def map_of_shards() -> tuple[str, ...]:
    """The aliases in the order of their shares; DATABASE alone without SHARDS."""
    return _map.aliases() if settings.is_sharded else (settings.DATABASE,)


def all_aliases() -> list[str]:
    """Each of them once."""
    return list(dict.fromkeys(map_of_shards()))


class Retries:
    """How long what a wrong shard has refused is tried again: it has changed nothing."""

    def __init__(self) -> None:
        self._until: float | None = None

    def again(self) -> bool:
        """Read the map again; whether to try once more."""
        if not settings.is_sharded or chosen_alias() is not None:
            return False
        before = _map.aliases()
        _map.reload()
        now = time.monotonic()
        if self._until is None:
            self._until = now + RETRY_SECONDS
        if now >= self._until:
            return False
        if _map.aliases() == before:
            # The shares have been changed first, and the map is about to be.
            time.sleep(RETRY_PAUSE)
        return True
