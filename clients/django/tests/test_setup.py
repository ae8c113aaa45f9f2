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
from django.conf import settings as django_settings

from session_manager.store.database import quote

from .conftest import Superuser, psql

NAME = "sm_setup"

pytestmark = pytest.mark.django_db(transaction=True)

Manage = Callable[..., str]

# What README.md has a superuser do.
STEPS = """
CREATE EXTENSION session_manager CASCADE;
SELECT session_key_generate();
SELECT session_grant('webapp', 'app');
"""


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


def run(*arguments: str, succeed: bool = True, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        cwd=Path(__file__).resolve().parents[1],
        env={
            **os.environ,
            "SM_TEST_DBNAME": NAME,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is succeed, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def manage(fresh: Superuser) -> Manage:
    def manage(*arguments: str, succeed: bool = True, **settings: Any) -> str:
        return run(*arguments, succeed=succeed, SM_TEST_SESSION_MANAGER=json.dumps(settings))

    return manage


def keys(fresh: Superuser, schema: str = "public") -> list[tuple[int, str]]:
    query = f"SELECT key_id, state FROM {schema}.session_keys ORDER BY key_id"
    return [tuple(row) for row in fresh.execute(query).fetchall()]


def works(manage: Manage, **settings: Any) -> None:
    manage("migrate", **settings)
    assert "no issues" in manage("check", "--database", "default", **settings)
    assert manage("sessions", "count", **settings) == "0\n"
    assert manage("sessions", "list", **settings)


def test_by_printed_statements(manage: Manage, fresh: Superuser) -> None:
    """Any number of times: never a second key."""
    for _ in range(3):
        psql(manage("setup_session_manager", "--print"))
        assert [state for _, state in keys(fresh)] == ["active"]
    works(manage)
    psql(manage("setup_session_manager", "--print"))
    assert [state for _, state in keys(fresh)] == ["active"]


def test_an_administrator_s_alias_is_not_the_role(manage: Manage) -> None:
    printed = manage("setup_session_manager", "--print")
    assert manage("setup_session_manager", "--print", "--database", "admin") == printed


@pytest.mark.long
def test_the_role_and_the_database_too(superuser: Superuser) -> None:
    """From a server without either: names are those of the settings, whatever is in them."""
    name, role = 'sm new "s"', "sm_new'r"
    remove = f"DROP DATABASE IF EXISTS {quote(name)} WITH (FORCE)"
    superuser.execute(remove)
    superuser.execute(f"DROP ROLE IF EXISTS {quote(role)}")
    try:
        environment = {"SM_TEST_DBNAME": name, "SM_TEST_PGUSER": role}
        for _ in range(2):
            psql(run("setup_session_manager", "--print", **environment))
        # As the owner it makes Django's tables, which PostgreSQL 15 lets nobody else do.
        run("migrate", **environment)
        assert "no issues" in run("check", "--database", "default", **environment)
    finally:
        superuser.execute(remove)
        superuser.execute(f"DROP ROLE IF EXISTS {quote(role)}")


@pytest.mark.parametrize(
    "extra",
    ["", pytest.param("SELECT session_grant('webapp', 'reader')", marks=pytest.mark.long)],
)
def test_after_the_readme_s_steps(manage: Manage, fresh: Superuser, extra: str) -> None:
    """They are enough to go on; what the models lack without the bundle reader is a warning."""
    fresh.execute(STEPS + extra)
    manage("migrate")
    found = manage("check", "--database", "default", "--fail-level", "ERROR")
    assert ("W028" in found) is (extra == "")
    assert manage("sessions", "count") == "0\n"
    listed = manage("sessions", "list", succeed=extra != "")
    assert ("setup_session_manager --print |" in listed) is (extra == "")
    assert "Traceback" not in listed
    psql(manage("setup_session_manager", "--print", "--role", "webapp"))
    assert [state for _, state in keys(fresh)] == ["active"]
    works(manage)


@pytest.mark.long
def test_the_readme_s_steps_after_the_printed_ones(manage: Manage, fresh: Superuser) -> None:
    psql(manage("setup_session_manager", "--print"))
    fresh.execute("SELECT session_grant('webapp', 'app')")
    works(manage)


@pytest.mark.long
def test_by_an_administrator_s_connection(manage: Manage, fresh: Superuser) -> None:
    fresh.execute("CREATE EXTENSION session_manager CASCADE; SELECT session_key_generate()")
    for _ in range(2):
        assert "ready" in manage("setup_session_manager", "--database", "admin", "--role", "webapp")
        assert [state for _, state in keys(fresh)] == ["active"]
    works(manage)


@pytest.mark.long
def test_in_a_schema_of_its_own(manage: Manage, fresh: Superuser) -> None:
    own = {"SCHEMA": 'my "own"'}
    for _ in range(2):
        psql(manage("setup_session_manager", "--print", **own))
    assert [state for _, state in keys(fresh, '"my ""own"""')] == ["active"]
    works(manage, **own)
    # Without the setting: what to set it to.
    found = manage("check", "--database", "default", succeed=False)
    assert 'Set SESSION_MANAGER["SCHEMA"] to \'my "own"\'.' in found


@pytest.mark.long
def test_after_the_only_key_is_revoked(manage: Manage, fresh: Superuser) -> None:
    """Two ways out: the printed statements, which make one key, and session_keys."""
    psql(manage("setup_session_manager", "--print"))
    manage("migrate")
    for repair in (
        lambda: psql(manage("setup_session_manager", "--print")),
        lambda: manage("session_keys", "--database", "admin", "generate"),
    ):
        active = next(str(key) for key, state in keys(fresh) if state == "active")
        manage("session_keys", "--database", "admin", "revoke", active, "--yes")
        manage("session_keys", "--database", "admin", "list")
        assert "E018" in manage("check", "--database", "default", succeed=False)
        repair()
        assert "no issues" in manage("check", "--database", "default")
    assert [state for _, state in keys(fresh)] == ["revoked", "revoked", "active"]


def test_hints_name_what_to_paste(manage: Manage, fresh: Superuser) -> None:
    """In each state of the database: a command with the server, the role and the database."""
    server = django_settings.DATABASES["default"]
    line = (
        f"python manage.py setup_session_manager --print | sudo -u postgres psql "
        f"-h {server['HOST']} -p {server['PORT']}"
    )

    def told(*arguments: str, succeed: bool = False) -> str:
        found = " ".join(manage(*arguments, succeed=succeed).split())
        assert line in found
        return found

    told("check", "--database", "default", succeed=True)  # W013: a warning before migrating
    refused = told("migrate")
    assert f"in the database {NAME}:" in refused
    assert "'\"webapp\"', 'reader'" in refused
    fresh.execute("CREATE EXTENSION session_manager CASCADE")
    assert "E017" in told("check", "--database", "default")
    fresh.execute("SELECT session_grant('webapp', 'app')")
    assert "W028" in told("check", "--database", "default", succeed=True)
    fresh.execute("SELECT session_grant('webapp', 'reader')")
    assert "E018" in told("check", "--database", "default")


def test_a_role_that_is_not_there(manage: Manage) -> None:
    found = manage(
        "setup_session_manager", "--database", "admin", "--role", "sm_nobody", succeed=False
    )
    assert 'CREATE ROLE "sm_nobody" LOGIN' in found
    assert "Traceback" not in found


def test_settings_that_the_checks_refuse(manage: Manage, fresh: Superuser) -> None:
    """What repairs the database does not wait for what is wrong elsewhere in the project."""
    wrong = {"COOKIE_SAMESITE": "whatever"}
    manage("setup_session_manager", "--database", "admin", "--role", "webapp", **wrong)
    manage("session_keys", "--database", "admin", "generate", **wrong)
