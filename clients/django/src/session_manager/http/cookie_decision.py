"""What a request makes of the browser's cookie: what has been committed, and nothing else.

A session that a transaction makes or ends is made or ended once that commits.  So each decision
about the cookie waits in Django's list of hooks for the commit, from which a rollback, of a
savepoint too, takes it out again.  The response gets the last decision that holds; a 503 gets none.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from django.db import connections
from django.http import HttpRequest, HttpResponseBase

from ..conf import settings
from ..store.database import database_alias, when_committed
from .cookies import clear_cookie, set_cookie

_ATTRIBUTE = "_session_manager_outcomes"


class Issued(Protocol):
    """A session whose token the browser is to be given."""

    @property
    def token(self) -> str | None: ...

    @property
    def absolute_expires_at(self) -> datetime | None: ...


class Outcome:
    """One decision: the cookie is to hold a token, or (None) to be cleared."""

    def __init__(self, issued: Issued | None) -> None:
        self.issued = issued
        self._connection = connections[database_alias()]
        self._committed = False
        #: A response that was finished before the transaction was.
        self._response: HttpResponseBase | None = None
        when_committed(self)
        self._go_first()

    def __call__(self) -> None:
        """Django's hook: the transaction has committed."""
        self._committed = True
        if self._response is not None:
            self.write(self._response)

    def _go_first(self) -> None:
        """Let the hook run before those of others: they may look at the session, or raise.

        A hook that raises makes Django drop those that come after it, though the transaction has
        committed.  In a TestCase nothing commits, and captureOnCommitCallbacks counts the hooks.
        """
        hooks = self._connection.run_on_commit
        blocks = self._connection.atomic_blocks
        if self._committed or any(getattr(block, "_from_testcase", False) for block in blocks):
            return
        ours = sum(isinstance(hook[1], Outcome) for hook in hooks[:-1])
        hooks.insert(ours, hooks.pop())

    @property
    def _pending(self) -> bool:
        return any(hook[1] is self for hook in self._connection.run_on_commit)

    @property
    def undone(self) -> bool:
        """Whether the transaction, or the savepoint, has rolled back."""
        return not self._committed and not self._pending

    @property
    def holds(self) -> bool:
        """Whether it has committed; in a TestCase, which never does, whether it would have."""
        blocks = self._connection.atomic_blocks
        return self._committed or (
            self._pending
            and bool(blocks)
            and all(getattr(block, "_from_testcase", False) for block in blocks)
        )

    def write(self, response: HttpResponseBase) -> None:
        if self.issued is None:
            clear_cookie(response)
        elif self.issued.token is not None and self.issued.absolute_expires_at is not None:
            set_cookie(response, self.issued.token, self.issued.absolute_expires_at)

    def wait(self, response: HttpResponseBase) -> None:
        """Write when the transaction around the whole request commits, if it does."""
        if self._pending:
            self._response = response


def watch() -> Outcome:
    """Leave the cookie alone, and tell whether the transaction has been rolled back."""
    return Outcome(None)


def decide(request: HttpRequest, issued: Issued | None) -> Outcome:
    """Let the cookie hold a session's token, or (None) be cleared, if the transaction commits.

    Cleared it is by who signs out alone.  That a session was found to have ended is about the
    cookie that the request came with: when the answer arrives, the browser may hold a newer one.
    """
    outcome = Outcome(issued)
    request.__dict__.setdefault(_ATTRIBUTE, []).append(outcome)
    return outcome


def write_cookie(request: HttpRequest, response: HttpResponseBase) -> None:
    """Write what has been decided, once; a cookie of the view's own goes before it."""
    outcomes: list[Outcome] = request.__dict__.pop(_ATTRIBUTE, [])
    if response.status_code == 503 or settings.cookie_name in response.cookies:
        return
    held = None
    for outcome in outcomes:
        if outcome.holds:
            held = outcome
        else:
            outcome.wait(response)
    if held is not None:
        held.write(response)
