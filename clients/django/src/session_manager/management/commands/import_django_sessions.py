"""Note the sessions of django.contrib.sessions that are to be taken over."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.conf import settings as django_settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from session_manager.conf import ENGINE, settings
from session_manager.http import importing
from session_manager.management.progress import Progress


class Command(BaseCommand):
    help = (
        "Records which live sessions of django.contrib.sessions belong to known, active users. "
        "Each becomes a session of session_manager on its next request, while "
        "IMPORT_DJANGO_SESSIONS is on. Can be run again at any time: recorded sessions are not "
        "recorded again. Sessions that cannot be imported are named by the beginning of the "
        "SHA-256 of their key; with --verbosity 2 so are those that are left out for other "
        "reasons."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch", type=int, default=1000, help="rows read and recorded at a time (1000)"
        )
        parser.add_argument(
            "--after",
            default="",
            metavar="POSITION",
            help="continue where an interrupted run stopped; it printed this position",
        )
        parser.add_argument("--dry-run", action="store_true", help="count, and record nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        if django_settings.SESSION_ENGINE not in (*importing.STORES, ENGINE):
            raise CommandError(
                f"Sessions in {django_settings.SESSION_ENGINE} cannot be listed; only those in a "
                "database can."
            )
        if options["batch"] < 1:
            raise CommandError("--batch must be at least 1.")
        self.dry_run: bool = options["dry_run"]
        self.verbose: bool = options["verbosity"] > 1
        self.position: str = options["after"]
        self.noted = self.known = 0
        self.left_out: Counter[str] = Counter()
        try:
            self.read_all(options["batch"])
        except KeyboardInterrupt:
            self.summarize()
            raise CommandError(f"Interrupted. {self.how_to_go_on()}", returncode=130) from None
        except BaseException:
            self.stderr.write(self.how_to_go_on())
            raise
        self.summarize()
        if not settings.IMPORT_DJANGO_SESSIONS:
            self.stdout.write(
                'They are taken over once SESSION_MANAGER["IMPORT_DJANGO_SESSIONS"] is True.'
            )

    def read_all(self, batch: int) -> None:
        from django.contrib.sessions.models import Session

        now = timezone.now()
        rows = Session.objects.filter(session_key__gt=self.position).order_by("session_key")
        expired = rows.filter(expire_date__lte=now)
        if not self.verbose:
            rows = rows.filter(expire_date__gt=now)
            self.left_out[importing.EXPIRED] = expired.count()
        with Progress(rows.count(), "sessions", self.stderr.write) as progress:
            last = self.position
            while found := list(rows.filter(session_key__gt=last)[:batch]):
                self.take(found, now, progress)
                last = found[-1].session_key
                # Not the whole key, which is as good as a cookie.  Rows that begin like it are
                # read twice, which does no harm.
                self.position = last[: len(last) // 4]
                progress.advance(len(found))

    def take(self, rows: list[Any], now: Any, progress: Progress) -> None:
        """Note one batch, whole or not at all."""
        decoded = [importing.decode_session_data(row.session_data) for row in rows]
        problems: dict[str, str] = {}
        good = []
        for row, data, login in zip(rows, decoded, importing.find_logins(decoded), strict=True):
            if row.expire_date <= now:
                problems[row.session_key] = importing.EXPIRED
            elif login.problem:
                problems[row.session_key] = login.problem
            else:
                good.append((row, login.user, data or {}))
        checked = importing.check_data([(user, data) for _, user, data in good])
        found = []
        for (row, user, _), problem in zip(good, checked, strict=True):
            if problem:
                problems[row.session_key] = problem
            else:
                found.append((row.session_key, user, row.expire_date))
        fresh = importing.mark_importable(found, dry_run=self.dry_run)
        self.noted += fresh
        self.known += len(found) - fresh
        self.left_out.update(problems.values())
        with progress.aside():
            for key, problem in sorted(problems.items()):
                if self.verbose or problem not in importing.ORDINARY:
                    self.stdout.write(f"{importing.key_hash(key).hex()[:16]}  {problem}")

    def summarize(self) -> None:
        verb = "would be recorded" if self.dry_run else "recorded"
        self.stdout.write(
            f"{self.noted} sessions {verb}, {self.known} recorded before, "
            f"{self.left_out.total()} left out"
            + "".join(f"\n{count:>8}  {problem}" for problem, count in self.reasons())
        )

    def reasons(self) -> list[tuple[str, int]]:
        return [(problem, count) for problem, count in self.left_out.most_common() if count]

    def how_to_go_on(self) -> str:
        if not self.position:
            return "Nothing had been read; run it again."
        return f"To continue: manage.py import_django_sessions --after {self.position}"
