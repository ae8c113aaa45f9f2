"""What a request makes of the browser's cookies: what has been committed, and nothing else.

A session that a transaction makes or ends is made or ended once that commits.  So each decision
about a cookie waits for the commit, and a rollback, of a savepoint too, takes it back.  The
response gets the last decision that holds for each of the two cookies: the session's, and that
which keeps the session of who acts as somebody else.  A 503 gets none.

A client that keeps its token itself gets no cookie: the header Session-Token has what would be in
the session's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

from django.http import HttpRequest, HttpResponseBase

from ..conf import settings
from ..store.shards import bucket_of_token
from ..store.transactions import Outcome
from .bearer import RESPONSE_HEADER, keeps_token, token_of_header
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
    outcome: Outcome
    #: What the cookie will hold; None: it is cleared.
    token: str | None = None

    def tell(self, response: HttpResponseBase) -> None:
        """Write it for a client without cookies."""
        forbid_caching(response)
        if self.token is not None:
            response[RESPONSE_HEADER] = self.token
        elif response.has_header(RESPONSE_HEADER):
            del response[RESPONSE_HEADER]


def _give(name: str, issued: Issued, persistent: bool, response: HttpResponseBase) -> None:
    if issued.token is not None and issued.absolute_expires_at is not None:
        expires_at = issued.absolute_expires_at
        set_cookie(response, issued.token, expires_at, persistent=persistent, name=name)


def _decided(
    request: HttpRequest,
    name: str,
    write: Callable[[HttpResponseBase], None],
    changed: str | None,
    token: str | None = None,
) -> Outcome:
    """Decide once the transaction commits which changes the session of a token."""
    decision = _Decision(name, write, Outcome(bucket_of_token(changed)), token)
    request.__dict__.setdefault(_ATTRIBUTE, []).append(decision)
    return decision.outcome


def set_cookie_on_commit(request: HttpRequest, issued: Issued, *, persistent: bool) -> Outcome:
    """Let the cookie hold a session's token, if the transaction commits."""
    name = settings.cookie_name
    give = partial(_give, name, issued, persistent)
    return _decided(request, name, give, issued.token, issued.token)


def set_token_on_commit(request: HttpRequest, token: str, max_age: int | None) -> Outcome:
    """Let the cookie hold a token for some seconds, or (None) until the browser is closed."""
    name = settings.cookie_name
    give = partial(give_token, token=token, max_age=max_age)
    return _decided(request, name, give, token, token)


def clear_cookie_on_commit(request: HttpRequest, ended: str | None) -> Outcome:
    """Let the cookie be cleared, if the transaction commits: by who signs out alone.

    ended: the token of the session that has been ended.

    That a session was found to have ended is about the cookie that the request came with: when the
    answer arrives, the browser may hold a newer one.
    """
    return _decided(request, settings.cookie_name, clear_cookie, ended)


def keep_actor_on_commit(request: HttpRequest, issued: Issued, *, persistent: bool) -> None:
    """Let the browser keep the session of who acts as somebody else from now on."""
    name = settings.actor_cookie_name
    # The session in which they act is on the same shard.
    _decided(request, name, partial(_give, name, issued, persistent), issued.token)


def forget_actor_on_commit(request: HttpRequest, ended: str | None) -> None:
    """Let the browser forget it, once the session of a token is ended."""
    name = settings.actor_cookie_name
    _decided(request, name, partial(clear_cookie, name=name), ended)


def write_cookie(request: HttpRequest, response: HttpResponseBase) -> None:
    """Write what has been decided since the last time; a view's own cookie goes before it."""
    decisions: list[_Decision] | None = request.__dict__.pop(_ATTRIBUTE, None)
    if not decisions or response.status_code == 503:
        return
    written: set[str] = response.__dict__.setdefault(_WRITTEN, set())
    without_cookies = keeps_token(request)
    if without_cookies:
        # The body may have the token.
        forbid_caching(response)
        decisions = [decision for decision in decisions if decision.name == settings.cookie_name]
    # The header's token must not become a page's cookie.
    spared = None
    if not without_cookies and token_of_header(request) is not None:
        spared = settings.cookie_name
    last: dict[str, Callable[[HttpResponseBase], None]] = {}
    for decision in decisions:
        if decision.name == spared:
            continue
        if decision.name in response.cookies and decision.name not in written:
            continue
        write = decision.tell if without_cookies else decision.write
        if decision.outcome.committed:
            last[decision.name] = write
        else:
            # The response is finished before the transaction around the whole request.
            decision.outcome.then(partial(write, response))
    for name, write in last.items():
        write(response)
        written.add(name)


def written_token(response: HttpResponseBase) -> str | None:
    """The token that the response gives the client so far."""
    cookie = response.cookies.get(settings.cookie_name)
    if cookie is not None:
        return cookie.value
    return response.get(RESPONSE_HEADER) if settings.BEARER else None
