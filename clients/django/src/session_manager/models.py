"""The extension's tables as unmanaged models: to read, search and list sessions with the ORM.

Only columns without secrets are here: those that the bundle ``reader`` lets a role SELECT.
Writing is refused: sessions change by the functions only, see ``UserSessionQuerySet.revoke`` and
services.SessionService.

``user`` joins the application's user model, so that look-ups such as
``UserSession.objects.filter(user__email="ada@example.com")`` work.  The join is on the text of
USER_ID_FIELD.

The models are in the database that the setting DATABASE names.  With SHARDS a query goes to the one
that has the user, or the session, which it is restricted to; where it names none, ShardUnknown says
what to do.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from django.conf import settings as django_settings
from django.db import models
from django.db.models import Exists, ExpressionWrapper, F, Func, OuterRef, Q
from django.db.models.functions import Least, Now
from django.utils.translation import gettext_lazy as _

from .conf import settings
from .services import session_service
from .store.aliases import chosen_alias, model_alias
from .store.database import quote
from .store.named import alias_named_by
from .store.relations import SessionUserField, user_ids
from .store.users import user_id_of

M = TypeVar("M", bound=models.Model)

_REFUSAL = "only session_manager.services changes sessions"


class WritesRefused(TypeError):
    """The extension's tables are written by its functions only."""


def table(name: str) -> str:
    """A table of the extension as db_table; a name that is in quotes is taken as it is."""
    return f"{quote(settings.SCHEMA)}.{quote(name)}" if settings.SCHEMA else name


class Manager(models.Manager[M]):
    """Looks where the sessions are; no router need know."""

    @property
    def db(self) -> str:
        return self._db or model_alias() or super().db

    def get_queryset(self) -> models.QuerySet[M]:
        queryset = super().get_queryset()
        alias = self._db or model_alias()
        return queryset.using(alias) if alias else queryset


class ReadOnlyQuerySet(models.QuerySet[M]):
    """Refuses whatever would write.  With SHARDS it asks the database that it is about."""

    _db: str | None

    @property
    def db(self) -> str:
        if self._db is None and settings.is_sharded:
            return chosen_alias() or alias_named_by(self.query)
        return super().db

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise WritesRefused(_REFUSAL)

    create = get_or_create = update_or_create = bulk_create = bulk_update = _refuse
    update = delete = _refuse


class ReadOnlyModel(models.Model):
    """A model whose rows are read."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise WritesRefused(_REFUSAL)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise WritesRefused(_REFUSAL)


class SessionKeyQuerySet(ReadOnlyQuerySet["SessionKey"]):
    """Keys, to be read."""


class SessionKey(ReadOnlyModel):
    """A key's state; the key itself is not in the database."""

    key_id = models.IntegerField(primary_key=True)
    state = models.TextField()

    objects = Manager.from_queryset(SessionKeyQuerySet)()

    class Meta:
        managed = False
        db_table = table("session_keys")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.key_id} ({self.state})"


class IdleDeadline(Func):
    """When a session that is not used any more is dead by the setting; infinity if that is off."""

    _SETTING = "COALESCE(NULLIF(current_setting('session_manager.idle_timeout', true), ''), '0')"
    template = (
        f"CASE WHEN {_SETTING}::interval = interval '0' THEN 'infinity'::timestamptz "
        f"ELSE %(expressions)s + {_SETTING}::interval END"
    )
    output_field = models.DateTimeField()


class UserSessionQuerySet(ReadOnlyQuerySet["UserSession"]):
    def active(self) -> UserSessionQuerySet:
        """Sessions that are live by what the table says.

        Uses of the last flush_interval may not have been written yet, so that with an idle timeout
        a session in use can be missing for as long.  SessionService.count_active is
        exact.
        """
        actors = UserSession.objects.all()._living().filter(pk=OuterRef("actor_session_id"))
        return self._living().filter(Q(actor_session_id__isnull=True) | Exists(actors))

    def _living(self) -> UserSessionQuerySet:
        """Whoever acts in them."""
        revoked_key = SessionKey.objects.filter(
            Q(key_id=OuterRef("key_id")) | Q(key_id=OuterRef("verifier_key_id")), state="revoked"
        )
        # Where it has no idle timeout of its own, the other one is the least.
        own = ExpressionWrapper(F("last_seen_at") + F("idle_timeout"), models.DateTimeField())
        return self.alias(idle_deadline=Least(IdleDeadline(F("last_seen_at")), own)).filter(
            ~Exists(revoked_key),
            revoked_at__isnull=True,
            expires_at__gt=Now(),
            absolute_expires_at__gt=Now(),
            idle_deadline__gt=Now(),
        )

    def for_user(self, user: Any) -> UserSessionQuerySet:
        """Sessions of a user, given as a user or as a session user id."""
        return self.filter(user_id=user_id_of(user))

    def for_users(self, users: models.QuerySet[Any]) -> UserSessionQuerySet:
        """Sessions of the users of a queryset, by one statement if they are in one database."""
        return self.filter(user_id__in=user_ids(users))

    def revoke(self, reason: str = "admin") -> int:
        """End the sessions of the queryset, one by one; how many were live."""
        return sum(
            session_service.invalidate_id(session_id, user_id, reason)
            for session_id, user_id in self.values_list("session_id", "user_id")
        )

    revoke.alters_data = True  # type: ignore[attr-defined]


