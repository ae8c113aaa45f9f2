"""The stand-in for the extension: transactions, limits, and that it is for tests alone.

What it answers is tested beside the extension, by the tests that use ``backend``.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
import unittest
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.test import TestCase

from session_manager import administration
from session_manager.checks import check_servers, check_settings
from session_manager.exceptions import InvalidArgument, LimitReached, TooLarge
from session_manager.services import session_service
from session_manager.store.database import call
from session_manager.store.tokens import digest_form
from session_manager.testing import flush_sessions
from session_manager.types import CreatedSession

from .conftest import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
both = pytest.mark.usefixtures("backend")

Change = Callable[[str, str], None]


def count(user_id: str) -> tuple[int, int]:
    return session_service.count_active(user_id=user_id), len(
        session_service.history(user_id=user_id)
    )


@both
class TestTransactions:
    def test_rolled_back(self, user_id: str) -> None:
        kept = session_service.create(user_id, {"v": 1})
        before = session_service.history(user_id=user_id)
        with transaction.atomic():
            session_service.update(kept.token, {"v": 2})
            rotated = session_service.refresh(kept.token, rotate=True)
            session_service.create(user_id)
            session_service.invalidate(rotated.token)
            assert count(user_id) == (1, 5)
            transaction.set_rollback(True)
        session = session_service.get(kept.token)
        assert session is not None
        assert (session.data, session.version) == ({"v": 1}, 1)
        assert session_service.get(rotated.token) is None
        assert session_service.history(user_id=user_id)[-1:] == before

    def test_savepoints(self, user_id: str) -> None:
        with transaction.atomic():
            first = session_service.create(user_id)
            with transaction.atomic():
                session_service.invalidate(first.token)
                with transaction.atomic():
                    session_service.create(user_id)
                assert count(user_id)[0] == 1
                transaction.set_rollback(True)
            assert session_service.get(first.token) is not None
            assert count(user_id) == (1, 1)
            with transaction.atomic():
                session_service.create(user_id)
        assert count(user_id) == (2, 2)

    def test_a_test_case(self, user_id: str) -> None:
        """Also where a test calls what would be called after the commit."""

        class Case(TestCase):
            databases = {"default"}

            def test(self) -> None:
                with self.captureOnCommitCallbacks(execute=True):
                    session_service.create(user_id)
                assert count(user_id) == (1, 1)

        run_case(Case("test"))
        assert count(user_id) == (0, 0)

    def test_the_identity_ends_with_the_transaction(self, user_id: str) -> None:
        token = session_service.create(user_id, tenant_id="acme").token
        with transaction.atomic():
            assert session_service.bind(token)
            with transaction.atomic():
                assert not session_service.bind("sm1_" + "A" * 64)
                assert bound() is None
                transaction.set_rollback(True)
            assert bound() == user_id
        assert bound() is None
        assert session_service.bind(token)
        assert bound() is None


def run_case(case: TestCase) -> None:
    result = unittest.TestResult()
    unittest.TestSuite([case]).run(result)
    assert result.testsRun == 1
    assert result.errors == result.failures == []


def bound() -> Any:
    return call("SELECT session_user_id() AS id")[0]["id"]


@both
class TestLife:
    def test_expires(self, user_id: str) -> None:
        token = session_service.create(user_id, ttl=timedelta(seconds=1)).token
        wait_for(lambda: session_service.get(token) is None)
        assert session_service.refresh(token).status == "ended"
        assert session_service.update(token, {}) is None
        assert session_service.list(user_id) == []

    def test_no_refresh_moves_the_end(self, user_id: str) -> None:
        created = session_service.create(user_id, max_lifetime=timedelta(minutes=5))
        assert created.expires_at == created.absolute_expires_at
        refreshed = session_service.refresh(created.token, ttl=timedelta(days=1))
        assert refreshed.expires_at == created.absolute_expires_at
        shorter = session_service.refresh(created.token, ttl=timedelta(minutes=1))
        assert shorter.expires_at is not None
        assert shorter.expires_at < created.absolute_expires_at

    def test_idle(self, user_id: str, database_setting: Change) -> None:
        created = session_service.create(user_id)
        database_setting("idle_timeout", "1")
        wait_for(lambda: session_service.get(created.token, touch=False) is None)
        assert session_service.refresh(created.token).status == "ended"
        assert session_service.count_active(user_id=user_id) == 0

    def test_a_lost_answer_and_a_replay(self, user_id: str, database_setting: Change) -> None:
        database_setting("rotation_grace", "0")
        token = session_service.create(user_id).token
        lost = session_service.refresh(token, rotate=True)
        again = session_service.refresh(token)
        assert (again.status, again.token is None) == ("rotated", False)
        assert session_service.get(lost.token) is None
        assert session_service.get(again.token) is not None
        assert session_service.get(token) is None
        assert session_service.refresh(token).status == "reused"
        assert session_service.end_reason(again.token) == "token_reused"
        events = [e.event for e in session_service.history(user_id=user_id)]
        assert events[:2] == ["invalidated", "token_reused"]

    def test_an_elevation_has_no_second_chance(self, created: CreatedSession) -> None:
        elevated = session_service.elevate(created.token, {"amr": ["otp"]})
        assert session_service.refresh(created.token).status == "ended"
        assert session_service.refresh(elevated.token).status == "extended"

    def test_the_limit(self, user_id: str, database_setting: Change) -> None:
        database_setting("max_sessions_per_user", "2")
        tokens = [session_service.create(user_id).token for _ in range(3)]
        assert [session_service.get(token) is not None for token in tokens] == [False, True, True]
        assert session_service.end_reason(tokens[0]) == "evicted"
        database_setting("on_limit", "deny")
        with pytest.raises(LimitReached) as caught:
            session_service.create(user_id)
        assert len(caught.value.sessions) == 2

    def test_client_binding(self, user_id: str, database_setting: Change) -> None:
        database_setting("client_binding", "strict")
        token = session_service.create(user_id, ip="203.0.113.7").token
        assert session_service.get(token, ip="::ffff:203.0.113.9") is not None
        assert session_service.get(token, ip="198.51.100.1") is None
        assert session_service.get(token) is None
        database_setting("client_binding", "log")
        assert session_service.get(token, ip="198.51.100.1") is not None
        (listed,) = session_service.list(user_id)
        assert listed.ip == "198.51.100.1"

    def test_what_is_refused(self, user_id: str) -> None:
        user_ids = (f"{user_id}|{n}" for n in itertools.count())

        def within_a_second() -> bool:
            """So that they are joined."""
            nonlocal user_id
            user_id = next(user_ids)
            token = session_service.create(user_id, {"a": 1}).token
            guess = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
            began = time.monotonic()
            for _ in range(3):
                assert session_service.get(guess) is None
            return time.monotonic() - began < 1

        wait_for(within_a_second, 60)
        events = session_service.history(user_id=user_id)
        assert [(e.event, e.severity) for e in events] == [
            ("rejected", "warning"),
            ("created", "info"),
        ]
        assert events[0].detail == {"cause": "mismatch", "suppressed": 0}

    def test_arguments(self, user_id: str) -> None:
        token = session_service.create(user_id).token
        refused: list[Callable[[], Any]] = [
            lambda: session_service.invalidate(token, reason=""),
            lambda: session_service.invalidate(token, reason="x" * 65),
            lambda: session_service.list(user_id, max_rows=0),
            lambda: session_service.list(user_id, after="nonsense"),
            lambda: session_service.history(max_rows=10001),
            lambda: session_service.refresh(token, ttl=timedelta(0)),
            lambda: session_service.switch_tenant(token, ""),
            lambda: session_service.invalidate_all(""),
        ]
        for function in refused:
            with pytest.raises(InvalidArgument):
                function()

    def test_sizes(self, user_id: str) -> None:
        token = session_service.create(user_id, {"a": "x" * 60000}).token
        with pytest.raises(TooLarge):
            session_service.update(token, {"b": "x" * 6000})
        assert session_service.update_user(user_id, {"b": "x" * 60000}) == 1
        session = session_service.get(token)
        assert session is not None
        assert len(session.data["b"]) == 60000
        # It may shrink, but not grow.
        assert session_service.update(token, {"b": "x" * 59000}) is not None
        with pytest.raises(TooLarge):
            session_service.update(token, {"b": "x" * 60000})

    def test_what_changes_nothing(self, user_id: str) -> None:
        token = session_service.create(user_id, {"a": 1, "b": {"c": [True]}}).token
        for patch, version in (
            ({"a": 1.0}, 1),
            ({"b": {"c": [True], "d": None}}, 1),
            ({"a": True}, 2),
        ):
            updated = session_service.update(token, patch)
            assert updated is not None
            assert updated.version == version

    @pytest.mark.django_db(transaction=True, databases="__all__")
    def test_administration(self, user_id: str, configure: Any) -> None:
        configure(DATABASE="admin")
        for tenant in ("acme", "globex", None):
            session_service.create(user_id, tenant_id=tenant and f"{tenant} {user_id}")
        assert administration.invalidate_tenant(f"acme {user_id}") == 1
        assert session_service.count_active(user_id=user_id) == 2
        assert administration.erase(user_id) == 3
        assert session_service.history(user_id=user_id) == []


CREATE = (
    "SELECT session_id, session_token, absolute_expires_at AT TIME ZONE 'UTC' AS ends, new_device"
    " FROM session_create(%s, ip => %s::inet, user_agent => %s, max_lifetime => %s::interval,"
    " idle_timeout => %s::interval, actor_token => %s)"
)


def make(
    user_id: str,
    ip: str | None = None,
    user_agent: str | None = None,
    max_lifetime: timedelta | None = None,
    idle_timeout: timedelta | None = None,
    actor_token: str | None = None,
) -> Any:
    values = [user_id, ip, user_agent, max_lifetime, idle_timeout, digest_form(actor_token)]
    return call(CREATE, values, savepoint=True)[0]


def events(user_id: str) -> list[tuple[str, Any]]:
    return [(e.event, e.detail) for e in session_service.history(user_id=user_id)]


@both
class TestByItsOwn:
    """What one session has of its own: an idle timeout, an actor, a device."""

    def test_idle_timeout(self, user_id: str) -> None:
        token = make(user_id, idle_timeout=timedelta(seconds=1))["session_token"]
        (row,) = call("SELECT idle_timeout FROM session_list(%s)", [user_id])
        assert row["idle_timeout"] == timedelta(seconds=1)
        wait_for(lambda: session_service.get(token, touch=False) is None)
        for wrong in (timedelta(0), timedelta(days=8)):
            with pytest.raises(InvalidArgument):
                make(user_id, idle_timeout=wrong)

    def test_an_actor(self, user_id: str) -> None:
        staff = f"{user_id} of the staff"
        own = make(staff, max_lifetime=timedelta(hours=1))
        acting = make(user_id, actor_token=own["session_token"])
        assert acting["ends"] <= own["ends"]
        session = session_service.get(acting["session_token"])
        assert session
        assert session.actor == staff
        assert events(user_id) == [("created", {"actor": staff})]
        assert events(staff)[0] == ("impersonated", {"session_id": str(acting["session_id"])})
        switched = session_service.switch_tenant(acting["session_token"], "acme")
        (row,) = call("SELECT actor_id FROM session_list(%s)", [user_id])
        assert row["actor_id"] == staff
        assert session_service.invalidate(own["session_token"])
        assert session_service.get(switched.token) is None
        assert session_service.end_reason(switched.token) in ("actor_ended", None)

    def test_who_cannot_be_an_actor(self, user_id: str) -> None:
        own = make(user_id)["session_token"]
        with pytest.raises(InvalidArgument):
            make(user_id, actor_token=own)
        acting = make("somebody", actor_token=own)["session_token"]
        with pytest.raises(InvalidArgument):
            make("somebody else", actor_token=acting)

    def test_by_its_id(self, user_id: str) -> None:
        created = make(user_id, idle_timeout=timedelta(hours=1))
        known = "SELECT ends_at AT TIME ZONE 'UTC' AS ends FROM session_get_id(%s::uuid, %s)"
        (row,) = call(known, [str(created["session_id"]), user_id])
        assert row["ends"] < created["ends"]
        assert call(known, [str(created["session_id"]), "somebody else"]) == []
        with transaction.atomic():
            bind = "SELECT session_bind_id(%s::uuid, %s) AS bound"
            assert call(bind, [str(created["session_id"]), user_id])[0]["bound"]
            assert bound() == user_id

    def test_a_new_device(self, user_id: str) -> None:
        firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
        newer = firefox.replace("130.0", "131.0")
        logins = [
            ("203.0.113.7", firefox, False),  # never seen
            ("198.51.100.1", newer, False),  # a known device
            ("203.0.113.9", "curl/8.1", False),  # a known network
            ("192.0.2.1", "Wget/1.21", True),
            ("192.0.2.2", "Wget/1.22", False),
        ]
        for ip, user_agent, new in logins:
            assert make(user_id, ip, user_agent)["new_device"] is new
        assert [event for event, _ in events(user_id)].count("new_device") == 1

    def test_an_elevation_keeps_what_is_the_packages(self, user_id: str) -> None:
        token = session_service.create(user_id, auth={"amr": ["pwd"], "_own": 1}).token
        session_service.elevate(token, {"amr": ["otp"]})
        (row,) = call("SELECT auth FROM session_list(%s)", [user_id], json_columns=["auth"])
        assert row["auth"] == {"amr": ["otp"], "_own": 1}


@pytest.mark.usefixtures("in_memory")
class TestAlone:
    """Of the stand-in alone."""

    def test_nothing_is_asked_of_the_database(
        self, user_id: str, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(0):
            token = session_service.create(user_id, {"a": 1}).token
            session_service.refresh(token, rotate=True, with_session=True)
            session_service.list(user_id, current_token=token)

    def test_why_it_ended(self, user_id: str, configure: Any) -> None:
        """On a server the sweep may have deleted the row."""
        expired = session_service.create(user_id, ttl=timedelta(milliseconds=1)).token
        wait_for(lambda: session_service.get(expired) is None)
        assert session_service.end_reason(expired) == "expired"
        idle = session_service.create(user_id).token
        configure(IN_MEMORY={"idle_timeout": timedelta(milliseconds=1)})
        wait_for(lambda: session_service.get(idle, touch=False) is None)
        assert session_service.end_reason(idle) == "idle"
        reasons = [s.ended_reason for s in session_service.list(user_id, include_ended=True)]
        assert sorted(map(str, reasons)) == ["expired", "idle"]

    def test_flush(self, user_id: str) -> None:
        with transaction.atomic():
            session_service.create(user_id)
            flush_sessions()
            assert count(user_id) == (0, 0)
            transaction.set_rollback(True)
        assert count(user_id) == (0, 0)

    def test_what_needs_the_extension(self) -> None:
        for function in (administration.list_keys, administration.info):
            with pytest.raises(ImproperlyConfigured, match="needs the extension"):
                function()
        with pytest.raises(ImproperlyConfigured, match="needs the extension"):
            call("DELETE FROM user_sessions")

    def test_unknown_settings(self, configure: Any, user_id: str) -> None:
        configure(IN_MEMORY={"sweep_interval": 1})
        with pytest.raises(ImproperlyConfigured, match="sweep_interval"):
            session_service.create(user_id)

    @pytest.mark.parametrize("value", [True, "memory", [1]])
    def test_no_dictionary(self, configure: Any, value: Any) -> None:
        configure(IN_MEMORY=value)
        (message,) = check_settings(None)
        assert message.id == "session_manager.E001"
        assert "IN_MEMORY" in message.msg

    def test_the_checks_ask_no_server(self) -> None:
        connection.close()
        assert check_servers(None, databases=["default"]) == []
        assert connection.connection is None


PRODUCTION = """
import django
django.setup()
from session_manager.services import session_service
try:
    session_service.create("ada")
except Exception as error:
    print(type(error).__name__, error)
from django.core.management import call_command
try:
    call_command("check")
except Exception as error:
    print(error)
"""


def test_not_in_production() -> None:
    """Neither with checks nor without them, as under a WSGI server."""
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTION],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "SM_TEST_SESSION_MANAGER": '{"IN_MEMORY": {}}',
        },
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'ImproperlyConfigured SESSION_MANAGER["IN_MEMORY"] is for tests' in done.stdout
    assert "session_manager.E040" in done.stdout
