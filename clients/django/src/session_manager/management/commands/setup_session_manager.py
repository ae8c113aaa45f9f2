"""What the migration does in the database, for an administrator to do beforehand."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import connections

from session_manager import grants
from session_manager.conf import settings


class Command(BaseCommand):
    # It repairs what the checks find.
    requires_system_checks = []
    help = (
        "Creates the extension and its first key and lets a role use both, as a superuser. "
        "migrate does the same if it connects as one; this is for where it does not."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--database", help="alias that connects as a superuser")
        parser.add_argument("--role", help="the application's role (GRANT_ROLE)")
        parser.add_argument(
            "--print", action="store_true", help="print the SQL; connect to nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["print"]:
            role = options["role"] or settings.GRANT_ROLE or "webapp"
            for statement in grants.statements(role):
                self.stdout.write(f"{statement};")
            return
        alias = options["database"] or settings.DATABASE
        grants.install(connections[alias], options["role"])
        self.stdout.write("The database is ready.")
