"""Administer the keys that seal sessions."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser

from session_manager import administration
from session_manager.management.base import SessionCommand
from session_manager.management.tables import table


class Command(SessionCommand):
    # It repairs what the checks find.
    requires_system_checks = []
    help = (
        "Shows and changes the keys that seal sessions; never shows key material. Needs a role "
        "with the bundle admin, and for generate a superuser: see --database."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add = self.add_actions(parser)
        add("list", help="the keys and their states")
        add("generate", help="create a key in the server's key file")
        for action, what in (
            ("add", "record a key that is in the key file"),
            ("activate", "seal with this key from now on"),
            ("retire", "retire a key that no session uses"),
            ("revoke", "end every session under a key, at once and for good"),
        ):
            one = add(action, help=what)
            one.add_argument("key_id", type=int)
            if action == "revoke":
                one.add_argument("--yes", action="store_true", help="do not ask")
        reencrypt = add("reencrypt", help="re-seal all sessions with the active key")
        reencrypt.add_argument(
            "--batch", type=int, default=500, help="sessions per transaction (500)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        action = options["action"]
        if action == "generate":
            # Into one key file, which all shards have a copy of.
            with self.calls(options["database"]):
                self.stdout.write(f"Key {administration.generate_key()} has been created.")
            return
        if action == "revoke" and not options["yes"]:
            self.confirm(options["key_id"])
        self.on_each(options["database"], partial(self.carry_out, action, options))

    def carry_out(self, action: str, options: dict[str, Any]) -> None:
        if action == "reencrypt":
            self.reencrypt(options["batch"])
            return
        if action != "list":
            administration.change_key(action, options["key_id"])
        self.list()

    def list(self) -> None:
        self.stdout.write(
            table(
                ("key", "state", "available", "created", "activated", "retired", "revoked"),
                [
                    (
                        key.id,
                        key.state,
                        key.available,
                        key.created_at,
                        key.activated_at,
                        key.retired_at,
                        key.revoked_at,
                    )
                    for key in administration.list_keys()
                ],
            )
        )

    def confirm(self, key_id: int) -> None:
        answer = input(f"End every session under key {key_id}, for good? Type the key's id: ")
        if answer.strip() != str(key_id):
            raise CommandError("Nothing has been changed.")

    def reencrypt(self, batch: int) -> None:
        total = 0
        while count := administration.reencrypt(batch):
            total += count
        self.stdout.write(f"{total} sessions re-sealed.")
