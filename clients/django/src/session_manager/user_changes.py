"""Sessions follow their user, by the signals of the user model.

    deleted, or given another user id    the sessions end
    no longer active                     the sessions end
    a new password                       all end; that of the request stays if the view asks for it
    created                              what an earlier user with this id has left ends

The sessions end in the transaction that changes the user, so that neither happens without the
other.  Where the users are saved over another connection than the sessions, they end right after
the commit.  Changes that send no signals (QuerySet.update, bulk_update, fixtures, SQL) are found by
``manage.py check_session_users``.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection
from functools import partial
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import connections, transaction
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from .conf import settings
from .exceptions import SessionError
from .http.current import current_request
from .http.spared import Spared, others_ended, spare
from .services import session_service
from .store.shards import alias_of, bucket_of_user
from .store.users import BY_KEY, knows_users, user_id_of

logger = logging.getLogger("session_manager")

DELETED = "user_deleted"
RENAMED = "user_id_changed"
DEACTIVATED = "user_deactivated"
PASSWORD_CHANGED = "password_changed"  # noqa: S105

_BEFORE = "_session_manager_before"


def connect() -> None:
    """Listen to the user model, and to those that inherit from it.

    Not to every model: a receiver of deletions makes Django load all rows that it deletes.
    """
    for model in apps.get_models():
        if issubclass(model, (get_user_model(), AbstractBaseUser)):
            follow(model)


def follow(model: type[Any]) -> None:
    """Listen to a model of users."""
    for signal, receiver in (
        (pre_save, before_save),
        (post_save, after_save),
        (pre_delete, before_delete),
        (post_delete, after_delete),
    ):
        signal.connect(receiver, sender=model, dispatch_uid=receiver.__module__)


def before_save(
    *, instance: Any, raw: bool, using: str, update_fields: Collection[str] | None, **kwargs: Any
) -> None:
    """Keep the user as it is stored, and as it will be; None where only the database knows."""
    instance.__dict__.pop(_BEFORE, None)
    if raw or not _follows(instance) or not _touches(instance, update_fields):
        return
    model = get_user_model()
    key = getattr(instance, model._meta.pk.attname)
    old = None
    if key is not None:
        old = model._base_manager.using(using).filter(pk=key).first()
    if old is None:
        return
    new: Any = copy.copy(old)
    for field in model._meta.concrete_fields:
        given = field.attname in instance.__dict__
        if update_fields is not None:
            given = given and (field.name in update_fields or field.attname in update_fields)
        if not given:
            continue
        value = instance.__dict__[field.attname]
        if hasattr(value, "resolve_expression"):
            # The database computes it: after_save reads what has come of it.
            new = None
            break
        setattr(new, field.attname, value)
    instance.__dict__[_BEFORE] = (old, new)


def after_save(*, instance: Any, created: bool, raw: bool, using: str, **kwargs: Any) -> None:
    old, new = instance.__dict__.pop(_BEFORE, (None, None))
    if raw or not _follows(instance):
        return
    if created:
        if settings.END_ON_USER_DELETED:
            _end_leftovers(instance, using)
    elif old is not None:
        if new is None:
            new = get_user_model()._base_manager.using(using).filter(pk=old.pk).first()
        if new is not None:
            _follow(old, new, using)


def before_delete(*, instance: Any, **kwargs: Any) -> None:
    """Afterwards a field that has not been loaded could not be read any more."""
    if _follows(instance) and settings.END_ON_USER_DELETED:
        instance.__dict__[_BEFORE] = _user_id(instance)


def after_delete(*, instance: Any, using: str, **kwargs: Any) -> None:
    user_id = instance.__dict__.pop(_BEFORE, None)
    if user_id is not None:
        _end(user_id, using, DELETED)


def _follows(instance: Any) -> bool:
    return knows_users() and isinstance(instance, get_user_model())


def _touches(instance: Any, update_fields: Collection[str] | None) -> bool:
    """Whether a save may change what sessions depend on."""
    if update_fields is None:
        return True
    if type(instance).get_session_auth_hash is not AbstractBaseUser.get_session_auth_hash:
        # Any field may be in it.
        return True
    active = getattr(type(instance), "is_active", True)
    if not isinstance(active, bool | DeferredAttribute):
        # A property, over whatever fields.
        return True
    names = {"password", "is_active", settings.USER_ID_FIELD or "pk"}
    return not names.isdisjoint(update_fields)


def _follow(old: Any, new: Any, using: str) -> None:
    before, after = _user_id(old), _user_id(new)
    if before != after and settings.END_ON_USER_DELETED:
        # Nobody else who has, or gets, the id may take over the sessions.
        for user_id in filter(None, (before, after)):
            _end(user_id, using, RENAMED)
    elif before is None:
        return
    elif old.is_active and not new.is_active and settings.END_ON_USER_DEACTIVATED:
        _end(before, using, DEACTIVATED)
    elif settings.END_ON_PASSWORD_CHANGED and _auth_hash(old) != _auth_hash(new):
        request = current_request()
        spared = spare(request, before, PASSWORD_CHANGED) if request else None
        _end(before, using, PASSWORD_CHANGED, spared)


def _user_id(user: Any) -> str | None:
    try:
        return user_id_of(user)
    except ValueError:
        return None if user.pk is None else f"{BY_KEY}{user.pk}"


def _auth_hash(user: Any) -> str:
    return user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else ""


def _end(user_id: str, using: str, reason: str, spared: Spared | None = None) -> None:
    alias = alias_of(bucket_of_user(user_id))
    if settings.stand_in is None and connections[alias].vendor != "postgresql":
        return  # Tests on SQLite: there are no sessions.
    end = partial(_end_all, user_id, reason, spared)
    if using == alias:
        end()
    else:
        transaction.on_commit(partial(_end_late, end, user_id), using=using)


def _end_all(user_id: str, reason: str, spared: Spared | None) -> None:
    except_token = spared.token if spared is not None else None
    session_service.invalidate_all(user_id, except_token=except_token, reason=reason)
    if spared is not None:
        others_ended(spared)


def _end_late(end: partial[None], user_id: str) -> None:
    """What has been committed stays so, whether or not the sessions can be reached."""
    try:
        end()
    except SessionError:
        logger.exception(
            "The sessions of the user %r could not be ended. Run: manage.py check_session_users",
            user_id,
        )


def _end_leftovers(user: Any, using: str) -> None:
    """End what is there of a user who was deleted without a signal.

    Whoever has a user made is not to fail for it, with a database that has no extension yet.
    """
    user_id = _user_id(user)
    if user_id is None:
        return
    try:
        with transaction.atomic(using=using):
            _end(user_id, using, DELETED)
    except SessionError as error:
        logger.warning("sessions of an earlier user %r could not be ended: %s", user_id, error)
