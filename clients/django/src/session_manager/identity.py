"""Row-level security: the session's user and tenant as the identity of a transaction.

    with session_identity(request):
        Invoice.objects.all()    # policies see session_user_id() and session_tenant_id()

The identity is kept in the server's memory until the transaction ends, so it is safe behind a pool
in transaction mode, and no SQL can set it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

from django.db import connections, transaction
from django.http import HttpRequest
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from .api.refusals import session_ended
from .conf import settings
from .exceptions import SessionEnded
from .http.lookup import current_token, django_request, look_up
from .services import session_service
from .store.database import call, function, translating_errors
from .store.transactions import in_block
from .types import LiveSession

_BOUND = "_session_manager_bound"


class _Ticket(NamedTuple):
    """How to bind a session, and what to raise if it is not live."""

    bind: Callable[[], bool]
    refusal: Callable[[], Exception]


def _ticket(whose: HttpRequest | Request | LiveSession | str) -> _Ticket:
    if isinstance(whose, LiveSession):
        return _Ticket(
            partial(session_service.bind_id, whose.id, whose.user_id),
            partial(SessionEnded, "the session has ended"),
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
        return _Ticket(lambda: False, NotAuthenticated)
    return _Ticket(partial(session_service.bind, token), partial(session_ended, token))


@contextmanager
def session_identity(request: HttpRequest | Request | LiveSession | str) -> Iterator[None]:
    """Bind a session for the length of a transaction: a request's, a token's or by its id.

    Opens a transaction unless one is open (ATOMIC_REQUESTS): then a savepoint, and at the end of
    the block the identity is again the one of before.  NotAuthenticated, a 401, without a live
    session, SessionEnded for one by its id: the block never runs without an identity.
    """
    ticket = _ticket(request)
    connection = connections[settings.DATABASE]
    nested = in_block(connection)
    bound: list[_Ticket] = connection.__dict__.setdefault(_BOUND, [])
    with ExitStack() as stack:
        with translating_errors():
            stack.enter_context(transaction.atomic(using=settings.DATABASE))
        if not ticket.bind():
            raise ticket.refusal()
        bound.append(ticket)
        try:
            yield
        finally:
            bound.pop()
        if nested:
            # Releasing a savepoint keeps the identity; rolling back to it does not.
            if bound:
                bound[-1].bind()
            else:
                session_service.bind(None)


def bound_user_id() -> str | None:
    """The user id bound to the current transaction, or None."""
    value = call(f"SELECT {function('session_user_id')}() AS id")[0]["id"]
    return None if value is None else str(value)


def bound_tenant_id() -> str | None:
    """The tenant id bound to the current transaction, or None."""
    value = call(f"SELECT {function('session_tenant_id')}() AS id")[0]["id"]
    return None if value is None else str(value)
