"""What the migration does in the database: the extension, its first key, and the role's rights.

Creating the extension and granting take a superuser.  Where the role that migrates is none, what is
missing is named in full, ready for psql.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.db import Error, transaction

from .conf import settings
from .database import function, quote
from .types import SESSION_TIMES

TABLES = (
    "user_sessions",
    "session_events",
    "session_events_default",
    "session_keys",
    "session_installation",
)
# Columns that hold no secret and nothing that one could be guessed from.
COLUMNS = {
    "user_sessions": (
        "session_id",
        *SESSION_TIMES,
        "version",
        "key_id",
        "verifier_key_id",
        "user_id",
        "tenant_id",
        "ip",
        "user_agent",
        "rotated_at",
        "revoked_at",
        "revoked_reason",
    ),
    "session_events": (
        "event_id",
        "at",
        "session_id",
        "user_id",
        "tenant_id",
        "event",
        "ip",
        "user_agent",
        "detail",
    ),
    "session_keys": ("key_id", "state"),
}


def create_statement() -> str:
    schema = f" SCHEMA {quote(settings.SCHEMA)}" if settings.SCHEMA else ""
    return f"CREATE EXTENSION session_manager{schema} CASCADE"


def grant_statements(role: str) -> list[str]:
    """SQL that lets a role use this package, and gives it nothing else of the extension.

    The revocations are for databases with ALTER DEFAULT PRIVILEGES, which reach the extension's
    tables as well.
    """
    literal = "'" + quote(role).replace("'", "''") + "'"
    return [
        f"REVOKE ALL ON {', '.join(map(function, TABLES))} FROM {quote(role)}",
        f"SELECT {function('session_grant')}({literal}, 'app')",
        *(
            f"GRANT SELECT ({', '.join(columns)}) ON {function(table)} TO {quote(role)}"
            for table, columns in COLUMNS.items()
        ),
    ]


def statements(role: str) -> list[str]:
    """SQL that sets an empty database up, for a superuser."""
    return [create_statement(), _generate(), *grant_statements(role)]


def revoke_statements(role: str) -> list[str]:
    return [
        f"REVOKE SELECT ({', '.join(columns)}) ON {function(table)} FROM {quote(role)}"
        for table, columns in COLUMNS.items()
    ]


def _scalar(cursor: Any, sql: str, params: Any = ()) -> Any:
    cursor.execute(sql, params)
    return cursor.fetchone()[0]


def granted(cursor: Any) -> bool:
    """Whether the current role has what grant_statements gives."""
    return bool(
        _scalar(
            cursor,
            "SELECT has_function_privilege(%s, 'execute')"
            " AND has_column_privilege(%s, %s, 'select')",
            [
                function("session_get") + "(text, inet, text, boolean)",
                function("user_sessions"),
                "session_id",
            ],
        )
    )


def install(connection: Any, grant_role: str | None = None) -> None:
    """Create the extension, its first key and the grants, as far as they are missing.

    grant_role: who gets the rights; by default GRANT_ROLE, else the role of the connection unless
    it is a superuser.  Can be run again.
    """
    with connection.cursor() as cursor:
        superuser = _scalar(cursor, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        current = _scalar(cursor, "SELECT current_user")
        exists = _scalar(
            cursor, "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'session_manager')"
        )
        role = grant_role or settings.GRANT_ROLE or (None if superuser else current)
        if not superuser:
            if exists and granted(cursor):
                return
            needed = grant_statements(role or current) if exists else statements(role or current)
            raise CommandError(
                "Setting session_manager up needs a superuser. "
                "As one, run this in the same database, and then this again:\n"
                + "".join(f"    {statement};\n" for statement in needed).rstrip()
            )
        if not exists:
            cursor.execute(create_statement())
        if role:
            for statement in grant_statements(role):
                cursor.execute(statement)
        has_key = _scalar(
            cursor,
            f"SELECT EXISTS (SELECT FROM {function('session_keys')}())",
        )
    if not has_key:
        _generate_key(connection)


def _generate() -> str:
    return f"SELECT {function('session_key_generate')}()"


def _generate_key(connection: Any) -> None:
    """Make the first key, if the server has a key file; the system check reports it if not."""
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(_generate())
    except Error as error:
        print(f"session_manager: no key was made: {error}".rstrip())


def uninstall(connection: Any) -> None:
    """Take the column grants back.  The extension stays: dropping it would end every session."""
    role = settings.GRANT_ROLE
    with connection.cursor() as cursor:
        exists = _scalar(
            cursor, "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'session_manager')"
        )
        if not (role and exists):
            return
        for statement in revoke_statements(role):
            cursor.execute(statement)
