"""The management commands, as the application's role and as an administrator's."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from importlib import import_module
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from session_manager.management.commands import sessions
from session_manager.management.tables import table
from session_manager.services import session_service
from session_manager.store.aliases import database_alias
from session_manager.types import CreatedSession

from .conftest import Superuser, wait_for

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


def run(*arguments: str, **options: Any) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, **options)
    return out.getvalue()


@pytest.fixture
def admin_alias(transactional_db: None) -> Iterator[str]:
    yield "admin"
    connections["admin"].close()


class TestSessions:
    def test_list(self, created: CreatedSession, user_id: str) -> None:
        ended = session_service.create(user_id)
        session_service.invalidate(ended.token)
        text = run("sessions", "list", "--user", user_id)
        assert text.splitlines()[0].split()[:3] == ["session", "user", "tenant"]
        assert str(created.id) in text
        assert str(ended.id) not in text
        assert "(1 sessions)" in text
        text = run("sessions", "list", "--user", user_id, "--all", "--limit", "1")
        assert str(ended.id) in text
        assert "(1 sessions, and more)" in text
        assert "logout" in text
        assert "(0 sessions)" in run("sessions", "list", "--tenant", uuid.uuid4().hex)

    def test_show(self, created: CreatedSession, user_id: str) -> None:
        session_service.update(created.token, {"secret": "of the session"})
        text = run("sessions", "show", str(created.id))
        for part in (user_id, "acme", "127.0.0.1", "updated", "created", "live", "yes"):
            assert part in text
        assert "secret" not in text
        with pytest.raises(CommandError, match="There is no session"):
            run("sessions", "show", str(uuid.uuid4()))

    @pytest.mark.parametrize("use_tz", [True, False])
    def test_times_are_local(
        self, created: CreatedSession, user_id: str, settings: Any, use_tz: bool
    ) -> None:
        settings.USE_TZ, settings.TIME_ZONE = use_tz, "Asia/Kathmandu"
        local = created.created_at.astimezone(ZoneInfo("Asia/Kathmandu"))
        for text in (
            run("sessions", "list", "--user", user_id),
            run("sessions", "show", str(created.id)),
        ):
            assert f"{local:%Y-%m-%d %H:%M:%S}" in text
        assert "live" in text

    def test_revoke(self, created: CreatedSession, user_id: str) -> None:
        session_service.create(user_id)
        assert "1 sessions ended" in run("sessions", "revoke", str(created.id))
        assert session_service.get(created.token) is None
        with pytest.raises(CommandError, match="is not live"):
            run("sessions", "revoke", str(created.id))
        assert "1 sessions ended" in run("sessions", "revoke", "--user", user_id)
        with pytest.raises(CommandError):
            run("sessions", "revoke")
        with pytest.raises(CommandError):
            run("sessions", "revoke", "not-an-id")

    def test_revoke_a_tenant(self, user_id: str, admin_alias: str) -> None:
        tenant = uuid.uuid4().hex
        session_service.create(user_id, tenant_id=tenant)
        with pytest.raises(CommandError, match="permission denied"):
            run("sessions", "revoke", "--tenant", tenant)
        text = run("sessions", "--database", admin_alias, "revoke", "--tenant", tenant)
        assert "1 sessions ended" in text

    def test_count(self, created: CreatedSession, user_id: str) -> None:
        assert run("sessions", "count", "--user", user_id) == "1\n"
        assert int(run("sessions", "count")) >= 1

    def test_control_characters(self, user_id: str) -> None:
        """A user agent must not move the administrator's cursor."""
        created = session_service.create(user_id, user_agent="\x1b[2Jowned\u202e")
        text = run("sessions", "show", str(created.id))
        assert "\x1b" not in text
        assert "\u202e" not in text


