"""What a request makes of the browser's cookie: what has been committed, and nothing else.

A session that a transaction makes or ends is made or ended once that commits.  So each decision
about the cookie waits for the commit, and a rollback, of a savepoint too, takes it back.  The
response gets the last decision that holds; a 503 gets none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol

from django.http import HttpRequest, HttpResponseBase

from ..conf import settings
from ..store.transactions import Outcome
from .cookies import clear_cookie, set_cookie

_ATTRIBUTE = "_session_manager_cookie_decisions"


class Issued(Protocol):
    """A session whose token the browser is to be given."""

    @property
    def token(self) -> str | None: ...

    @property
    def absolute_expires_at(self) -> datetime | None: ...


@dataclass
class _Decision:
    """The cookie will hold a session's token, or (None) be cleared."""

    issued: Issued | None
    outcome: Outcome = field(default_factory=Outcome)

    def write(self, response: HttpResponseBase) -> None:
        if self.issued is None:
            clear_cookie(response)
        elif self.issued.token is not None and self.issued.absolute_expires_at is not None:
            set_cookie(response, self.issued.token, self.issued.absolute_expires_at)


def _decided(request: HttpRequest, issued: Issued | None) -> Outcome:
    decision = _Decision(issued)
    request.__dict__.setdefault(_ATTRIBUTE, []).append(decision)
    return decision.outcome


def set_cookie_on_commit(request: HttpRequest, issued: Issued) -> Outcome:
    """Let the cookie hold a session's token, if the transaction commits."""
    return _decided(request, issued)


def clear_cookie_on_commit(request: HttpRequest) -> Outcome:
    """Let the cookie be cleared, if the transaction commits: by who signs out alone.

    That a session was found to have ended is about the cookie that the request came with: when the
    answer arrives, the browser may hold a newer one.
    """
    return _decided(request, None)


def write_cookie(request: HttpRequest, response: HttpResponseBase) -> None:
    """Write what has been decided, once; a cookie of the view's own goes before it."""
    decisions: list[_Decision] = request.__dict__.pop(_ATTRIBUTE, [])
    if response.status_code == 503 or settings.cookie_name in response.cookies:
        return
    last = None
    for decision in decisions:
        if decision.outcome.committed:
            last = decision
        else:
            # The response is finished before the transaction around the whole request.
            decision.outcome.then(partial(decision.write, response))
    if last is not None:
        last.write(response)