class UserSession(ReadOnlyModel):
    """A session, live or dead until cleanup deletes it; its data is sealed and not here."""

    session_id = models.UUIDField(_("session"), primary_key=True)
    created_at = models.DateTimeField(_("created"))
    authenticated_at = models.DateTimeField(_("authenticated"))
    last_seen_at = models.DateTimeField(_("last seen"))
    expires_at = models.DateTimeField(_("expires"))
    absolute_expires_at = models.DateTimeField(_("expires at the latest"))
    version = models.IntegerField(_("version of the data"))
    key_id = models.IntegerField(_("key"))
    verifier_key_id = models.IntegerField(_("key of the verifier"))
    user_id = models.TextField(_("user id"))
    tenant_id = models.TextField(_("tenant"), null=True)  # noqa: DJ001
    ip = models.GenericIPAddressField(_("address"), null=True)
    user_agent = models.TextField(_("user agent"), null=True)  # noqa: DJ001
    idle_timeout = models.DurationField(_("idle timeout"), null=True)
    actor_session_id = models.UUIDField(_("session of the actor"), null=True)
    actor_id = models.TextField(_("actor"), null=True)  # noqa: DJ001
    device_bound_at = models.DateTimeField(_("bound to a device"), null=True)
    device_proved_at = models.DateTimeField(_("device proved"), null=True)
    rotated_at = models.DateTimeField(_("token replaced"), null=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True)
    revoked_reason = models.TextField(_("reason"), null=True)  # noqa: DJ001

    user = SessionUserField(django_settings.AUTH_USER_MODEL)

    objects = Manager.from_queryset(UserSessionQuerySet)()

    class Meta:
        managed = False
        db_table = table("user_sessions")
        ordering = ("-session_id",)
        verbose_name = _("session")
        verbose_name_plural = _("sessions")
        default_permissions = ("view",)
        permissions = (("revoke_usersession", "Can revoke session"),)

    def __str__(self) -> str:
        return str(self.session_id)


class SessionEventQuerySet(ReadOnlyQuerySet["SessionEvent"]):
    def for_user(self, user: Any) -> SessionEventQuerySet:
        """Events of a user, given as a user or as a session user id."""
        return self.filter(user_id=user_id_of(user))

    def for_session(self, session_id: Any) -> SessionEventQuerySet:
        return self.filter(session_id=session_id)


class SessionEvent(ReadOnlyModel):
    """An entry of the audit trail; later ones mostly have higher ids."""

    event_id = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField(_("time"))
    session_id = models.UUIDField(_("session"), null=True)
    user_id = models.TextField(_("user id"), null=True)  # noqa: DJ001
    tenant_id = models.TextField(_("tenant"), null=True)  # noqa: DJ001
    event = models.TextField(_("event"))
    ip = models.GenericIPAddressField(_("address"), null=True)
    user_agent = models.TextField(_("user agent"), null=True)  # noqa: DJ001
    detail = models.JSONField(_("detail"), null=True)

    user = SessionUserField(django_settings.AUTH_USER_MODEL)

    objects = Manager.from_queryset(SessionEventQuerySet)()

    class Meta:
        managed = False
        db_table = table("session_events")
        ordering = ("-at", "-event_id")
        verbose_name = _("session event")
        verbose_name_plural = _("session events")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.event} {self.at:%Y-%m-%d %H:%M:%S}"


class SessionOverview(ReadOnlyModel):
    """Gives the admin's page Overview its place and its permission; there are no rows."""

    id = models.AutoField(primary_key=True)

    class Meta:
        managed = False
        verbose_name = _("overview")
        verbose_name_plural = _("overview")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.pk)


class ImportedSession(models.Model):
    """A session of django.contrib.sessions that is to be taken over on its next request.

    Made by ``manage.py import_django_sessions``; see importing.py.
    """

    key_hash = models.BinaryField(primary_key=True, max_length=32)
    user_id = models.TextField()
    expires_at = models.DateTimeField()
    adopted_at = models.DateTimeField(null=True)
    session_id = models.UUIDField(null=True)

    objects = Manager["ImportedSession"]()

    class Meta:
        default_permissions = ()
        verbose_name = _("imported session")

    def __str__(self) -> str:
        return self.user_id
