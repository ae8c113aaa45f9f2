"""What a request makes of the browser's cookies: what has been committed, and nothing else.

A session that a transaction makes or ends is made or ended once that commits.  So each decision
about a cookie waits for the commit, and a rollback, of a savepoint too, takes it back.  The
response gets the last decision that holds for each of the cookies: the session's, that which keeps
the session of who acts as somebody else, and the proof of the browser's device.  What a browser is
told about its device in headers is decided in the same way.  A 503 gets none.

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
from .cookies import clear_cookie, give_token, set_cookie, set_proof

_ATTRIBUTE = "_session_manager_cookie_decisions"
#: Of a response: asks the browser to bind the session to its device.
REGISTRATION_HEADER = "Secure-Session-Registration"
#: Of a response: what the device is to sign next.
CHALLENGE_HEADER = "Secure-Session-Challenge"
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
    """What will be written, under the name of a cookie or a header."""

    name: str
    write: Callable[[HttpResponseBase], None]
    #: None: whatever becomes of the transaction.
    outcome: Outcome | None
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
    outcome = Outcome(bucket_of_token(changed))
    _keep(request, _Decision(name, write, outcome, token))
    return outcome


def _keep(request: HttpRequest, decision: _Decision) -> None:
    request.__dict__.setdefault(_ATTRIBUTE, []).append(decision)


def _head(name: str, value: str, response: HttpResponseBase) -> None:
    response[name] = value
    forbid_caching(response)


def _behead(name: str, response: HttpResponseBase) -> None:
    if response.has_header(name):
        del response[name]


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

    The proof of the browser's device goes with it, and there is nothing to bind any more.
    """
    outcome = _decided(request, settings.cookie_name, clear_cookie, ended)
    proof = settings.device_cookie_name
    if proof in request.COOKIES:
        _decided(request, proof, partial(clear_cookie, name=proof), ended)
    decisions: list[_Decision] = request.__dict__[_ATTRIBUTE]
    if any(decision.name == REGISTRATION_HEADER for decision in decisions):
        _decided(request, REGISTRATION_HEADER, partial(_behead, REGISTRATION_HEADER), ended)
    return outcome


def set_proof_on_commit(request: HttpRequest, token: str, proof: str, expires_at: datetime) -> None:
    """Let the browser have a proof for the session of a token, if the transaction commits."""
    give = partial(set_proof, proof=proof, expires_at=expires_at)
    _decided(request, settings.device_cookie_name, give, token)


def clear_proof(request: HttpRequest) -> None:
    """Let the browser have no proof any more, so that it needs a new one for its next request."""
    name = settings.device_cookie_name
    _keep(request, _Decision(name, partial(clear_cookie, name=name), None))


def head_on_commit(request: HttpRequest, name: str, value: str, token: str) -> None:
    """Tell the browser something of its session in a header, if the transaction commits."""
    _decided(request, name, partial(_head, name, value), token)


def head(request: HttpRequest, name: str, value: str) -> None:
    """The same whatever becomes of the transaction."""
    _keep(request, _Decision(name, partial(_head, name, value), None))


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
        if decision.outcome is None or decision.outcome.committed:
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
