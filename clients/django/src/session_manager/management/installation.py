"""What the migration does in the database: it runs the statements of grants.py.

Where the role that migrates is no superuser, what is missing is named in full, ready to be pasted.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.db import Error, transaction

from ..conf import settings
from ..store.database import function, quote
from . import test_databases
from .grants import (
    command,
    create_statements,
    grant_statements,
    key_statement,
    literal,
    rights,
    statements,
)


def install(connection: Any, grant_role: str | None = None) -> None:
    """Create the extension, its first key and the grants, as far as they are missing.

    grant_role: who gets the rights; by default GRANT_ROLE, else the role of the connection unless
    it is a superuser.  Can be run again.
    """
    if settings.stand_in is not None and test_databases.under_test():
        return
    if connection.vendor != "postgresql":
        if test_databases.under_test():
            return  # The check W029 says what cannot be tested.
        raise CommandError(
            f"session_manager needs PostgreSQL, and the database {connection.alias!r} is "
            f"{connection.display_name}."
        )
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolsuper, current_user::text FROM pg_roles WHERE rolname = current_user"
        )
        superuser, current = cursor.fetchone()
        named = grant_role or settings.GRANT_ROLE
        if not superuser:
            role = named or current
            have = rights(cursor)
            if have and have.call:
                return
            if test_databases.under_test():
                raise CommandError(test_databases.refusal(connection, role))
            name = connection.settings_dict["NAME"]
            raise CommandError(
                "Setting session_manager up needs a superuser. Run this, and then this again:\n"
                f"    {command(connection.alias, role)}\n"
                f"That is, as a superuser in the database {name}:\n"
                + "".join(f"    {statement};\n" for statement in statements(role)).rstrip()
            )
        if named:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [named])
            if cursor.fetchone() is None:
                raise CommandError(
                    f"There is no role {named}. As a superuser: CREATE ROLE {quote(named)} LOGIN;"
                )
        for statement in [
            *create_statements(),
            *(grant_statements(named) if named else ()),
        ]:
            cursor.execute(statement)
    under_test = test_databases.under_test()
    _make_key(connection, test_databases.key_statement() if under_test else key_statement())


def _make_key(connection: Any, statement: str) -> None:
    """Make the first key, if the server has a key file; the system check reports it if not."""
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(statement)
    except Error as error:
        print(f"session_manager: no key was created: {error}".rstrip())


def uninstall(connection: Any) -> None:
    """Take the columns back.  The extension stays: dropping it would end every session."""
    role = settings.GRANT_ROLE
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        if role and rights(cursor):
            cursor.execute(f"SELECT {function('session_revoke')}({literal(quote(role))}, 'reader')")
