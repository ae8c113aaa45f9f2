"""Row-level security: the session's user and tenant as the identity of a transaction.

    with session_identity(request):
        Invoice.objects.all()    # policies see session_user_id() and session_tenant_id()

The identity is kept in the server's memory until the transaction ends, so it is safe behind a pool
in transaction mode, and no SQL can set it.

Where the application's tables are in another database than the sessions, the transaction is that
one's (``using="default"``), and the sessions' database tells it whose session it is by a signed
assertion, which it has to trust: see session_trust.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.http import HttpRequest
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from .api.refusals import session_ended
from .conf import settings
from .exceptions import SessionEnded, StoreUnavailable
from .http.lookup import current_token, django_request, look_up
from .services import session_service
from .store import aliases
from .store.database import call, function, sqlstate, translating_errors
from .store.shards import bucket_of_id, bucket_of_token, home_of
from .store.transactions import in_block
from .types import LiveSession

_BOUND = "_session_manager_bound"
#: No such function, or schema; not allowed.
_LACKING = ("42883", "3F000", "42501")
#: Of databases that bind assertions, by their aliases.
_audiences: dict[str, str | None] = {}


class _Ticket(NamedTuple):
    """How to bind a session, and what to raise if it is not live."""

    bind: Callable[[], bool]
    #: What its database says of it to an audience.
    assertion: Callable[[str], str | None]
    refusal: Callable[[], Exception]
    #: The alias of its database.
    home: str

    def bind_in(self, alias: str) -> bool:
        """Bind it in the transaction of a database; if it is not live, nobody is bound."""
        if not aliases.same_database(alias, self.home):
            return self._bind_elsewhere(alias)
        with aliases.using(alias):
            return self.bind()

    def _bind_elsewhere(self, alias: str) -> bool:
        # The second time for a database that has been exchanged for another one.
        for audience in (_audiences.get(alias), None):
            with aliases.using(alias), _requirements_of(alias):
                audience = audience or session_service.audience()
            if audience is None:
                raise ImproperlyConfigured(
                    f"The database {alias!r} has no session key, without which it can trust "
                    "nobody. Call session_key_generate() and session_trust() there."
                )
            assertion = self.assertion(audience)
            if assertion is None:
                # Whoever was bound before is not to stay so.
                with aliases.using(alias):
                    session_service.bind(None)
                return False
            with aliases.using(alias), _requirements_of(alias):
                if session_service.bind_assertion(assertion):
                    _audiences[alias] = audience
                    return True
        raise ImproperlyConfigured(
            f"The database {alias!r} binds no session of {self.home!r}: it does not trust "
            "the keys of that database, or their clocks differ. Call session_trust() there with "
            "what session_assertion_keys() returns in the other one."
        )


@contextmanager
def _requirements_of(alias: str) -> Iterator[None]:
    """What a database lacks is no outage."""
    try:
        yield
    except StoreUnavailable as error:
        if error.__cause__ is None or sqlstate(error.__cause__) not in _LACKING:
            raise
        raise ImproperlyConfigured(
            f"The database {alias!r} does not have the extension session_manager, in the schema "
            "of SESSION_MANAGER['SCHEMA'], or its role may not call session_bind and "
            f"session_audience: {error.__cause__}"
        ) from error


def _ticket(whose: HttpRequest | Request | LiveSession | str) -> _Ticket:
    if isinstance(whose, LiveSession):
        session_id, user_id = whose.id, whose.user_id
        return _Ticket(
            lambda: session_service.bind_id(session_id, user_id),
            lambda audience: session_service.assertion_id(session_id, user_id, audience),
            lambda: SessionEnded("the session has ended"),
            home_of(bucket_of_id(session_id)),
        )
    token: str | None
    if isinstance(whose, str):
        token = whose
    else:
        token = current_token(django_request(whose))
        # Asked only where it can be known that the user is gone: then there is no session.
        knows_users = settings.USER_LOADER or settings.USER_ID_FIELD
        if knows_users and look_up(django_request(whose)).session is None:
            token = None
    if token is None:
        home = home_of(bucket_of_token(token))
        return _Ticket(lambda: False, lambda audience: None, NotAuthenticated, home)
    return _Ticket(
        lambda: session_service.bind(token),
        lambda audience: session_service.assertion(token, audience),
        lambda: session_ended(token),
        home_of(bucket_of_token(token)),
    )


@contextmanager
def session_identity(
    request: HttpRequest | Request | LiveSession | str, using: str | None = None
) -> Iterator[None]:
    """Bind a session for the length of a transaction: a request's, a token's or by its id.

    Opens a transaction unless one is open (ATOMIC_REQUESTS): then a savepoint, and at the end of
    the block the identity is again the one of before.  NotAuthenticated, a 401, without a live
    session, SessionEnded for one by its id: the block never runs without an identity.

    using: the alias of the database whose transaction it is, if not that of the sessions.
    ImproperlyConfigured if that database does not trust the sessions' one.
    """
    ticket = _ticket(request)
    alias = using or settings.DATABASE
    connection = connections[alias]
    nested = in_block(connection)
    bound: list[_Ticket] = connection.__dict__.setdefault(_BOUND, [])
    with ExitStack() as stack:
        with translating_errors():
            stack.enter_context(transaction.atomic(using=alias))
        if not ticket.bind_in(alias):
            raise ticket.refusal()
        bound.append(ticket)
        try:
            yield
        finally:
            bound.pop()
        if nested:
            # Releasing a savepoint keeps the identity; rolling back to it does not.
            if bound:
                bound[-1].bind_in(alias)
            else:
                with aliases.using(alias):
                    session_service.bind(None)


def bound_user_id(using: str | None = None) -> str | None:
    """The user id bound to the current transaction, or None."""
    return _bound("session_user_id", using)


def bound_tenant_id(using: str | None = None) -> str | None:
    """The tenant id bound to the current transaction, or None."""
    return _bound("session_tenant_id", using)


def _bound(name: str, using: str | None) -> str | None:
    with aliases.using(using or settings.DATABASE):
        value = call(f"SELECT {function(name)}() AS id")[0]["id"]
    return None if value is None else str(value)
