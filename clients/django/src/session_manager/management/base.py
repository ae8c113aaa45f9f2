"""What the commands have in common."""

from __future__ import annotations

from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from ..conf import settings
from ..exceptions import SessionError, ShardsUnreachable
from ..models import UserSession, UserSessionQuerySet
from ..store.aliases import chosen_alias, database_alias, using
from ..store.database import is_lost, sqlstate
from ..store.fan_out import each_shard
from ..store.shards import all_aliases
from .grants import command

INSUFFICIENT_PRIVILEGE = "42501"


def _given(aliases: str | list[str] | None) -> list[str]:
    """From a command line, or from call_command()."""
    return [aliases] if isinstance(aliases, str) else aliases or []


def user_sessions() -> UserSessionQuerySet:
    """The sessions of the database that calls go to; with SHARDS else of whom a filter names."""
    if settings.is_sharded and chosen_alias() is None:
        return UserSession.objects.all()
    return UserSession.objects.using(database_alias())


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
            action="append",
            help='alias to use instead of SESSION_MANAGER["DATABASE"]; administrative '
            "functions need a role with the bundle admin. With SHARDS once for each of them, "
            "unless a user or a session says which is meant",
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

    def on_each(self, given: str | list[str] | None, work: Callable[[], None]) -> None:
        """Do work on each alias that is given, else on each shard, whatever becomes of the others.

        Each is named before what it has to say, and at the end those that have failed.
        """
        aliases = _given(given)
        failed: dict[str, Any] = {}
        if len(aliases) > 1:
            for alias in aliases:
                try:
                    with using(alias):
                        self._visit(work)
                except SessionError as error:
                    failed[alias] = error
        elif not aliases and len(all_aliases()) > 1:
            try:
                each_shard(partial(self._visit, work))
            except ShardsUnreachable as error:
                failed.update(error.failed)
        else:
            with self.calls(aliases):
                work()
        if failed:
            reasons = [f"{alias}: {error}" for alias, error in failed.items()]
            raise CommandError("Not done everywhere; run it again for\n" + "\n".join(reasons))

    def _visit(self, work: Callable[[], None]) -> None:
        """Do work on one of several aliases, that of ``using``."""
        alias = chosen_alias()
        self.stdout.write(f"{alias}:")
        try:
            with self.calls(alias):
                work()
        except CommandError as error:
            self.stdout.write("  failed")
            raise SessionError(str(error)) from error

    @contextmanager
    def calls(self, given: str | list[str] | None) -> Iterator[None]:
        """Calls go to the alias that is given, else to where a user's or a session's do.

        Errors are told as PostgreSQL tells them.
        """
        aliases = _given(given)
        if len(aliases) > 1:
            raise CommandError("Here --database can be given once.")
        alias = aliases[0] if aliases else None
        try:
            with using(alias):
                yield
        except SessionError as error:
            raise CommandError(str(error.__cause__ or error).strip()) from error
        except Error as error:
            # Of what is asked by the models.
            if is_lost(error):
                raise CommandError(str(error).strip()) from error
            if sqlstate(error) != INSUFFICIENT_PRIVILEGE:
                raise
            # The tables, without the bundle reader.
            repair = command(alias or all_aliases()[0])
            raise CommandError(f"{error}".strip() + f"\nRun: {repair}") from error
