"""Say which requirements of a standard the running settings meet."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser

from session_manager.conf import settings
from session_manager.management.audit import APPLICATION, NO, PROFILES, YES, Finding, audit
from session_manager.management.base import SessionCommand
from session_manager.management.tables import cell
from session_manager.store.shards import all_aliases


class Command(SessionCommand):
    # The checks say what does not work; here it is about what is required.
    requires_system_checks = []
    help = (
        "Says which requirements of NIST SP 800-63B-4 (aal1, aal2, aal3) or of OWASP ASVS 5.0.0 "
        "(asvs1, asvs2, asvs3) the settings of Django and of the server meet. Exit status: 0 none "
        "is unmet, 1 one is, 2 the server cannot be asked."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--profile", choices=PROFILES, default="asvs2", help="(asvs2)")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        profile = options["profile"]
        found = self.audit_each(profile, options["database"])
        counts = {met: sum(f.met == met for _, f in found) for met in (YES, NO, APPLICATION)}
        if options["json"]:
            report = {
                "profile": profile,
                **counts,
                "findings": [{"database": alias, **asdict(f)} for alias, f in found],
            }
            self.stdout.write(json.dumps(report, indent=2))
        else:
            self.tell(found)
        summary = (
            f"{profile}: {counts[YES]} met, {counts[NO]} unmet, {counts[APPLICATION]} left to "
            "the application"
        )
        if counts[NO]:
            raise CommandError(summary)
        if not options["json"]:
            self.stdout.write(summary)

    def audit_each(self, profile: str, given: list[str] | str | None) -> list[tuple[str, Finding]]:
        """What is found, with the alias of the database whose server said so."""
        if settings.stand_in is not None:
            raise CommandError("Sessions are in memory: there is no server to ask.", returncode=2)
        aliases = [given] if isinstance(given, str) else given
        if not aliases:
            aliases = list(all_aliases()) if settings.is_sharded else [settings.DATABASE]
        found = []
        for alias in aliases:
            try:
                with self.calls(alias):
                    found += [(alias, finding) for finding in audit(profile)]
            except CommandError as error:
                raise CommandError(f"{alias}: {error}", returncode=2) from error
        return found

    def tell(self, found: list[tuple[str, Finding]]) -> None:
        several = len({alias for alias, _ in found}) > 1
        styles = {YES: self.style.SUCCESS, NO: self.style.ERROR, APPLICATION: self.style.WARNING}
        for alias, finding in found:
            where = f"{alias}: " if several else ""
            self.stdout.write(
                where
                + styles[finding.met](finding.met.ljust(len(APPLICATION)))
                + f"  {finding.reference}: {finding.requirement}"
            )
            if finding.value is not None:
                setting = finding.setting or "by"
                self.stdout.write(f"             {setting}: {cell(finding.value)}")
            if finding.hint:
                self.stdout.write(f"             {finding.hint}")
