"""A relation from the text of a session's user id to the user model.

A foreign key joins columns of one type; a session's user id is text, whatever the user model's key
is.  So the join condition here is ``session.user_id = CAST(user.key AS text)``.  The key is the
field that USER_ID_FIELD names, by default the primary key.

It is a private field, as GenericForeignKey is: migrations know nothing of it and the setting may
change.  Nothing is cached that depends on the setting.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import models
from django.db.models.fields.related import ForeignObject
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor
from django.db.models.fields.related_lookups import RelatedExact, RelatedIn
from django.db.models.functions import Cast
from django.db.models.lookups import Exact
from django.db.models.sql import Query

from .conf import settings


class _Descriptor(ForwardManyToOneDescriptor):  # type: ignore[type-arg]
    """``session.user``: the user, or None if there is none with this id."""

    def get_object(self, instance: Any) -> Any:
        try:
            return super().get_object(instance)
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
        return self.get_path_info()

    def get_foreign_related_value(self, instance: Any) -> tuple[str, ...]:
        return tuple(str(value) for value in super().get_foreign_related_value(instance))

    # The condition of the join is the restriction below, and nothing else.
    def get_joining_fields(self, reverse_join: bool = False) -> tuple[()]:
        return ()

    # Before Django 5.0.
    def get_joining_columns(self, reverse_join: bool = False) -> tuple[()]:
        return ()

    def get_extra_restriction(self, alias: str, related_alias: str) -> Any:
        ((local, target),) = self.related_fields
        return Exact(local.get_col(related_alias), Cast(target.get_col(alias), models.TextField()))


def _text_of(value: Any) -> Any:
    """The text of a user's key; of the users of a queryset, the queryset of their keys' texts."""
    if isinstance(value, Query):
        if value.has_select_fields:
            return value
        key = Cast(settings.USER_ID_FIELD or "pk", models.TextField())
        users = models.QuerySet(model=value.model, query=value)
        return users.order_by().values_list(key, flat=True).query
    return value if hasattr(value, "resolve_expression") else str(value)


@SessionUserField.register_lookup
class _UserExact(RelatedExact):
    def get_prep_lookup(self) -> Any:
        return _text_of(super().get_prep_lookup())


@SessionUserField.register_lookup
class _UserIn(RelatedIn):
    def get_prep_lookup(self) -> Any:
        if isinstance(self.rhs, Query):
            self.rhs = _text_of(self.rhs)
            return self.rhs
        return [_text_of(value) for value in super().get_prep_lookup()]
