"""SQL that sets a database up: the extension, its first key, and the rights of a role.

Creating the extension and granting take a superuser.  Every statement may run any number of times.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from django.core.management.base import CommandError
from django.db import connections

from ..conf import settings
from ..store.database import function, quote
from ..store.shards import all_aliases


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def create_statements() -> list[str]:
    if not settings.SCHEMA:
        return ["CREATE EXTENSION IF NOT EXISTS session_manager CASCADE"]
    schema = quote(settings.SCHEMA)
    return [
        f"CREATE SCHEMA IF NOT EXISTS {schema}",
        f"CREATE EXTENSION IF NOT EXISTS session_manager SCHEMA {schema} CASCADE",
    ]


def grant_statements(role: str) -> list[str]:
    """The functions that an application calls; the columns that the models and the admin read."""
    return [
        f"SELECT {function('session_grant')}({literal(quote(role))}, '{bundle}')"
        for bundle in ("app", "reader")
    ]


def key_statement() -> str:
    """A key, unless there is one that seals; the first one, or one after a revocation."""
    return (
        f"SELECT {function('session_key_generate')}() WHERE NOT EXISTS"
        f" (SELECT FROM {function('session_keys')} WHERE state = 'active')"
    )


def statements(role: str) -> list[str]:
    """SQL that sets a database up, for a superuser in it."""
    return [*create_statements(), *grant_statements(role), key_statement()]


def default_role(alias: str) -> str | None:
    """Who is to use the extension in a database, as far as the settings say."""
    aliases = all_aliases()
    alias = alias if alias in aliases else aliases[0]
    return settings.GRANT_ROLE or connections[alias].settings_dict["USER"] or None


def connectable(name: str) -> str:
    """A database's name, if psql takes it for one: it also takes connection strings."""
    if not name or any(c in name for c in "=\n\r") or "://" in name:
        raise CommandError(f"The database {name!r} cannot be set up by a script for psql.")
    return name


def create_role(role: str) -> str:
    """For psql: the role, unless it is there."""
    statement = f"CREATE ROLE {quote(role)} LOGIN"
    return (
        f"SELECT {literal(statement)} WHERE NOT EXISTS"
        rf" (SELECT FROM pg_roles WHERE rolname = {literal(role)}) \gexec"
    )


def script(alias: str, role: str) -> str:
    """The same for psql, from a server that has nothing yet: the role and the database as well."""
    name = connectable(connections[alias].settings_dict["NAME"])
    # Of the role: only an owner may create tables in public, which migrate does.
    create_database = f"CREATE DATABASE {quote(name)} OWNER {quote(role)}"
    lines = [
        r"\set ON_ERROR_STOP on",
        create_role(role),
        f"SELECT {literal(create_database)} WHERE NOT EXISTS"
        rf" (SELECT FROM pg_database WHERE datname = {literal(name)}) \gexec",
        rf"\connect {quote(name)}",
        *(f"{statement};" for statement in statements(role)),
    ]
    return "\n".join(lines)


def command(alias: str, role: str | None = None, option: str = "--print") -> str:
    """What an administrator pastes into a shell to have all that is missing set up."""
    words = ["python", "manage.py", "setup_session_manager", option]
    if alias != settings.DATABASE:
        words += ["--database", alias]
    if role and role != default_role(alias):
        words += ["--role", role]
    server = connections[alias].settings_dict
    psql = ["psql"]
    if server["HOST"]:
        psql += ["-h", server["HOST"]]
    if server["PORT"]:
        psql += ["-p", str(server["PORT"])]
    # On its own machine a server knows its superuser by the user of the operating system.
    local = not server["HOST"] or server["HOST"].startswith("/")
    psql = ["sudo", "-u", "postgres", *psql] if local else [*psql, "-U", "postgres", "postgres"]
    return f"{shlex.join(words)} | {shlex.join(psql)}"


@dataclass(frozen=True)
class Rights:
    """What the role of a connection may do with the extension."""

    schema: str
    found: bool
    call: bool
    read: bool


def rights(cursor: Any) -> Rights | None:
    """None if there is no extension."""
    cursor.execute(
        "SELECT n.nspname,"
        " CASE WHEN %s::text IS NULL THEN pg_function_is_visible(p.oid) ELSE n.nspname = %s END,"
        " has_schema_privilege(n.oid, 'usage') AND has_function_privilege(p.oid, 'execute'),"
        " coalesce(has_column_privilege(c.oid, 'session_id', 'select'), false)"
        " FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
        " JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid"
        " AND d.classid = 'pg_proc'::regclass"
        " JOIN pg_proc p ON p.oid = d.objid AND p.proname = 'session_get'"
        # (a router has no tables)
        " LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'user_sessions'"
        " WHERE e.extname IN ('session_manager', 'session_manager_router') ORDER BY 2 DESC",
        [settings.SCHEMA or None] * 2,
    )
    row = cursor.fetchone()
    return Rights(*row) if row else None
