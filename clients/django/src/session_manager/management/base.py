"""What the commands have in common."""

from __future__ import annotations

from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from ..conf import settings
from ..exceptions import SessionError
from ..store.aliases import using
from ..store.database import sqlstate
from .grants import command

INSUFFICIENT_PRIVILEGE = "42501"


class SessionCommand(BaseCommand):
    """A command that may use another database alias, an administrator's for example."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        self.common: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_base_argument(self, parser: CommandParser, *args: Any, **kwargs: Any) -> None:
        self.common.append((args, kwargs))
        super().add_base_argument(parser, *args, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_base_argument(
            parser,
            "--database",
            default=None,
            help='alias to use instead of SESSION_MANAGER["DATABASE"]; administrative '
            "functions need a role with the bundle admin",
        )

    def add_actions(self, parser: CommandParser) -> Callable[..., CommandParser]:
        """A function that adds a subcommand, behind which the common options may stand as well."""
        actions = parser.add_subparsers(dest="action", required=True)
        common = [*self.common]
        if self.requires_system_checks:
            # Which Django adds by itself.
            common.append((("--skip-checks",), {"action": "store_true"}))

        def add(name: str, **kwargs: Any) -> CommandParser:
            one = actions.add_parser(name, **kwargs)
            for names, options in common:
                # Without a default, which would take the place of what stands before it.  The
                # command's own help has them.
                one.add_argument(*names, **{**options, "default": SUPPRESS, "help": SUPPRESS})
            return one

        return add

    @contextmanager
    def calls(self, alias: str | None) -> Iterator[None]:
        """Calls go to the alias; errors are told as PostgreSQL tells them."""
        try:
            with using(alias):
                yield
        except SessionError as error:
            raise CommandError(str(error.__cause__ or error).strip()) from error
        except DatabaseError as error:
            # The models' tables, without the bundle reader.
            if sqlstate(error) != INSUFFICIENT_PRIVILEGE:
                raise
            repair = command(alias or settings.DATABASE)
            raise CommandError(f"{error}".strip() + f"\nRun: {repair}") from error
