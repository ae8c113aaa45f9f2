"""The tests of an application: a fresh project, its test databases, and its key file's peace.

manage.py test is a process of its own each time, on the server that has the extension.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from session_manager.management.test_databases import TEMPLATE
from session_manager.store.database import quote

from .conftest import Superuser, psql

pytestmark = pytest.mark.django_db(transaction=True)

ROLE = "sm_developer"
NAME = "sm_suites"

SETTINGS = """
import os
SERVER = {"ENGINE": "django.db.backends.postgresql", "NAME": "%(name)s", "HOST": %(host)r,
          "PORT": %(port)r, "USER": os.environ["ROLE"]}
TEMPLATE = os.environ.get("TEMPLATE")
if TEMPLATE:
    SERVER["TEST"] = {"TEMPLATE": TEMPLATE}
if os.environ["ROLE"] == "sqlite":
    SERVER = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}
DATABASES = {"default": SERVER}
INSTALLED_APPS += ["rest_framework", "session_manager", "shop"]
MIDDLEWARE += ["session_manager.middleware.SessionMiddleware"]
ROOT_URLCONF = "shop.urls"
# Their rows are made again after a flush, and serialized_rollback would bring them back as well.
TEST_NON_SERIALIZED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
"""

TESTS = '''
from django.http import JsonResponse
from django.test import TestCase, TransactionTestCase
from django.urls import path
from session_manager.login import token_from
from session_manager.models import SessionEvent, UserSession
from session_manager.services import session_service
from session_manager.testing import flush_sessions


def count():
    return session_service.get_active_sessions_count(), SessionEvent.objects.filter(
        event="created").count()


class Kept:
    """Whichever of the two comes second finds what the first one left."""

    def look(self):
        self.assertEqual(count(), (0, 0))
        created = session_service.create("ada", {"plan": "free"})
        self.assertEqual(session_service.get(created.token).data, {"plan": "free"})
        self.assertEqual(count(), (1, 1))
        self.assertEqual(UserSession.objects.count(), 1)

    def test_one(self):
        self.look()

    def test_two(self):
        self.look()


class RolledBack(Kept, TestCase):
    pass


class Flushed(Kept, TransactionTestCase):
    pass


class Restored(Kept, TransactionTestCase):
    serialized_rollback = True

    def tearDown(self):
        flush_sessions()


class WithoutSessions(TestCase):
    def test_page(self):
        self.assertEqual(self.client.get("/page/").json(), {"signed_in": False})
'''

URLS = """
from django.http import JsonResponse
from django.urls import path

urlpatterns = [
    path("account/", lambda request: JsonResponse(request.session_info.data)),
    path("page/", lambda request: JsonResponse({"signed_in": bool(request.session_info)})),
]
"""

Run = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """As django-admin makes it, with an application that has tests."""
    subprocess.run(
        [sys.executable, "-m", "django", "startproject", "site_of_mine", str(tmp_path)],
        check=True,
        env={name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
    )
    server = django_settings.DATABASES["default"]
    values = {"name": NAME, "host": server["HOST"], "port": server["PORT"]}
    with (tmp_path / "site_of_mine" / "settings.py").open("a") as settings:
        settings.write(SETTINGS % values)
    (tmp_path / "shop").mkdir()
    for name, text in (("__init__", ""), ("tests", TESTS), ("urls", URLS)):
        (tmp_path / "shop" / f"{name}.py").write_text(text)
    return tmp_path


@pytest.fixture
def manage(project: Path) -> Run:
    def run(*arguments: str, role: str, succeed: bool = True, template: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=project,
            env={
                **{n: v for n, v in os.environ.items() if n != "DJANGO_SETTINGS_MODULE"},
                "ROLE": role,
                "TEMPLATE": template,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        assert (done.returncode == 0) is succeed, output
        assert "Traceback" not in output or not succeed, output
        return output

    return run


@pytest.fixture
def server(superuser: Superuser) -> Iterator[Superuser]:
    """With a role that may create databases, and nothing else."""

    def clear() -> None:
        templates = superuser.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s OR datname = %s",
            [f"test_{NAME}%", TEMPLATE],
        ).fetchall()
        for (name,) in templates:
            superuser.execute(f"ALTER DATABASE {quote(name)} WITH IS_TEMPLATE false")
            superuser.execute(f"DROP DATABASE {quote(name)} WITH (FORCE)")
        superuser.execute(f"DROP ROLE IF EXISTS {ROLE}")

    clear()
    superuser.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB")
    yield superuser
    clear()


def lines(server: Superuser) -> int:
    """Keys in the server's key file."""
    server.execute("LOAD 'session_manager'")
    query = "SELECT pg_read_file(current_setting('session_manager.key_file'))"
    text: Any = server.execute(query).fetchone()[0]
    return len([line for line in (text or "").splitlines() if line and not line.startswith("#")])


def test_a_superuser(manage: Run, server: Superuser) -> None:
    """The database is made from nothing, and the key file is as it was."""
    before = lines(server)
    assert before > 0
    for _ in range(2):
        output = manage("test", role="postgres", template="template0")
        assert "Ran 7 tests" in output
        assert lines(server) == before


