"""The migration on empty databases, as a superuser and as an ordinary role."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from session_manager.management.grants import statements

pytestmark = pytest.mark.django_db(transaction=True)
NAME = "sm_migration"

Manage = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def manage(superuser: Any) -> Iterator[Manage]:
    superuser.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")
    superuser.execute(f"CREATE DATABASE {NAME} OWNER webapp TEMPLATE template0")

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "django", *arguments],
            env={**os.environ, "SM_TEST_DBNAME": NAME, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    yield run
    superuser.execute(f"DROP DATABASE {NAME} WITH (FORCE)")


def ask(superuser: Any, sql: str) -> Any:
    """One value, from the migrated database."""
    from tests.conftest import Superuser

    with Superuser() as other:
        other.connection.settings_dict["NAME"] = NAME
        return other.execute(sql).fetchone()[0]


def test_as_a_superuser(manage: Manage, superuser: Any) -> None:
    done = manage("migrate", SM_TEST_PGUSER="postgres", SM_TEST_GRANT_ROLE="webapp")
    assert done.returncode == 0, done.stderr
    assert ask(superuser, "SELECT count(*) FROM session_keys WHERE state = 'active'") == 1
    for privilege, expected in (
        ("has_column_privilege('webapp', 'user_sessions', 'user_id', 'select')", True),
        ("has_column_privilege('webapp', 'user_sessions', 'sealed_data', 'select')", False),
        ("has_table_privilege('webapp', 'user_sessions', 'insert,update,delete')", False),
        ("has_function_privilege('webapp', 'session_cleanup(integer,integer)', 'execute')", True),
        ("has_function_privilege('webapp', 'session_erase(text)', 'execute')", False),
    ):
        assert ask(superuser, f"SELECT {privilege}") is expected, privilege
    check = manage("check", "--database", "default", "--fail-level", "WARNING")
    assert check.returncode == 0, check.stderr
    # Back and forth: sessions are not lost.
    back = manage("migrate", "session_manager", "zero", SM_TEST_PGUSER="postgres")
    assert back.returncode == 0, back.stderr
    assert ask(superuser, "SELECT count(*) FROM session_keys") == 1
    again = manage("migrate", SM_TEST_PGUSER="postgres", SM_TEST_GRANT_ROLE="webapp")
    assert again.returncode == 0, again.stderr


def test_default_privileges_do_not_reach_the_extension(manage: Manage, superuser: Any) -> None:
    from tests.conftest import Superuser

    with Superuser() as other:
        other.connection.settings_dict["NAME"] = NAME
        other.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO webapp")
    done = manage("migrate", SM_TEST_PGUSER="postgres", SM_TEST_GRANT_ROLE="webapp")
    assert done.returncode == 0, done.stderr
    for table in ("user_sessions", "session_keys", "session_events", "session_installation"):
        may = f"SELECT has_table_privilege('webapp', '{table}', 'select,insert,update,delete')"
        assert ask(superuser, may) is False


def test_as_an_ordinary_role(manage: Manage, superuser: Any) -> None:
    refused = manage("migrate")
    assert refused.returncode != 0
    assert "needs a superuser" in refused.stderr
    assert "Traceback" not in refused.stderr
    from tests.conftest import Superuser

    with Superuser() as other:
        other.connection.settings_dict["NAME"] = NAME
        for statement in statements("webapp"):
            assert f"    {statement};" in refused.stderr
            other.execute(statement)
    done = manage("migrate")
    assert done.returncode == 0, done.stderr
    check = manage("check", "--database", "default", "--fail-level", "WARNING")
    assert check.returncode == 0, check.stderr


def test_set_up_by_an_administrator(manage: Manage) -> None:
    for _ in range(2):
        done = manage("setup_session_manager", "--database", "admin", "--role", "webapp")
        assert done.returncode == 0, done.stderr
    assert manage("migrate").returncode == 0
