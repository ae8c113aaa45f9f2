"""What the service raises.

Errors are told apart by what the caller may conclude.  "No such session" is never an exception: it
is None, a verdict.  StoreUnavailable is no verdict at all, so the cookie is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from .types import ListedSession


class SessionError(Exception):
    """Base of what the service raises."""


class StoreUnavailable(SessionError):
    """PostgreSQL, or a key that it needs, is not there.  Nothing is known about the session."""


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
