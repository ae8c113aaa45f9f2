"""Reads of sessions through Redis: docs/cache-protocol.md, "The reader".

The extension keeps the cache honest; this is a reader, which fills it.  Whatever Redis does, the
worst that happens is that PostgreSQL answers: no error of Redis ever reaches a caller.

A value is used only under the epoch that came with it in the same MGET.  A fill takes a lease
first, then reads the row, and stores it only if the lease still holds and the row is of the server
whose epoch it was taken under.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from ..conf import settings
from ..exceptions import SessionError
from ..types import JSON, Session
from . import sealing
from .aliases import using
from .breaker import Breaker
from .channel import Channel, LateError
from .database import call, function
from .live_session import session_of
from .request_data import parse
from .shards import Bucket, home_of
from .tokens import TOKEN_SIZE, proof_expiry

logger = logging.getLogger("session_manager")

SETTINGS_SECONDS = 60.0
# While there is no cache, or no epoch: a server that was recreated has another installation.
DOUBT_SECONDS = 5.0
# How often the log tells that Redis refuses a command.
WARNING_SECONDS = 60.0
#: How long the system check waits for each answer.
CHECK_TIMEOUT = 5.0

ACQUIRE = """
local epoch = redis.call('GET', KEYS[2])
if not epoch then return false end
local held = redis.call('GETRANGE', KEYS[1], 0, 32)
if held ~= '' and (string.sub(held, 1, 1) ~= 'V' or string.sub(held, 2) == epoch) then
  return false
end
redis.call('SET', KEYS[1], 'L' .. ARGV[1], 'PX', 3000)
local time = redis.call('TIME')
return {epoch, string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))}
"""
FILL = """
if redis.call('GET', KEYS[1]) ~= 'L' .. ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return 1
"""


@dataclass(frozen=True)
class Lease:
    """The right to fill a session's value."""

    nonce: str
    #: The installation whose epoch it is.
    installation: str
    epoch: bytes
    #: Redis's clock when the lease was taken, milliseconds since 1970.
    time: int


@dataclass(frozen=True)
class _Installation:
    """What session_cache_settings() says."""

    id: str
    max_age: int

    @property
    def epoch_key(self) -> str:
        return f"session:epoch:{self.id}"


