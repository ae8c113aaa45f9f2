"""List, show, revoke and count sessions."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser

from session_manager import administration
from session_manager.management.base import SessionCommand, user_sessions
from session_manager.management.tables import cell, table
from session_manager.services import session_service


def session_id(text: str) -> uuid.UUID:
    return uuid.UUID(text)


class Command(SessionCommand):
    help = "Lists, shows, revokes and counts sessions."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add = self.add_actions(parser)

        listing = add("list", help="newest first")
        listing.add_argument("--user", help="only of this session user id")
        listing.add_argument("--tenant", help="only of this tenant")
        listing.add_argument("--all", action="store_true", help="include ended sessions")
        listing.add_argument("--limit", type=int, default=50)

        show = add("show", help="one session and its history")
        show.add_argument("id", type=session_id)

        revoke = add("revoke", help="end one session, or all of a user or tenant")
        which = revoke.add_mutually_exclusive_group(required=True)
        which.add_argument("id", nargs="?", type=session_id)
        which.add_argument("--user", help="all sessions of this session user id")
        which.add_argument("--tenant", help="all sessions of this tenant (bundle admin)")
        revoke.add_argument("--reason", default="admin", help="for the audit trail (admin)")

        count = add("count", help="the exact number of live sessions")
        count.add_argument("--user")
        count.add_argument("--tenant")

    def handle(self, *args: Any, **options: Any) -> None:
        action = getattr(self, options["action"])
        if options.get("id") is None and options.get("user") is None:
            self.on_each(options["database"], partial(action, options))
        else:
            with self.calls(options["database"]):
                action(options)

    def list(self, options: dict[str, Any]) -> None:
        if options["limit"] < 1:
            raise CommandError("--limit must be at least 1.")
        sessions = user_sessions().all()
        if not options["all"]:
            sessions = sessions.active()
        if options["user"]:
            sessions = sessions.filter(user_id=options["user"])
        if options["tenant"]:
            sessions = sessions.filter(tenant_id=options["tenant"])
        rows = list(sessions[: options["limit"] + 1])
        self.stdout.write(
            table(
                ("session", "user", "tenant", "address", "created", "last seen", "ended"),
                [
                    (
                        row.session_id,
                        row.user_id,
                        row.tenant_id,
                        row.ip,
                        row.created_at,
                        row.last_seen_at,
                        row.revoked_reason,
                    )
                    for row in rows[: options["limit"]]
                ],
            )
        )
        more = len(rows) > options["limit"]
        self.stdout.write(
            f"({min(len(rows), options['limit'])} sessions{', and more' if more else ''})"
        )

    def show(self, options: dict[str, Any]) -> None:
        row = user_sessions().filter(session_id=options["id"]).first()
        events = session_service.history(session_id=options["id"])
        if row is None and not events:
            raise CommandError(f"There is no session {options['id']}.")
        if row is not None:
            names = [field.name for field in row._meta.concrete_fields]
            width = max(map(len, names))
            for name in names:
                self.stdout.write(f"{name.ljust(width)}  {cell(getattr(row, name))}")
            live = user_sessions().active().filter(pk=row.pk).exists()
            self.stdout.write(f"{'live'.ljust(width)}  {cell(live)}")
            self.stdout.write("")
        self.stdout.write(
            table(
                ("time", "event", "severity", "address", "user agent", "detail"),
                [(e.at, e.event, e.severity, e.ip, e.user_agent, e.detail) for e in events],
            )
        )

    def revoke(self, options: dict[str, Any]) -> None:
        reason = options["reason"]
        if options["id"] is not None:
            if not session_service.invalidate_id(options["id"], reason=reason):
                raise CommandError(f"Session {options['id']} is not live.")
            count = 1
        elif options["user"] is not None:
            count = session_service.invalidate_all(options["user"], reason=reason)
        else:
            count = administration.invalidate_tenant(options["tenant"], reason)
        self.stdout.write(f"{count} sessions ended.")

    def count(self, options: dict[str, Any]) -> None:
        count = session_service.count_active(tenant_id=options["tenant"], user_id=options["user"])
        self.stdout.write(str(count))
