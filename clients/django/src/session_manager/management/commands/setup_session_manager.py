"""What the migration does in the database, for an administrator to do beforehand."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from session_manager.conf import settings
from session_manager.management import grants, installation, test_databases


class Command(BaseCommand):
    # It repairs what the checks find.
    requires_system_checks = []
    help = (
        "As a superuser, creates the extension and its first key and lets a role use both. "
        "migrate does the same if it connects as a superuser; this command is for projects "
        "where it does not. It can be run any number of times."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--database",
            help="alias that connects as a superuser; with --print, of the database to set up",
        )
        parser.add_argument("--role", help="the application's role (GRANT_ROLE, else USER)")
        parser.add_argument(
            "--print",
            action="store_true",
            help="print a script for psql that creates the role and the database as well; "
            "connect to nothing",
        )

        parser.add_argument(
            "--template",
            nargs="?",
            const=test_databases.TEMPLATE,
            metavar="NAME",
            help="print a script for psql that prepares a template of test databases, by default "
            f"{test_databases.TEMPLATE}; connect to nothing",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        alias = options["database"] or settings.DATABASE
        if connections[alias].vendor != "postgresql":
            raise CommandError(f"The database {alias!r} is not PostgreSQL.")
        if options["print"] or options["template"]:
            role = options["role"] or grants.default_role()
            if not role:
                raise CommandError(
                    "Name the application's role: with --role, or as USER in DATABASES."
                )
            if options["template"]:
                name = grants.connectable(options["template"])
                if name in (config["NAME"] for config in connections.settings.values()):
                    raise CommandError(f"{name} is a database of the application, not a template.")
                self.stdout.write(test_databases.script(role, name))
            else:
                self.stdout.write(grants.script(alias, role))
            return
        installation.install(connections[alias], options["role"])
        self.stdout.write("The database is ready.")
