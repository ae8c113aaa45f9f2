"""End the sessions of users who are gone, not active, or have another password."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db.models import Count

from session_manager.conf import settings
from session_manager.management.base import SessionCommand, user_sessions
from session_manager.management.progress import Progress
from session_manager.management.user_check import Finding, find_orphans
from session_manager.services import session_service
from session_manager.store.aliases import chosen_alias
from session_manager.store.shards import all_aliases, bucket_of_user, home_of
from session_manager.store.users import GUEST, knows_users


def _is_at_home(user_id: str) -> bool:
    """Whether it is this shard that has a user, and not one that the user has moved to."""
    alias = chosen_alias()
    return alias not in all_aliases() or home_of(bucket_of_user(user_id)) == alias


class Command(SessionCommand):
    help = (
        "Ends the sessions of users who have been deleted or deactivated, and sessions that were "
        "made before their user's password was changed. The signals of the user model do this at "
        "once; this command finds what QuerySet.update(), bulk_update(), fixtures or SQL changed. "
        "Run it every night. Reads the sessions by the bundle reader."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--batch", type=int, default=1000, help="users read at a time (1000)")
        parser.add_argument("--dry-run", action="store_true", help="count, and end nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["batch"] < 1:
            raise CommandError("--batch must be at least 1.")
        if not (knows_users() or settings.USER_LOADER):
            raise CommandError(
                'Sessions have no users that could be looked up: SESSION_MANAGER["USER_ID_FIELD"] '
                "is not set."
            )
        self.dry_run: bool = options["dry_run"]
        self.verbose: bool = options["verbosity"] > 1
        self.on_each(options["database"], partial(self.check_users, options["batch"]))

    def check_users(self, batch: int) -> None:
        counts: dict[str, int] = {}
        total = self.live().aggregate(n=Count("user_id", distinct=True))["n"]
        with Progress(total, "users", self.stderr.write) as progress:
            for user_ids in self.batches(batch):
                for finding in find_orphans([one for one in user_ids if _is_at_home(one)]):
                    ended = self.end(finding)
                    counts[finding.reason] = counts.get(finding.reason, 0) + ended
                    if self.verbose and ended:
                        with progress.aside():
                            self.stdout.write(f"{finding.user_id}  {finding.reason}  {ended}")
                progress.advance(len(user_ids))
        verb = "would end" if self.dry_run else "ended"
        self.stdout.write(
            f"{total} users with live sessions, {sum(counts.values())} sessions {verb}"
            + "".join(f"\n{count:>8}  {reason}" for reason, count in sorted(counts.items()))
        )

    def live(self) -> Any:
        sessions = user_sessions().active().order_by()
        return sessions.exclude(user_id__startswith=GUEST)

    def batches(self, size: int) -> Iterator[list[str]]:
        """The ids of the users who have live sessions."""
        last = ""
        while True:
            found = list(
                self.live()
                .filter(user_id__gt=last)
                .order_by("user_id")
                .values_list("user_id", flat=True)
                .distinct()[:size]
            )
            if not found:
                return
            yield found
            last = found[-1]

    def end(self, finding: Finding) -> int:
        """How many sessions end, or would."""
        if finding.session_id is not None:
            if self.dry_run:
                return 1
            return int(
                session_service.invalidate_id(finding.session_id, finding.user_id, finding.reason)
            )
        if self.dry_run:
            return session_service.count_active(user_id=finding.user_id)
        return session_service.invalidate_all(finding.user_id, reason=finding.reason)
