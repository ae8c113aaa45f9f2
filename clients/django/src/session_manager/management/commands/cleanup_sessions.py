"""Delete dead sessions and maintain the audit trail."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections
from django.db.models import F, Func, Q
from django.db.models.functions import Now

from session_manager import administration
from session_manager.management.base import SessionCommand, user_sessions
from session_manager.models import IdleDeadline
from session_manager.store.aliases import database_alias


class Command(SessionCommand):
    help = (
        "Deletes ended sessions batch by batch, each batch in a transaction of its own, and "
        "maintains the partitions of the audit trail. Unnecessary but harmless if the "
        "extension is preloaded, because its worker does the same."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--batch", type=int, help="sessions per transaction (session_manager.sweep_batch)"
        )
        parser.add_argument(
            "--max-batches", type=int, help="stop after this many batches (no limit)"
        )
        parser.add_argument(
            "--pause", type=float, default=0.0, help="seconds to wait between batches (0)"
        )
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="count the sessions that are due, and change nothing",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for name in ("batch", "max_batches"):
            if options[name] is not None and options[name] < 1:
                raise CommandError(f"--{name.replace('_', '-')} must be at least 1.")
        work: Callable[[], None] = self.count
        if not options["dry_run"]:
            limits = options["batch"], options["max_batches"], options["pause"]
            work = partial(self.clean, *limits)
        self.on_each(options["database"], work)

    def count(self) -> None:
        sessions = user_sessions().alias(
            idle_deadline=IdleDeadline(F("last_seen_at")), kept_until=RetainedUntil("revoked_at")
        )
        over = Q(expires_at__lte=Now()) | Q(absolute_expires_at__lte=Now())
        unrevoked = sessions.filter(revoked_at__isnull=True)
        expired = unrevoked.filter(over).count()
        idle = unrevoked.exclude(over).filter(idle_deadline__lte=Now()).count()
        revoked = sessions.filter(over, kept_until__lte=Now()).count()
        self.stdout.write(
            f"{expired + idle + revoked} sessions are due: {expired} expired, {idle} idle, "
            f"{revoked} revoked. Nothing has been changed."
        )

    def clean(self, batch: int | None, max_batches: int | None, pause: float) -> None:
        started = time.monotonic()
        deleted = requeued = events = made = dropped = batches = 0
        tty = self.stdout.isatty()
        while max_batches is None or batches < max_batches:
            done = administration.cleanup(batch, 1)
            batches += 1
            deleted += done.sessions_deleted
            requeued += done.sessions_requeued
            events += done.events_dropped
            made += done.partitions_created
            dropped += done.partitions_dropped
            if not (
                done.sessions_deleted
                or done.sessions_requeued
                or done.events_dropped
                or done.events_moved
            ):
                break
            if self.verbosity > 1 or tty:
                self.stdout.write(
                    f"batch {batches}: {deleted} deleted, {requeued} put back",
                    ending="\r" if tty else "\n",
                )
            time.sleep(pause)
        seconds = time.monotonic() - started
        self.stdout.write(
            f"{deleted} sessions deleted, {requeued} put back, {events} events dropped, "
            f"{made} partitions made and {dropped} dropped in {seconds:.1f} s."
        )
        connections[database_alias()].close_if_unusable_or_obsolete()

    def execute(self, *args: Any, **options: Any) -> str | None:
        self.verbosity: int = options["verbosity"]
        return super().execute(*args, **options)


class RetainedUntil(Func):
    """Until when the row of a session that was revoked is kept at least."""

    template = (
        "%(expressions)s + COALESCE(NULLIF("
        "current_setting('session_manager.revoked_retention', true), ''), '0')::interval"
    )