def test_an_ordinary_role(manage: Run, server: Superuser) -> None:
    """One command, and then as often as one likes."""
    output = manage("test", role=ROLE, template="template0", succeed=False)
    assert "The test database has no extension session_manager that sm_developer may use" in output
    assert "setup_session_manager --template | " in output
    assert f'"TEST": {{"TEMPLATE": "{TEMPLATE}"}}' in output
    assert "CommandError" in output
    assert "Traceback" not in output

    before = lines(server)
    for arguments in ((), ("--parallel", "2"), ("--keepdb",)):
        # Any number of times.
        psql(manage("setup_session_manager", "--template", role=ROLE))
        output = manage("test", "--noinput", *arguments, role=ROLE, template=TEMPLATE)
        assert "Ran 7 tests" in output
        assert "no issues" in output
    assert lines(server) == before


SHELL = """
import django
django.setup()
from django.core.management import call_command
from django.db import connection
from django.test.utils import setup_test_environment
from session_manager.services import session_service
setup_test_environment()
connection.settings_dict["USER"] = "postgres"
call_command("migrate", verbosity=0)
session_service.create("ada")
call_command("migrate", verbosity=0)
print("left:", session_service.get_active_sessions_count())
"""


@pytest.mark.long
def test_a_shell_is_no_test(project: Path, server: Superuser) -> None:
    """setup_test_environment() alone, as in Django's tutorial, makes no database one of tests."""
    server.execute(f"CREATE DATABASE {quote(NAME)}")
    try:
        done = subprocess.run(
            [sys.executable, "-c", SHELL],
            cwd=project,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "site_of_mine.settings", "ROLE": ROLE},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "left: 1" in done.stdout, done.stderr
    finally:
        server.execute(f"DROP DATABASE {quote(NAME)} WITH (FORCE)")


@pytest.mark.long
def test_what_is_no_template(manage: Run, server: Superuser) -> None:
    """A database in use stays as it is: nobody could connect to a template."""
    for name in (NAME, "a=b"):
        output = manage("setup_session_manager", "--template", name, role=ROLE, succeed=False)
        assert "CommandError" in output
    plain = f"test_{NAME}_plain"
    server.execute(f"CREATE DATABASE {quote(plain)}")
    script = manage("setup_session_manager", "--template", plain, role=ROLE)
    with pytest.raises((subprocess.CalledProcessError, AssertionError)):
        psql(script)
    query = "SELECT datallowconn FROM pg_database WHERE datname = %s"
    assert server.execute(query, [plain]).fetchone()[0]


@pytest.mark.long
def test_sqlite(manage: Run) -> None:
    """What has nothing to do with sessions runs; what has says why it cannot."""
    output = manage("test", "shop.tests.WithoutSessions", role="sqlite")
    assert "Ran 1 test" in output
    assert "session_manager.W029) The tests run on SQLite: none of them can create or" in output
    output = manage("test", "shop.tests.RolledBack", role="sqlite", succeed=False)
    assert "session_manager needs PostgreSQL, and the database 'default' is SQLite" in output
    assert "no such table" not in output
    # Outside of tests it is an error.
    output = manage("migrate", role="sqlite", succeed=False)
    assert "session_manager.E011" in output


IN_MEMORY_TESTS = """
from django.contrib.auth import get_user_model
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from session_manager.services import session_service
from session_manager.testing import flush_sessions


class Kept:
    def look(self):
        self.assertEqual(session_service.count_active(), 0)
        session_service.create("ada")
        self.assertEqual(session_service.count_active(), 1)

    def test_one(self):
        self.look()

    def test_two(self):
        self.look()


class RolledBack(Kept, TestCase):
    pass


class Flushed(Kept, TransactionTestCase):
    pass


class WithoutDatabase(Kept, SimpleTestCase):
    def tearDown(self):
        flush_sessions()


@override_settings(SESSION_MANAGER={"IN_MEMORY": {}, "USER_ID_FIELD": "pk"})
class Following(TestCase):
    def test_deactivated(self):
        user = get_user_model().objects.create_user("grace")
        created = session_service.create(str(user.pk))
        user.is_active = False
        user.save()
        self.assertIsNone(session_service.get(created.token))
"""


def sample(title: str) -> str:
    """The sample of docs/django.md that begins with a comment."""
    page = (Path(__file__).parents[3] / "docs" / "django.md").read_text()
    _, found, rest = page.partition(f"```python\n# {title}\n")
    assert found
    return rest.partition("```")[0]


@pytest.mark.long
def test_in_memory(project: Path, manage: Run) -> None:
    """The samples of the docs, on SQLite."""
    with (project / "site_of_mine" / "settings.py").open("a") as settings:
        settings.write(sample("settings of the tests"))
    (project / "shop" / "tests.py").write_text(sample("tests.py") + IN_MEMORY_TESTS)
    output = manage("test", role="sqlite")
    assert "Ran 8 tests" in output
    assert "no issues" in output

    (project / "test_account.py").write_text(sample("test_account.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_account.py"],
        cwd=project,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "site_of_mine.settings", "ROLE": "sqlite"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr

    # Outside of tests it is an error.
    output = manage("check", role="sqlite", succeed=False)
    assert "session_manager.E040" in output
