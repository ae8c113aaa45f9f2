"""Work beside requests for a session: tasks in a queue, and scripts.

    export.delay(report.pk, **reference(request.session_info))

    @shared_task(throws=(SessionEnded,))
    @for_session
    def export(acting, report_id):
        for row in rows(report_id, acting.session.tenant_id):
            acting.check()
            ...

Such work knows the session's id and user, and never its token, which a broker must not see.  It
stops when the session has ended.  No use of the session is noted: it does not keep it alive.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

from .conf import settings
from .exceptions import SessionEnded
from .http.rights import may_go_on
from .services import session_service
from .store.users import is_guest, load_user
from .types import LiveSession, Session

__all__ = ["Acting", "Reference", "SessionEnded", "acting_for", "for_session", "reference"]


class Reference(TypedDict):
    """A session in a message: JSON, and nothing that opens it."""

    session_id: str
    user_id: str


def reference(session: Session | LiveSession) -> Reference:
    """What a task is given of a session, as keyword arguments."""
    return {"session_id": str(session.id), "user_id": session.user_id}


def may_still_act(actor_id: str | None, user: Any) -> bool:
    """Whether who acts as a user, if anybody does, is still a user who may."""
    if actor_id is None:
        return True
    actor = load_user(actor_id)
    return actor is not None and may_go_on(actor, user)


class Acting:
    """The session that work is for: ``session`` as it was found last, and its ``user``."""

    def __init__(self, session_id: uuid.UUID | str, user_id: str) -> None:
        self._key = (str(session_id), user_id)
        self.check()

    @functools.cached_property
    def user(self) -> Any:
        """The user, as in requests; None of a guest's session."""
        return load_user(self.session.user_id)

    def check(self) -> None:
        """Raise SessionEnded if the session has ended or its user is gone, during long work.

        One query, and one for the user if the settings tell who that is.
        """
        found = session_service.get_id(*self._key)
        if found is None:
            raise SessionEnded("the session has ended")
        self.session: LiveSession = found
        self.__dict__.pop("user", None)
        knows_users = settings.USER_LOADER or settings.USER_ID_FIELD
        if knows_users and not is_guest(found.user_id) and self.user is None:
            raise SessionEnded("the session's user is gone")
        if not may_still_act(found.actor_id, self.user):
            raise SessionEnded("who acted as the user may not any more")

    def still_live(self) -> bool:
        """The same as a question."""
        try:
            self.check()
        except SessionEnded:
            return False
        return True


@contextmanager
def acting_for(session_id: uuid.UUID | str, user_id: str) -> Iterator[Acting]:
    """Act for a user's session, by its id.

    SessionEnded if it is not live, is another user's, or its user is gone.  For row-level security:
    ``session_identity(acting.session)``.
    """
    yield Acting(session_id, user_id)


def for_session(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a task: it takes what ``reference`` gives, and hands on an Acting first."""

    @functools.wraps(function)
    def wrapper(*args: Any, session_id: str, user_id: str, **kwargs: Any) -> Any:
        with acting_for(session_id, user_id) as acting:
            return function(acting, *args, **kwargs)

    # Celery derives from it what a task takes.
    del wrapper.__wrapped__
    return wrapper
