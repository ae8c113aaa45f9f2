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
from django.db.models.functions import Cast
from django.db.models.lookups import Exact

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
        ((local, target),) = self.related_fields
        return Exact(local.get_col(related_alias), Cast(target.get_col(alias), models.TextField()))