class _Script:
    """A script, sent by its digest, or in full where Redis does not have it yet.

    redis-py's own would load it by SCRIPT LOAD, for which readers need no right.
    """

    def __init__(self, channel: Channel, text: str) -> None:
        self._channel = channel
        self._text = text
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return self._channel.command("EVALSHA", self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return self._channel.command("EVAL", self._text, len(keys), *keys, *args)


# The groups of a UUID's hexadecimal digits.
_GROUPS = struct.Struct("8s4s4s4s12s")


def _id_text(session_id: bytes) -> str:
    """As str(uuid.UUID(bytes=session_id)), several times as fast."""
    return b"-".join(_GROUPS.unpack(session_id.hex().encode())).decode()


class SessionCache:
    """One per process and database, whose alias it has; used by many threads."""

    def __init__(
        self, alias: str, url: str, db: int, key: bytes, timeout: float, breaker: Breaker
    ) -> None:
        self._alias = alias
        self._key = key
        self._breaker = breaker
        self._channel = Channel(url, db, timeout, breaker.seconds)
        self._acquire = _Script(self._channel, ACQUIRE)
        self._fill = _Script(self._channel, FILL)
        self._lock = threading.Lock()
        self._installation: _Installation | None = None
        self._fetched_at: float | None = None
        #: Whether what is known of the installation may have been overtaken.
        self._doubtful = False
        self._warned_at: float | None = None
        #: Whether the log knows that Redis does not answer.
        self._warned = False

    @property
    def breaker(self) -> Breaker:
        return self._breaker

    def problem(self) -> str | None:
        """Why sessions cannot be read and filled now, or None.

        Does what a miss does, with a key of its own.  Raises RedisError if Redis does not answer or
        refuses a command.
        """
        self._fetched_at = None
        installation = self.installation()
        if installation is None:
            return "session_manager.redis_mode is off on the server, or it did not answer"
        if self._is_of_cluster():
            return "it belongs to a Redis Cluster, which cannot keep the cache: use one server"
        # Ids begin with the time, so that this is no session's.
        key = f"session:{_id_text(bytes(6) + secrets.token_bytes(10))}"
        keys = [key, installation.epoch_key]
        _, epoch = cast("list[bytes | None]", self._channel.command("MGET", *keys))
        nonce = secrets.token_hex(16)
        answer = self._acquire(keys=keys, args=[nonce])
        lapses_at = int(answer[1]) + 1 if isinstance(answer, list) else 1
        self._fill(keys=[key], args=[nonce, b"", lapses_at])
        if epoch is None:
            return f"the extension keeps no epoch in database {settings.REDIS_DB} of this Redis"
        return None

    def _is_of_cluster(self) -> bool:
        try:
            info = self._channel.command("INFO", "cluster")
        except ResponseError:
            # The user may not ask.
            return False
        return b"cluster_enabled:1" in cast(bytes, info)

    def installation(self) -> _Installation | None:
        """How the extension wants to be read; None if it has no cache, or has not said so yet."""
        now = time.monotonic()
        if not self._outdated(now):
            return self._installation
        # One asks, and nobody waits: the one may have to wait for a connection that one of the
        # others has, or for a server that does not answer.
        if self._lock.acquire(blocking=False):
            try:
                if self._outdated(now):
                    self._fetched_at = now
                    self._refresh_installation()
            finally:
                self._lock.release()
        return self._installation

    def _refresh_installation(self) -> None:
        try:
            with using(self._alias):
                self._installation = _fetch_installation()
            self._doubtful = self._installation is None
        except SessionError as error:
            # What is known stays good: an epoch that has ended never comes back.
            logger.warning("the settings of the cache are not known: %s", error)
            self._doubtful = True

    def _ask_soon(self) -> None:
        if self._fetched_at is not None:
            soon = time.monotonic() - SETTINGS_SECONDS + DOUBT_SECONDS
            self._fetched_at = min(self._fetched_at, soon)

    def _outdated(self, now: float) -> bool:
        seconds = DOUBT_SECONDS if self._doubtful else SETTINGS_SECONDS
        return self._fetched_at is None or now - self._fetched_at >= seconds

    def read(self, token: bytes) -> tuple[Session | None, Lease | None, bool]:
        """The cached session of a token's bytes; or a lease, or neither: then ask PostgreSQL.

        And whether Redis has answered.  Then ask the primary: what a standby says cannot be
        cached, and the session may just have been revoked.
        """
        installation = self.installation()
        if installation is None:
            return None, None, False
        if self._channel.owes:
            late = self._channel.collect()
            if late is True:
                self._answered()
            elif late is False:
                self._warn_once("no answer")
        if not self._breaker.allows():
            return None, None, False
        try:
            found = self._read(token, installation)
        except RedisError as error:
            self._failed(error)
            return None, None, False
        if self._warned or self._breaker.has_failed:
            self._answered()
        return found

    def _read(
        self, token: bytes, installation: _Installation
    ) -> tuple[Session | None, Lease | None, bool]:
        id_text = _id_text(token[:16])
        keys = [f"session:{id_text}", installation.epoch_key]
        value, epoch = cast("list[bytes | None]", self._channel.command("MGET", *keys))
        self._doubtful = epoch is None
        if epoch is None:
            return None, None, False
        if value is not None and (value[:1] != b"V" or value[1 : 1 + sealing.EPOCH_SIZE] == epoch):
            # A value to use, or a tombstone, a lease or another token's value: no lease over those.
            return self._open(token, id_text, epoch, value, installation.max_age), None, True
        nonce = secrets.token_hex(16)
        answer = self._acquire(keys=keys, args=[nonce])
        if not isinstance(answer, list) or len(answer) != 2:
            return None, None, True
        return None, Lease(nonce, installation.id, answer[0], int(answer[1])), True

    def _open(
        self, token: bytes, id_text: str, epoch: bytes, value: bytes, max_age: int
    ) -> Session | None:
        opened = sealing.unseal(self._key, token, epoch, value)
        if opened is None and len(token) > TOKEN_SIZE:
            # Of a session that is bound to no device, whose browser still has an older proof.
            token = token[:TOKEN_SIZE]
            opened = sealing.unseal(self._key, token, epoch, value)
        if opened is None or not sealing.usable(opened, time.time_ns() // 1000, max_age):
            return None
        try:
            row = parse(opened.row.decode())
            session = session_of(row, cached=True)
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if session.device_bound and len(token) == TOKEN_SIZE:
            # No reader has filled that.
            return None
        return session if row["session_id"] == id_text else None

    def fill(self, token: bytes, lease: Lease, row: JSON, text: str) -> None:
        """Store a row that PostgreSQL said may be kept, as the text that PostgreSQL sent.

        For those alone who have the proof with which it was read, until that expires, if the
        session is bound to a device.
        """
        installation = self.installation()
        if installation is None:
            return
        if row["cache_installation"] != lease.installation:
            # Of another server, which cannot end this epoch when it revokes the session.
            self._ask_soon()
            return
        cached_at = row["read_at"]
        not_after = min(
            row["expires_at"], row["absolute_expires_at"], cached_at + installation.max_age
        )
        if row.get("device_proved_at") is None:
            token = token[:TOKEN_SIZE]
        else:
            proof_until = proof_expiry(token)
            if proof_until is None:
                return
            not_after = min(not_after, proof_until)
        milliseconds = (not_after - cached_at) // 1000
        if milliseconds <= 0:
            return
        value = sealing.seal(
            self._key,
            token,
            lease.epoch,
            sealing.Opened(cached_at, not_after, text.encode()),
        )
        try:
            self._fill(
                keys=[f"session:{row['session_id']}"],
                args=[lease.nonce, value, lease.time + milliseconds],
            )
        except RedisError as error:
            self._failed(error)
        else:
            self._answered()

    def _answered(self) -> None:
        self._breaker.succeeded()
        self._warned = False

    def _warn_once(self, problem: object) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("Redis does not answer; sessions are read from PostgreSQL: %s", problem)

    def _failed(self, error: RedisError) -> None:
        """A miss; and one step towards an open breaker, unless Redis answered in order."""
        if isinstance(error, LateError):
            # Until the answer comes, which may be soon, or is given up.
            self._breaker.open()
            return
        if isinstance(error, ResponseError) and not isinstance(error, ReadOnlyError):
            # A right that is missing does not come by itself, but every read would tell.
            now = time.monotonic()
            if self._warned_at is None or now - self._warned_at >= WARNING_SECONDS:
                self._warned_at = now
                logger.warning(
                    "Redis refuses the command; sessions are read from PostgreSQL: %s", error
                )
            return
        self._breaker.failed()
        if self._breaker.is_open:
            self._warn_once(error)


def _fetch_installation() -> _Installation | None:
    rows = call(
        f"SELECT mode, installation, max_age FROM {function('session_cache_settings')}()",
        savepoint=True,
        idempotent=True,
    )
    if not rows or rows[0]["mode"] == "off" or rows[0]["installation"] is None:
        return None
    return _Installation(
        str(rows[0]["installation"]), rows[0]["max_age"] // timedelta(microseconds=1)
    )


#: By the aliases of the databases: what each was made of, and it.
_caches: dict[str, tuple[Any, SessionCache]] = {}
_caches_lock = threading.Lock()


def _url(alias: str) -> str | None:
    """Of the Redis that a database's worker tells of revocations, and no other."""
    given = settings.REDIS_URL
    return given.get(alias) if isinstance(given, Mapping) else given


def session_cache(bucket: Bucket = None) -> SessionCache | None:
    """The cache of the database that has a bucket, or None without REDIS_URL."""
    if settings.REDIS_URL is None or settings.stand_in is not None:
        return None
    alias = home_of(bucket)
    url = _url(alias)
    if url is None:
        return None
    wanted = (
        alias,
        url,
        settings.REDIS_DB,
        settings.cache_key,
        settings.REDIS_TIMEOUT,
        settings.BREAKER_FAILURES,
        settings.BREAKER_SECONDS,
    )
    known = _caches.get(alias)
    if known is None or known[0] != wanted:
        with _caches_lock:
            known = _caches.get(alias)
            if known is None or known[0] != wanted:
                breaker = Breaker(settings.BREAKER_FAILURES, settings.BREAKER_SECONDS)
                known = _caches[alias] = (wanted, SessionCache(*wanted[:5], breaker))
    return known[1]


def redis_problem(alias: str) -> str | None:
    """Why the Redis of a database is not used, or None; for the system check.

    Asked over a connection of its own that waits longer than a request may: the check says whether
    Redis can be used, and not whether it, or this machine, is busy at the moment.
    """
    url = _url(alias)
    if url is None:
        return None
    timeout = max(settings.REDIS_TIMEOUT, CHECK_TIMEOUT)
    breaker = Breaker(settings.BREAKER_FAILURES, settings.BREAKER_SECONDS)
    cache = SessionCache(alias, url, settings.REDIS_DB, settings.cache_key, timeout, breaker)
    try:
        return cache.problem()
    except RedisError as error:
        return str(error)
