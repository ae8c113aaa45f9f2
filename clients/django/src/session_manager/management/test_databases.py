"""The databases of an application's tests, and sessions that do not outlive a test.

A test database is made by a superuser, or from a template that one has prepared: creating the
extension takes one.  No key is made for it while the key file has any, as the key file is the
server's: every run would leave one more in it.
"""

from __future__ import annotations

import logging
import sys
from functools import cache
from typing import Any

from django.db import connections

from ..conf import settings
from ..store.database import function, quote
from ..store.shards import all_aliases
from . import grants

logger = logging.getLogger("session_manager")

TEMPLATE = "template_session_manager"
# Ids are given in turn; who has made more than these will have some of them still.
HIGHEST_KEY = 1000
#: Names of the databases as the settings have them, before a test runner puts others there.
_configured: dict[str, str] = {}


def remember_databases() -> None:
    """Called when Django starts."""
    _configured.update({alias: connections[alias].settings_dict["NAME"] for alias in connections})


def under_test() -> bool:
    """Whether a test runner, Django's or pytest-django, has set its environment up."""
    # Not imported for it: outside of tests nobody else does, either.
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def key_statement() -> str:
    """SQL for a superuser: use a key of the file's, and make one only if it has none."""
    keys, add, activate, generate = map(
        function,
        ("session_keys", "session_key_add", "session_key_activate", "session_key_generate"),
    )
    return f"""DO $$
BEGIN
    IF EXISTS (SELECT FROM {keys}() WHERE state = 'active' AND available) THEN
        RETURN;
    END IF;
    FOR id IN 1 .. {HIGHEST_KEY} LOOP
        BEGIN
            PERFORM {add}(id);
            PERFORM {activate}(id);
            RETURN;
        EXCEPTION
            -- not in the file; known, and no longer there
            WHEN SQLSTATE 'SM003' OR duplicate_object THEN NULL;
        END;
    END LOOP;
    PERFORM {activate}({generate}());
END
$$"""


def tables() -> str:
    return ", ".join(map(function, ("user_sessions", "session_events")))


def script(role: str, name: str) -> str:
    """A script for psql that makes, or mends, a template of test databases for a role."""
    body = f"""BEGIN
    IF EXISTS
        (SELECT FROM pg_database WHERE datname = {grants.literal(name)} AND NOT datistemplate)
    THEN
        RAISE EXCEPTION '%', {grants.literal(f"the database {name} exists and is not a template")};
    END IF;
END"""
    lines = [
        r"\set ON_ERROR_STOP on",
        # Nobody could connect any more to a database that is in use.
        f"DO {grants.literal(body)};",
        grants.create_role(role),
        # A template: whoever may create databases may copy it, and no worker looks into it.
        f"SELECT {grants.literal(f'CREATE DATABASE {quote(name)} IS_TEMPLATE true')}"
        f" WHERE NOT EXISTS"
        rf" (SELECT FROM pg_database WHERE datname = {grants.literal(name)}) \gexec",
        f"ALTER DATABASE {quote(name)} WITH ALLOW_CONNECTIONS true;",
        rf"\connect {quote(name)}",
        *(f"{statement};" for statement in grants.create_statements()),
        *(f"{statement};" for statement in grants.grant_statements(role)),
        f"{key_statement()};",
        # For flush_sessions; an application's own database is never made from this one.
        f"GRANT TRUNCATE ON {tables()} TO {quote(role)};",
        r"\connect postgres",
        # What somebody is connected to cannot be copied.
        f"ALTER DATABASE {quote(name)} WITH ALLOW_CONNECTIONS false;",
    ]
    return "\n".join(lines)


def refusal(connection: Any, role: str) -> str:
    """Why a role that is no superuser gets no test database, and what to do."""
    if connection.settings_dict["TEST"].get("TEMPLATE"):
        what = f"The template {connection.settings_dict['TEST']['TEMPLATE']} does not have it."
    else:
        what = "It comes from a template that a superuser prepares."
    return (
        f"The test database has no extension session_manager that {role} may use. {what} Run\n"
        f"    {grants.command(connection.alias, role, '--template')}\n"
        f'and let DATABASES["{connection.alias}"] have "TEST": {{"TEMPLATE": "{TEMPLATE}"}}.'
    )


def flush_sessions(using: str | None = None) -> None:
    """Delete every session, and the audit trail, of a test database or of the stand-in.

    flush, and so a TransactionTestCase, empties managed models alone; under test this goes with
    it.  Call it yourself where nobody is told of a flush: with serialized_rollback.
    """
    if settings.stand_in is not None:
        settings.stand_in.flush()
        return
    for alias in all_aliases() if using is None else [using]:
        _flush(connections[alias])


def _flush(connection: Any) -> None:
    if not under_test() or connection.vendor != "postgresql":
        return
    if connection.settings_dict["NAME"] == _configured.get(connection.alias):
        return  # No runner made it: setup_test_environment() in a shell, for example.
    sessions, events = function("user_sessions"), function("session_events")
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [sessions])
        if not cursor.fetchone()[0]:
            return
        cursor.execute(
            "SELECT has_table_privilege(%s, 'truncate') AND has_table_privilege(%s, 'truncate')",
            [sessions, events],
        )
        if not cursor.fetchone()[0]:
            _warn(sessions)
            return
        cursor.execute(f"SELECT EXISTS (SELECT FROM {sessions}) OR EXISTS (SELECT FROM {events})")
        if cursor.fetchone()[0]:
            cursor.execute(f"TRUNCATE {sessions}, {events}")


@cache
def _warn(sessions: str) -> None:
    """Once."""
    logger.warning(
        "Sessions outlive the tests that created them: no right to truncate %s.", sessions
    )


def after_flush(*, using: str, **kwargs: Any) -> None:
    """Receiver of post_migrate, which flush sends as well."""
    if using in all_aliases():
        flush_sessions(using)
