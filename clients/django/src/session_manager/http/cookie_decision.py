"""What a request makes of the browser's cookies: what has been committed, and nothing else.

A session that a transaction makes or ends is made or ended once that commits.  So each decision
about a cookie waits for the commit, and a rollback, of a savepoint too, takes it back.  The
response gets the last decision that holds for each of the two cookies: the session's, and that
which keeps the session of who acts as somebody else.  A 503 gets none.
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
from .bearer import keeps_token, token_of_header
from .cache_control import forbid_caching
from .cookies import clear_cookie, give_token, set_cookie

_ATTRIBUTE = "_session_manager_cookie_decisions"
# On a response: the cookies that are what has been decided, and not the view's own.
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

    name: str
    write: Callable[[HttpResponseBase], None]
    outcome: Outcome = field(default_factory=Outcome)


def _give(name: str, issued: Issued, persistent: bool, response: HttpResponseBase) -> None:
    if issued.token is not None and issued.absolute_expires_at is not None:
        expires_at = issued.absolute_expires_at
        set_cookie(response, issued.token, expires_at, persistent=persistent, name=name)


def _decided(request: HttpRequest, name: str, write: Callable[[HttpResponseBase], None]) -> Outcome:
    decision = _Decision(name, write)
    request.__dict__.setdefault(_ATTRIBUTE, []).append(decision)
    return decision.outcome


def set_cookie_on_commit(request: HttpRequest, issued: Issued, *, persistent: bool) -> Outcome:
    """Let the cookie hold a session's token, if the transaction commits."""
    name = settings.cookie_name
    return _decided(request, name, partial(_give, name, issued, persistent))


def set_token_on_commit(request: HttpRequest, token: str, max_age: int | None) -> Outcome:
    """Let the cookie hold a token for some seconds, or (None) until the browser is closed."""
    name = settings.cookie_name
    return _decided(request, name, partial(give_token, token=token, max_age=max_age))


def clear_cookie_on_commit(request: HttpRequest) -> Outcome:
    """Let the cookie be cleared, if the transaction commits: by who signs out alone.

    That a session was found to have ended is about the cookie that the request came with: when the
    answer arrives, the browser may hold a newer one.
    """
    return _decided(request, settings.cookie_name, clear_cookie)


def keep_actor_on_commit(request: HttpRequest, issued: Issued, *, persistent: bool) -> None:
    """Let the browser keep the session of who acts as somebody else from now on."""
    name = settings.actor_cookie_name
    _decided(request, name, partial(_give, name, issued, persistent))


def forget_actor_on_commit(request: HttpRequest) -> None:
    name = settings.actor_cookie_name
    _decided(request, name, partial(clear_cookie, name=name))


def write_cookie(request: HttpRequest, response: HttpResponseBase) -> None:
    """Write what has been decided since the last time; a view's own cookie goes before it."""
    decisions: list[_Decision] = request.__dict__.pop(_ATTRIBUTE, [])
    written: set[str] = response.__dict__.setdefault(_WRITTEN, set())
    if response.status_code == 503:
        return
    if decisions and keeps_token(request):
        # The body may have the token.
        forbid_caching(response)
        return
    # The header's token must not become a page's cookie.
    spared = settings.cookie_name if token_of_header(request) is not None else None
    last: dict[str, _Decision] = {}
    for decision in decisions:
        if decision.name == spared:
            continue
        if decision.name in response.cookies and decision.name not in written:
            continue
        if decision.outcome.committed:
            last[decision.name] = decision
        else:
            # The response is finished before the transaction around the whole request.
            decision.outcome.then(partial(decision.write, response))
    for name, decision in last.items():
        decision.write(response)
        written.add(name)
