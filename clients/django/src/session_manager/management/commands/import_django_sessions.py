"""Note the sessions of django.contrib.sessions that are to be taken over."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from session_manager.conf import settings
from session_manager.importing import note, owners

STORES = ("django.contrib.sessions.backends.db", "django.contrib.sessions.backends.cached_db")


class Command(BaseCommand):
    help = (
        "Notes which live sessions of django.contrib.sessions belong to known, active users. Each "
        "becomes a session of session_manager on its next request, while IMPORT_DJANGO_SESSIONS "
        "is on. Can be run again at any time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--batch", type=int, default=500, help="rows read at a time (500)")
        parser.add_argument("--dry-run", action="store_true", help="count, and note nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        if django_settings.SESSION_ENGINE not in STORES:
            raise CommandError(
                f"Sessions in {django_settings.SESSION_ENGINE} cannot be listed; only those in a "
                "database can."
            )
        if options["batch"] < 1:
            raise CommandError("--batch must be at least 1.")
        from django.contrib.sessions.models import Session

        noted = known = others = 0
        last = ""
        while True:
            rows = list(
                Session.objects.filter(
                    expire_date__gt=timezone.now(), session_key__gt=last
                ).order_by("session_key")[: options["batch"]]
            )
            if not rows:
                break
            last = rows[-1].session_key
            for row, user in zip(rows, owners([r.get_decoded() for r in rows]), strict=True):
                if user is None:
                    others += 1
                elif options["dry_run"] or note(row.session_key, user, row.expire_date):
                    noted += 1
                else:
                    known += 1
            if options["verbosity"] > 1:
                self.stdout.write(f"{noted + known + others} sessions read")
        verb = "would be noted" if options["dry_run"] else "noted"
        self.stdout.write(
            f"{noted} sessions {verb}, {known} noted before, {others} left out: nobody is logged "
            "in, or the login does not hold any more."
        )
        if not settings.IMPORT_DJANGO_SESSIONS:
            self.stdout.write(
                'They are taken over once SESSION_MANAGER["IMPORT_DJANGO_SESSIONS"] is True.'
            )
