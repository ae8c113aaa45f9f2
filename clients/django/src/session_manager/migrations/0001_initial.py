"""The extension with its grants, the unmanaged models over it, and the table of imports."""

from typing import Any

from django.db import migrations, models

from session_manager.conf import settings
from session_manager.management import installation
from session_manager.models import table
from session_manager.store.aliases import same_database
from session_manager.store.shards import all_aliases


def is_ours(alias: str) -> bool:
    return any(same_database(alias, one) for one in all_aliases())


class CreateTable(migrations.CreateModel):
    """In DATABASE and nowhere else, without a router."""

    def allow_migrate_model(self, connection_alias: Any, model: Any) -> bool:
        ours = same_database(connection_alias, settings.DATABASE)
        return ours and super().allow_migrate_model(connection_alias, model)


def install(apps: Any, schema_editor: Any) -> None:
    if is_ours(schema_editor.connection.alias):
        installation.install(schema_editor.connection)


def uninstall(apps: Any, schema_editor: Any) -> None:
    if is_ours(schema_editor.connection.alias):
        installation.uninstall(schema_editor.connection)


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.RunPython(install, uninstall),
        migrations.CreateModel(
            name="SessionEvent",
            fields=[
                ("event_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField(verbose_name="time")),
                ("session_id", models.UUIDField(null=True, verbose_name="session")),
                ("user_id", models.TextField(null=True, verbose_name="user id")),
                ("tenant_id", models.TextField(null=True, verbose_name="tenant")),
                ("event", models.TextField(verbose_name="event")),
                ("ip", models.GenericIPAddressField(null=True, verbose_name="address")),
                ("user_agent", models.TextField(null=True, verbose_name="user agent")),
                ("detail", models.JSONField(null=True, verbose_name="detail")),
            ],
            options={
                "verbose_name": "session event",
                "verbose_name_plural": "session events",
                "db_table": table("session_events"),
                "ordering": ("-at", "-event_id"),
                "managed": False,
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="SessionKey",
            fields=[
                ("key_id", models.IntegerField(primary_key=True, serialize=False)),
                ("state", models.TextField()),
            ],
            options={
                "db_table": table("session_keys"),
                "managed": False,
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="UserSession",
            fields=[
                (
                    "session_id",
                    models.UUIDField(primary_key=True, serialize=False, verbose_name="session"),
                ),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("authenticated_at", models.DateTimeField(verbose_name="authenticated")),
                ("last_seen_at", models.DateTimeField(verbose_name="last seen")),
                ("expires_at", models.DateTimeField(verbose_name="expires")),
                ("absolute_expires_at", models.DateTimeField(verbose_name="expires at the latest")),
                ("version", models.IntegerField(verbose_name="version of the data")),
                ("key_id", models.IntegerField(verbose_name="key")),
                ("verifier_key_id", models.IntegerField(verbose_name="key of the verifier")),
                ("user_id", models.TextField(verbose_name="user id")),
                ("tenant_id", models.TextField(null=True, verbose_name="tenant")),
                ("ip", models.GenericIPAddressField(null=True, verbose_name="address")),
                ("user_agent", models.TextField(null=True, verbose_name="user agent")),
                ("idle_timeout", models.DurationField(null=True, verbose_name="idle timeout")),
                (
                    "actor_session_id",
                    models.UUIDField(null=True, verbose_name="session of the actor"),
                ),
                ("actor_id", models.TextField(null=True, verbose_name="actor")),
                (
                    "device_bound_at",
                    models.DateTimeField(null=True, verbose_name="bound to a device"),
                ),
                ("device_proved_at", models.DateTimeField(null=True, verbose_name="device proved")),
                ("rotated_at", models.DateTimeField(null=True, verbose_name="token replaced")),
                ("revoked_at", models.DateTimeField(null=True, verbose_name="revoked")),
                ("revoked_reason", models.TextField(null=True, verbose_name="reason")),
            ],
            options={
                "verbose_name": "session",
                "verbose_name_plural": "sessions",
                "db_table": table("user_sessions"),
                "ordering": ("-session_id",),
                "permissions": (("revoke_usersession", "Can revoke session"),),
                "managed": False,
                "default_permissions": ("view",),
            },
        ),
        CreateTable(
            name="ImportedSession",
            fields=[
                ("key_hash", models.BinaryField(max_length=32, primary_key=True, serialize=False)),
                ("user_id", models.TextField()),
                ("expires_at", models.DateTimeField()),
                ("adopted_at", models.DateTimeField(null=True)),
                ("session_id", models.UUIDField(null=True)),
            ],
            options={
                "verbose_name": "imported session",
                "default_permissions": (),
            },
        ),
    ]
