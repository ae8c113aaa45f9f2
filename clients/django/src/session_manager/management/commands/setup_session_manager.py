"""What the migration does in the database, for an administrator to do beforehand."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from session_manager.management import grants, installation, test_databases
from session_manager.store.shards import all_aliases


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
        aliases = all_aliases() if options["database"] is None else [options["database"]]
        if len(aliases) == 1:
            self.set_up(aliases[0], options)
        elif options["print"]:
            raise CommandError(f"Name one with --database: {', '.join(aliases)}.")
        else:
            for alias in aliases:
                self.stdout.write(f"{alias}: ", ending="")
                self.set_up(alias, options)

    def set_up(self, alias: str, options: dict[str, Any]) -> None:
        if connections[alias].vendor != "postgresql":
            raise CommandError(f"The database {alias!r} is not PostgreSQL.")
        if options["print"] or options["template"]:
            role = options["role"] or grants.default_role(alias)
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
