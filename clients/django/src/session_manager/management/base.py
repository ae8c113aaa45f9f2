"""What the commands have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ..database import using
from ..exceptions import SessionError


class SessionCommand(BaseCommand):
    """A command that may use another database alias, an administrator's for example."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--database",
            default=None,
            help='alias to use instead of SESSION_MANAGER["DATABASE"]; the admin functions need '
            "a role with the bundle admin",
        )

    @contextmanager
    def calls(self, alias: str | None) -> Iterator[None]:
        """Calls go to the alias; errors are told as PostgreSQL tells them."""
        try:
            with using(alias):
                yield
        except SessionError as error:
            raise CommandError(str(error.__cause__ or error).strip()) from error
