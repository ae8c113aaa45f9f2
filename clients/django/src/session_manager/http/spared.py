"""The session in which its user's password changes: it stays only if the view asks for it.

At the time of the change nobody knows yet whether the view will.  So the session is spared at
first; when the response is finished it ends, unless it has the mark of the new password by then.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from ..exceptions import SessionError
from ..services import session_service
from ..store.shards import bucket_of_user
from ..store.transactions import Outcome
from .addresses import client_ip, user_agent
from .cookies import proved
from .lookup import current_token, known_lookup
from .request_session import request_session

logger = logging.getLogger("session_manager")

_ATTRIBUTE = "_session_manager_spared"


@dataclass
class Spared:
    """A session, and the mark that it had before the change."""

    token: str
    session_id: uuid.UUID
    user_id: str
    mark: str | None
    reason: str
    #: Of the transaction that ends the others; None until it does.
    outcome: Outcome | None = None
    #: Once the response is finished.
    request: HttpRequest | None = None


def spare(request: HttpRequest, user_id: str, reason: str) -> Spared | None:
    """Spare the request's session for now, if it is the user's own: nobody acts as the user."""
    token = current_token(request)
    if token is None:
        return None
    lookup = known_lookup(request)
    row = lookup.row if lookup is not None else None
    if row is None:
        ip, agent = client_ip(request), user_agent(request)
        row = session_service.get(token, ip=ip, user_agent=agent, touch=False, fresh=True)
    if row is None or row.user_id != user_id or row.actor is not None:
        return None
    spared = Spared(token, row.id, user_id, row.mark, reason)
    request.__dict__.setdefault(_ATTRIBUTE, []).append(spared)
    return spared


def has_spared(request: HttpRequest) -> bool:
    return _ATTRIBUTE in request.__dict__


def end_spared(request: HttpRequest) -> None:
    """End what the view has not asked to keep, once the change of the password is committed."""
    for spared in request.__dict__.pop(_ATTRIBUTE, ()):
        spared.request = request
        _settle(spared)


def others_ended(spared: Spared) -> None:
    """The others have been ended, in the transaction that is open now, if any."""
    spared.outcome = Outcome(bucket_of_user(spared.user_id))
    _settle(spared)


def _settle(spared: Spared) -> None:
    """End the session once the response is finished and the others' end is committed.

    Either may come first: the middleware may be inside of a transaction.
    """
    request, outcome = spared.request, spared.outcome
    if request is None or outcome is None or outcome.rolled_back:
        return
    if outcome.committed:
        _end(request, spared)
    else:
        outcome.then(partial(_end, request, spared))


@asynccontextmanager
async def ending_spared(request: HttpRequest) -> AsyncIterator[None]:
    """End what the response's end would have ended, also if there is none.

    As where the client does not wait for it.  A view in a thread goes on after that, and may change
    the password only then: this waits until the thread has done with it.
    """
    try:
        yield
    except BaseException:
        await asyncio.shield(sync_to_async(end_spared)(request))
        raise


def _end(request: HttpRequest, spared: Spared) -> None:
    """What has been committed stays so, whether or not the session can be reached."""
    try:
        if not _is_kept(request, spared):
            session_service.invalidate_id(spared.session_id, spared.user_id, spared.reason)
    except SessionError:
        logger.exception(
            "A session of the user %r could not be ended. Run: manage.py check_session_users",
            spared.user_id,
        )


def _is_kept(request: HttpRequest, spared: Spared) -> bool:
    """Whether the session has got another mark."""
    store = request_session(request)
    token = store.session_key if store is not None else None
    ip, agent = client_ip(request), user_agent(request)
    token = proved(request, token) if token else current_token(request)
    row = session_service.get(token, ip=ip, user_agent=agent, touch=False, fresh=True)
    return row is not None and row.id == spared.session_id and row.mark != spared.mark
