"""From an empty database to the first session, and back after a lost key: as docs/django.md says.

Each command is a process of its own, as call_command leaves the system checks out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Superuser

NAME = "sm_setup"

pytestmark = pytest.mark.django_db(transaction=True)

Manage = Callable[..., str]


@pytest.fixture
def fresh(superuser: Superuser) -> Iterator[Superuser]:
    """A superuser's connection with a database that is the application role's, and empty."""
    superuser.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")
    superuser.execute(f"CREATE DATABASE {NAME} OWNER webapp TEMPLATE template0")
    try:
        with Superuser(NAME) as inside:
            yield inside
    finally:
        superuser.execute(f"DROP DATABASE {NAME} WITH (FORCE)")


@pytest.fixture
def manage(fresh: Superuser) -> Manage:
    environment = {
        **os.environ,
        "SM_TEST_DBNAME": NAME,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
    }

    def run(*arguments: str, **settings: Any) -> str:
        environment["SM_TEST_SESSION_MANAGER"] = json.dumps(settings)
        done = subprocess.run(
            [sys.executable, "-m", "django", *arguments],
            cwd=Path(__file__).resolve().parents[1],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_by_printed_statements(manage: Manage, fresh: Superuser) -> None:
    fresh.execute(manage("setup_session_manager", "--print", "--role", "webapp"))
    manage("migrate")
    assert "no issues" in manage("check", "--database", "default")
    assert manage("sessions", "count") == "0\n"


def test_after_steps_of_somebody_else_s(manage: Manage, fresh: Superuser) -> None:
    """The README's statements leave the column privileges out: the repair is not kept from it."""
    fresh.execute("CREATE EXTENSION session_manager CASCADE; SELECT session_key_generate()")
    assert "ready" in manage("setup_session_manager", "--database", "admin", "--role", "webapp")
    manage("migrate")
    assert "no issues" in manage("check", "--database", "default")


def test_after_the_only_key_is_revoked(manage: Manage, fresh: Superuser) -> None:
    fresh.execute(manage("setup_session_manager", "--print", "--role", "webapp"))
    manage("migrate")
    key = str(fresh.execute("SELECT key_id FROM session_keys").fetchone()[0])
    manage("session_keys", "--database", "admin", "revoke", key, "--yes")
    manage("session_keys", "--database", "admin", "list")
    manage("session_keys", "--database", "admin", "generate")
    assert "no issues" in manage("check", "--database", "default")


def test_settings_that_the_checks_refuse(manage: Manage, fresh: Superuser) -> None:
    """What repairs the database does not wait for what is wrong elsewhere in the project."""
    wrong = {"COOKIE_SAMESITE": "whatever"}
    manage("setup_session_manager", "--database", "admin", "--role", "webapp", **wrong)
    manage("session_keys", "--database", "admin", "generate", **wrong)
