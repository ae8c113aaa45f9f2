"""Row-level security: the session's user and tenant as the identity of a transaction.

    with session_identity(request):
        Invoice.objects.all()    # policies see session_user_id() and session_tenant_id()

The identity is kept in the server's memory until the transaction ends, so it is safe behind a pool
in transaction mode, and no SQL can set it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from django.db import connections, transaction
from django.http import HttpRequest
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from .api.refusals import session_ended
from .conf import settings
from .http.lookup import current_token, django_request, look_up
from .services import session_service
from .store.database import call, function, translating_errors
from .store.transactions import in_block

_BOUND = "_session_manager_bound"


@contextmanager
def session_identity(request: HttpRequest | Request | str) -> Iterator[None]:
    """Bind a request's session, or a token's, for the length of a transaction.

    Opens a transaction unless one is open (ATOMIC_REQUESTS): then a savepoint, and at the end of
    the block the identity is again the one of before.  NotAuthenticated, a 401, without a live
    session: the block never runs without an identity.
    """
    if isinstance(request, str):
        token: str | None = request
    else:
        token = current_token(django_request(request))
        # Asked only where it can be known that the user is gone: then there is no session.
        knows_users = settings.USER_LOADER or settings.USER_ID_FIELD
        if knows_users and look_up(django_request(request)).session is None:
            token = None
    connection = connections[settings.DATABASE]
    nested = in_block(connection)
    bound: list[str] = connection.__dict__.setdefault(_BOUND, [])
    with ExitStack() as stack:
        with translating_errors():
            stack.enter_context(transaction.atomic(using=settings.DATABASE))
        if token is None:
            raise NotAuthenticated
        if not session_service.bind(token):
            raise session_ended(token)
        bound.append(token)
        try:
            yield
        finally:
            bound.pop()
        if nested:
            # Releasing a savepoint keeps the identity; rolling back to it does not.
            session_service.bind(bound[-1] if bound else None)


def bound_user_id() -> str | None:
    """The user id bound to the current transaction, or None."""
    value = call(f"SELECT {function('session_user_id')}() AS id")[0]["id"]
    return None if value is None else str(value)


def bound_tenant_id() -> str | None:
    """The tenant id bound to the current transaction, or None."""
    value = call(f"SELECT {function('session_tenant_id')}() AS id")[0]["id"]
    return None if value is None else str(value)
