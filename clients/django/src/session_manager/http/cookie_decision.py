"""What a request makes of the browser's cookie: what has been committed, and nothing else.

A session that a transaction makes or ends is made or ended once that commits.  So each decision
about the cookie waits for the commit, and a rollback, of a savepoint too, takes it back.  The
response gets the last decision that holds; a 503 gets none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol

from django.http import HttpRequest, HttpResponseBase

from ..conf import settings
from ..store.transactions import Outcome
from .bearer import keeps_token
from .cookies import clear_cookie, give_token, set_cookie

_ATTRIBUTE = "_session_manager_cookie_decisions"
# On a response: that its cookie is what has been decided, and not the view's own.
_WRITTEN = "_session_manager_cookie_written"


class Issued(Protocol):
    """A session whose token the browser is to be given."""

    @property
    def token(self) -> str | None: ...

    @property
    def absolute_expires_at(self) -> datetime | None: ...


@dataclass
class _Decision:
    """What will be written."""

    write: Callable[[HttpResponseBase], None]
    outcome: Outcome = field(default_factory=Outcome)


def _give(issued: Issued, response: HttpResponseBase) -> None:
    if issued.token is not None and issued.absolute_expires_at is not None:
        set_cookie(response, issued.token, issued.absolute_expires_at)


def _decided(request: HttpRequest, write: Callable[[HttpResponseBase], None]) -> Outcome:
    decision = _Decision(write)
    request.__dict__.setdefault(_ATTRIBUTE, []).append(decision)
    return decision.outcome


def set_cookie_on_commit(request: HttpRequest, issued: Issued) -> Outcome:
    """Let the cookie hold a session's token, if the transaction commits."""
    return _decided(request, partial(_give, issued))


def set_token_on_commit(request: HttpRequest, token: str, max_age: int | None) -> Outcome:
    """Let the cookie hold a token for some seconds, or (None) until the browser is closed."""
    return _decided(request, partial(give_token, token=token, max_age=max_age))


def clear_cookie_on_commit(request: HttpRequest) -> Outcome:
    """Let the cookie be cleared, if the transaction commits: by who signs out alone.

    That a session was found to have ended is about the cookie that the request came with: when the
    answer arrives, the browser may hold a newer one.
    """
    return _decided(request, clear_cookie)


def write_cookie(request: HttpRequest, response: HttpResponseBase) -> None:
    """Write what has been decided since the last time; a view's own cookie goes before it."""
    decisions: list[_Decision] = request.__dict__.pop(_ATTRIBUTE, [])
    own = settings.cookie_name in response.cookies and _WRITTEN not in response.__dict__
    if response.status_code == 503 or own or (decisions and keeps_token(request)):
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
        response.__dict__[_WRITTEN] = True
