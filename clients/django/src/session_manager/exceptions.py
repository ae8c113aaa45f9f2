"""What the service raises.

Errors are told apart by what the caller may conclude.  "No such session" is never an exception: it
is None, a verdict.  StoreUnavailable is no verdict at all, so the cookie is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .types import ListedSession


class SessionError(Exception):
    """Base of what the service raises."""


class StoreUnavailable(SessionError):
    """PostgreSQL, or a key that it needs, is not there.  Nothing is known about the session."""


class WrongShard(StoreUnavailable):
    """The server does not have the bucket, and the map of shards says so still (SQLSTATE SM005).

    Nothing has been changed.
    """


class ShardUnknown(LookupError):
    """The program does not say which of several databases is to answer: a mistake in it."""


class ShardsUnreachable(StoreUnavailable):
    """Some shards have not done what concerns all of them; the others have.

    Call it again for the rest: what has been revoked stays so.
    """

    #: What the others have answered, and why the rest have not, by their aliases.
    results: Mapping[str, Any]
    failed: Mapping[str, SessionError]

    def __init__(self, results: Mapping[str, Any], failed: Mapping[str, SessionError]) -> None:
        self.results = results
        self.failed = failed
        problems = "; ".join(f"{alias}: {error}" for alias, error in failed.items())
        done = f"Done on {', '.join(results)}." if results else "Done nowhere."
        super().__init__(f"not done on {', '.join(failed)} ({problems}). {done}")


class DataCorrupt(SessionError):
    """Sealed data is not what was sealed (SQLSTATE SM004)."""


class VersionConflict(SessionError):
    """The data was changed concurrently (SQLSTATE SM001)."""


class LimitReached(SessionError):
    """The user has reached the limit of sessions, and on_limit is deny (SQLSTATE SM002)."""

    #: The user's sessions, newest first, of which one would have to end.
    sessions: Sequence[ListedSession] = ()


class SessionEnded(SessionError):
    """The session that work beside requests was for has ended."""


class TooLarge(SessionError):
    """Data, patch or auth beyond session_manager.max_data_size (SQLSTATE 54000)."""


class InvalidArgument(SessionError, ValueError):
    """An argument that the extension refuses; the message is the extension's."""