class TestOptions:
    """On either side of the subcommand, Django's own as well."""

    @pytest.mark.parametrize("command", ["sessions", "session_keys"])
    def test_either_side(
        self, command: str, admin_alias: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = import_module(f"session_manager.management.commands.{command}")
        seen: list[Any] = []
        monkeypatch.setattr(
            module.Command, "list", lambda self, *args: seen.append(database_alias())
        )
        run(command, "--database", admin_alias, "list")
        run(command, "list", "--database", admin_alias)
        run(command, "list", database=admin_alias)
        run(command, "--database", "nowhere", "list", "--database", admin_alias)
        run(command, "list")
        assert seen == [admin_alias] * 4 + ["default"]

    def test_djangos_own(self, created: CreatedSession) -> None:
        command = sessions.Command()
        for arguments in (["--verbosity", "3", "list"], ["list", "--verbosity", "3"], ["list"]):
            parsed = command.create_parser("manage.py", "sessions").parse_args(arguments)
            assert parsed.verbosity == (3 if "--verbosity" in arguments else 1)
            assert parsed.settings is None
        text = run("sessions", "list", "--no-color", "--skip-checks", "--traceback")
        assert str(created.id) in text


class TestKeys:
    def test_needs_an_administrator(self) -> None:
        with pytest.raises(CommandError, match="permission denied"):
            run("session_keys", "list")

    def test_life(
        self, admin_alias: str, created: CreatedSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def keys(*arguments: str) -> str:
            return run("session_keys", "--database", admin_alias, *arguments)

        text = keys("generate")
        key = text.split()[1]
        assert " active " in keys("list")
        assert "active" in keys("activate", key)
        # The key verifies its token until it is refreshed, whoever re-seals it meanwhile.
        later = session_service.create("later")
        assert "sessions re-sealed" in keys("reencrypt", "--batch", "10")
        assert session_service.get(created.token) is not None
        other = keys("generate").split()[1]
        keys("activate", other)
        monkeypatch.setattr("builtins.input", lambda prompt: "no")
        with pytest.raises(CommandError, match="Nothing has been changed"):
            keys("revoke", key)
        assert session_service.get(later.token) is not None
        assert "revoked" in keys("revoke", key, "--yes")
        assert session_service.get(later.token) is None
        with pytest.raises(CommandError):
            keys("activate", key)
        with pytest.raises(CommandError, match=r"4711"):
            keys("activate", "4711")


class TestCleanup:
    def expire_thirty(self, superuser: Any, user_id: str) -> None:
        for _ in range(30):
            session_service.create(user_id)
        superuser.execute(
            "UPDATE user_sessions SET expires_at = now() - interval '1h',"
            " sweep_at = now() - interval '1h' WHERE user_id = %s",
            [user_id],
        )

    @pytest.fixture
    def dead(self, superuser: Any, user_id: str) -> str:
        """The user of thirty sessions that expired."""
        self.expire_thirty(superuser, user_id)
        return user_id

    def rows(self, user_id: str) -> int:
        from session_manager.models import UserSession

        return UserSession.objects.for_user(user_id).count()

    def test_cleanup(self, dead: str, superuser: Any) -> None:
        # The server's own sweep passes over rows that somebody has locked.
        with Superuser() as holder:
            holder.execute("BEGIN")
            holder.execute("SELECT FROM user_sessions WHERE user_id = %s FOR UPDATE", [dead])
            before = self.rows(dead)
            text = run("cleanup_sessions", dry_run=True)
            assert "Nothing has been changed" in text
            assert int(text.split()[0]) >= before
            assert self.rows(dead) == before

        # Without the lock the server may delete them before the command does.
        def met_some() -> bool:
            self.expire_thirty(superuser, dead)
            text = run("cleanup_sessions", batch=7, verbosity=2)
            assert "sessions deleted" in text
            return "batch 1: " in text

        wait_for(met_some)
        live = session_service.create(dead)
        # The server's sweep may hold some of them, which the command passes over.
        wait_for(lambda: run("cleanup_sessions").startswith("0 sessions deleted"))
        wait_for(lambda: self.rows(dead) == 1)
        assert session_service.get(live.token) is not None

    def test_max_batches(self, dead: str) -> None:
        # What is left may be gone at once: the server sweeps, too.
        assert int(run("cleanup_sessions", batch=1, max_batches=1).split()[0]) <= 1
        for wrong in ({"batch": 0}, {"max_batches": -1}):
            with pytest.raises(CommandError):
                run("cleanup_sessions", **wrong)


def test_table() -> None:
    assert table(("a", "long heading"), [("x", None), ("y" * 50, True)], limit=10) == (
        "a           long heading\n----------  ------------\nx           -\nyyyyyyyyy…  yes"
    )
    assert table(("a", "b"), []) == "a  b\n-  -"
