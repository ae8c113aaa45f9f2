"""A relation from the text of a session's user id to the user model.

A foreign key joins columns of one type; a session's user id is text, whatever the user model's key
is.  So the join condition here is ``session.user_id = CAST(user.key AS text)``.  The key is the
field that USER_ID_FIELD names, by default the primary key.

It is a private field, as GenericForeignKey is: migrations know nothing of it and the setting may
change.  Nothing is cached that depends on the setting.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldError, ObjectDoesNotExist, ValidationError
from django.db import models, router
from django.db.models.fields.related import ForeignObject
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor
from django.db.models.functions import Cast
from django.db.models.lookups import Exact

from ..conf import settings
from .aliases import same_database
from .users import value_of


def users_apart() -> bool:
    """Whether the users are in another database than the sessions, so that no join finds them."""
    users = router.db_for_write(get_user_model())
    return settings.is_sharded or not same_database(settings.DATABASE, users)


def require_user_id_field() -> None:
    """Without the setting a join would compare subjects with primary keys, and find nobody."""
    if settings.USER_ID_FIELD is None:
        raise FieldError(
            "Sessions have no users that could be looked up: set "
            'SESSION_MANAGER["USER_ID_FIELD"] to the field of the user model whose text is the '
            'session\'s user id, or to "pk".'
        )


def user_ids(users: models.QuerySet[Any]) -> Any:
    """The session user ids of a queryset of users: a subquery, or a list if it must be."""
    require_user_id_field()
    key = Cast(settings.USER_ID_FIELD or "pk", models.TextField())
    if not users.query.is_sliced:
        users = users.order_by()
    found = users.values_list(key, flat=True)
    return list(found) if users_apart() else found


def attach_users(sessions: Iterable[Any]) -> None:
    """Load the users of some sessions by one query, where select_related cannot."""
    sessions = list(sessions)
    field = sessions[0]._meta.get_field("user") if sessions else None
    if field is None:
        return
    ((_, key),) = field.related_fields
    values = set()
    for session in sessions:
        try:
            value = value_of(key, session.user_id)
        except (ValidationError, ValueError, TypeError):
            continue
        values.add(value)
    users = get_user_model()._base_manager.filter(**{f"{key.name}__in": values})
    by_id = {str(getattr(user, key.attname)): user for user in users}
    for session in sessions:
        field.set_cached_value(session, by_id.get(session.user_id))


class _Descriptor(ForwardManyToOneDescriptor):  # type: ignore[type-arg]
    """``session.user``: the user, or None if there is none with this id."""

    def get_object(self, instance: Any) -> Any:
        require_user_id_field()
        # By no hint of the session's: the users may be in another database.
        users = self.field.remote_field.model._base_manager.all()
        try:
            return users.get(self.field.get_reverse_related_filter(instance))
        except (ObjectDoesNotExist, ValueError, ValidationError):
            return None


class SessionUserField(ForeignObject):  # type: ignore[type-arg]
    """The user that ``user_id`` of the same model names."""

    requires_unique_target = False
    forward_related_accessor_class = _Descriptor

    def __init__(self, to: str) -> None:
        super().__init__(
            to,
            models.DO_NOTHING,
            from_fields=["user_id"],
            to_fields=[None],  # type: ignore[list-item]
            related_name="+",
            null=True,
            editable=False,
        )

    def contribute_to_class(
        self, cls: Any, name: str, private_only: bool = True, **kw: Any
    ) -> None:
        super().contribute_to_class(cls, name, private_only=True, **kw)

    def check(self, **kwargs: Any) -> list[Any]:
        return []

    @property
    def related_fields(self) -> Any:
        meta = self.remote_field.model._meta
        name = settings.USER_ID_FIELD
        target = meta.pk if name in (None, "pk") else meta.get_field(name)
        return [(self.model._meta.get_field("user_id"), target)]

    @property
    def reverse_related_fields(self) -> Any:
        return [(target, local) for local, target in self.related_fields]

    @property
    def local_related_fields(self) -> Any:
        return tuple(local for local, _ in self.related_fields)

    @property
    def foreign_related_fields(self) -> Any:
        return tuple(target for _, target in self.related_fields)

    @property
    def path_infos(self) -> Any:
        # A "direct" path would be trimmed, and the session's text compared with the user's key.
        return [path._replace(direct=False) for path in self.get_path_info()]

    def get_foreign_related_value(self, instance: Any) -> tuple[str, ...]:
        return tuple(str(value) for value in super().get_foreign_related_value(instance))

    # The condition of the join is the restriction below, and nothing else.
    def get_joining_fields(self, reverse_join: bool = False) -> tuple[()]:
        return ()

    # Before Django 5.0.
    def get_joining_columns(self, reverse_join: bool = False) -> tuple[()]:
        return ()

    def get_extra_restriction(self, alias: str, related_alias: str) -> Any:
        require_user_id_field()
        if users_apart():
            raise FieldError(
                "Sessions and users are in different databases, which no query can join. Find the "
                "users first: UserSession.objects.for_users(User.objects.filter(...))."
            )
        ((local, target),) = self.related_fields
        return Exact(local.get_col(related_alias), Cast(target.get_col(alias), models.TextField()))
