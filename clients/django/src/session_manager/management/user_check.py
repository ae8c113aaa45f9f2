"""Which sessions no longer belong to a user who may use them, in batches of users."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import router

from ..conf import settings
from ..store.database import call, function
from ..store.users import BY_KEY, fits, load_user, value_of
from ..types import MARK
from ..user_changes import DEACTIVATED, DELETED, PASSWORD_CHANGED

#: Sessions of one user that are looked at; as many as session_list returns.
MAX_SESSIONS = 10000


class Finding(NamedTuple):
    user_id: str
    reason: str
    #: None: all of the user's.
    session_id: uuid.UUID | None = None


def find_orphans(user_ids: Sequence[str]) -> Iterator[Finding]:
    """What is to end of the sessions of some users."""
    found = list(_compare(user_ids))
    if not found:
        return
    # Once more: a password that was changed between two queries is no reason.
    suspects = list(dict.fromkeys(finding.user_id for finding in found))
    again = set(_compare(suspects))
    for finding in found:
        # As a request looks for the user; case may not matter to the database, for example.
        if finding in again and (finding.session_id or _is_nobody(finding.user_id)):
            yield finding


def _is_nobody(user_id: str) -> bool:
    knows = settings.USER_LOADER or settings.USER_ID_FIELD
    return not knows or user_id.startswith(BY_KEY) or load_user(user_id) is None


def _compare(user_ids: Sequence[str]) -> Iterator[Finding]:
    # In this order: a session is made after its user, and with a hash that the user then has.
    marks = _marks(user_ids)
    users = _users(user_ids)
    for user_id in user_ids:
        user = users.get(user_id)
        if user is None:
            if settings.END_ON_USER_DELETED:
                yield Finding(user_id, DELETED)
        elif not getattr(user, "is_active", True):
            if settings.END_ON_USER_DEACTIVATED:
                yield Finding(user_id, DEACTIVATED)
        else:
            for session_id, mark in marks.get(user_id, ()):
                if not fits(mark, user):
                    yield Finding(user_id, PASSWORD_CHANGED, session_id)


def _marks(user_ids: Sequence[str]) -> dict[str, list[tuple[uuid.UUID, str]]]:
    """The marked sessions of each user."""
    if not settings.END_ON_PASSWORD_CHANGED:
        return {}
    marks: dict[str, list[tuple[uuid.UUID, str]]] = {}
    for row in call(
        "SELECT u.user_id, s.session_id, s.auth ->> %s AS mark"
        " FROM unnest(%s::text[]) AS u (user_id),"
        f" LATERAL {function('session_list')}(u.user_id, max_rows => {MAX_SESSIONS}) AS s"
        " WHERE s.auth ->> %s IS NOT NULL",
        [MARK, list(user_ids), MARK],
        idempotent=True,
    ):
        marks.setdefault(row["user_id"], []).append((row["session_id"], row["mark"]))
    return marks


def _users(user_ids: Sequence[str]) -> dict[str, Any]:
    """The users that there are, where changes of them are written."""
    if settings.USER_LOADER:
        load = settings.load(settings.USER_LOADER)
        loaded = ((user_id, load(user_id, None)) for user_id in user_ids)
        return {user_id: user for user_id, user in loaded if user is not None}
    meta = get_user_model()._meta
    name = settings.USER_ID_FIELD or "pk"
    by_key = {user_id for user_id in user_ids if user_id.startswith(BY_KEY)}
    others = set(user_ids).difference(by_key)
    found = _by_field(meta.pk, [user_id.removeprefix(BY_KEY) for user_id in by_key])
    return {
        **_by_field(meta.pk if name == "pk" else meta.get_field(name), others),
        **{f"{BY_KEY}{key}": user for key, user in found.items()},
    }


def _by_field(field: Any, texts: Collection[str]) -> dict[str, Any]:
    """Users by the text of a field."""
    model = get_user_model()
    values = set()
    for text in texts:
        try:
            value = value_of(field, text)
        except (ValidationError, ValueError, TypeError):
            continue
        values.add(value)
    if not values:
        return {}
    users = model._default_manager.using(router.db_for_write(model))
    return {
        str(getattr(user, field.attname)): user
        for user in users.filter(**{f"{field.name}__in": values})
    }
