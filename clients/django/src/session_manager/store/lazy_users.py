"""A user whose row is loaded when a field is first read that the session does not tell.

The session tells the primary key and the user id, and that the user is there and active: else it
would have ended, see user_changes.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import router
from django.db.models import Expression
from django.db.models.base import ModelState
from django.utils.functional import SimpleLazyObject, empty

from ..conf import settings
from ..types import Session
from .users import BY_KEY, is_guest, key_in, load_user


def _is_pk_set(meta: Any = None) -> bool:
    """Django's method of this name, which it calls before it saves what refers to a user."""
    return True


class LazyUser(SimpleLazyObject):  # type: ignore[type-arg]
    """Stands for an instance of the user model, as Django's own lazy ``request.user`` does."""

    _wrapped: Any

    def __init__(
        self,
        key: Any,
        session: Session,
        missing: Callable[[], Exception],
        new_mark: Callable[[], str | None],
    ) -> None:
        model = get_user_model()
        self.__dict__.update(
            _model=model,
            _key=key,
            _session=session,
            _missing=missing,
            _new_mark=new_mark,
            _gone=False,
        )
        super().__init__(self._load_or_raise)

    def load(self) -> Any:
        """The user itself, or None if the row tells that nobody may use the session."""
        if self._wrapped is empty:
            session = self._session
            user = load_user(session.user_id, session)
            if user is None and (mark := self._new_mark()) not in (None, session.mark):
                user = load_user(session.user_id, replace(session, mark=mark))
            if user is None:
                self.__dict__["_gone"] = True
                return None
            self._wrapped = user
        return self._wrapped

    async def aload(self) -> Any:
        """The user with all fields, for asynchronous code; raises as reading a field does."""
        return await sync_to_async(self._load_or_raise)()

    def _load_or_raise(self) -> Any:
        user = self.load()
        if user is None:
            raise self._missing()
        return user

    @property
    def is_authenticated(self) -> bool:
        return not self.__dict__["_gone"]

    @property
    def is_anonymous(self) -> bool:
        return bool(self.__dict__["_gone"])

    @property
    def is_active(self) -> bool:
        wrapped = self._wrapped
        return self.is_authenticated if wrapped is empty else bool(wrapped.is_active)

    @property
    def pk(self) -> Any:
        return self.__dict__["_key"] if self._wrapped is empty else self._wrapped.pk

    def __getattr__(self, name: str) -> Any:
        if self._wrapped is empty:
            model = self.__dict__["_model"]
            meta = model._meta
            if name == meta.pk.attname or name == meta.pk.name:
                return self.__dict__["_key"]
            if name == settings.USER_ID_FIELD:
                return meta.get_field(name).to_python(self.__dict__["_session"].user_id)
            if name == "_meta":
                return meta
            if name == "_state":
                state = ModelState()
                state.adding = False
                state.db = router.db_for_read(model)
                return state
            if name == "_is_pk_set":
                return _is_pk_set
            if hasattr(Expression, name) and not hasattr(model, name):
                # The ORM finds out that a value is no expression.
                raise AttributeError(name)
        return super().__getattr__(name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """As isinstance asks."""
        return self.__dict__["_model"]

    def __eq__(self, other: object) -> bool:
        meta = getattr(other, "_meta", None)
        if meta is None or meta.concrete_model is not self.__dict__["_model"]._meta.concrete_model:
            return False
        return bool(self.pk == other.pk)  # type: ignore[attr-defined]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.pk)

    def __repr__(self) -> str:
        known = self.__dict__["_key"] if self._wrapped is empty else self._wrapped
        return f"<LazyUser: {known!r}>"

    def __bool__(self) -> bool:
        return True


def lazy_user(
    session: Session,
    missing: Callable[[], Exception],
    new_mark: Callable[[], str | None] = lambda: None,
) -> LazyUser | None:
    """The user of a session, or None if the session does not tell its primary key.

    missing: makes what is raised when the row turns out to be gone.  new_mark: what the session's
    mark is going to be, if the request has changed the password and keeps the session.
    """
    key = get_user_model()._meta.pk
    if is_guest(session.user_id) or session.user_id.startswith(BY_KEY):
        return None
    if settings.USER_ID_FIELD in ("pk", key.name):
        text = session.user_id
    elif session.mark is not None:
        text = key_in(session.mark)
    else:
        return None
    try:
        value = key.to_python(text)
    except ValidationError:
        return None
    # "007" is a user id that no user of this model has: nothing would have ended its sessions.
    return LazyUser(value, session, missing, new_mark) if str(value) == text else None
