"""manage.py session_audit: the blocks of docs/compliance.md, and each setting that decides."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

from session_manager.conf import Settings
from session_manager.management.audit import APPLICATION, JUDGES, NO, PROFILES, YES, audit

from .conftest import Superuser

pytestmark = pytest.mark.django_db(transaction=True)

CLIENT = Path(__file__).parents[1]
PAGE = CLIENT.parents[1] / "docs" / "compliance.md"
MANAGE = """import sys
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
SERVER = {
    "aal1": "AAL1",
    "aal2": "AAL2",
    "aal3": "AAL3",
    "asvs1": "ASVS level 1",
    "asvs2": "ASVS level 2",
    "asvs3": "ASVS level 3",
}
DJANGO = {"aal": "AAL1, AAL2 and AAL3", "asvs": "ASVS levels 1, 2 and 3"}


def block(heading: str, language: str) -> str:
    """The block below a heading of the page; none where the defaults do."""
    found = re.search(rf"^### {heading}\n(.*?)(?=^##)", PAGE.read_text(), re.M | re.S)
    assert found, heading
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", found[1], re.M | re.S))


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A project on the test database, with lines at the end of its settings, and its manage.py."""
    (tmp_path / "manage.py").write_text(MANAGE)

    def manage(lines: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "project.py").write_text(f"from tests.settings import *\n{lines}")
        name = str(connection.settings_dict["NAME"])
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(CLIENT), *sys.path)),
                "DJANGO_SETTINGS_MODULE": "project",
                "SM_TEST_DBNAME": name,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return manage


@pytest.fixture
def server_block(superuser: Superuser, database_setting: Any) -> Callable[[str], None]:
    """Run a block of the page for the test database; database_setting takes it back."""

    def run(sql: str) -> None:
        name = connection.settings_dict["NAME"]
        superuser.execute("LOAD 'session_manager'")
        for statement in filter(None, map(str.strip, sql.split(";"))):
            changed = statement.replace("ALTER DATABASE app ", f"ALTER DATABASE {name} ")
            assert changed != statement
            superuser.execute(changed)
        connections.close_all()

    return run


@pytest.mark.parametrize("engine", [False, True])
@pytest.mark.parametrize("profile", PROFILES)
def test_each_documented_block(
    project: Any, server_block: Callable[[str], None], profile: str, engine: bool
) -> None:
    lines = block(DJANGO[profile[:-1]], "python")
    assert "SECURE_HSTS_SECONDS" in lines
    if engine:
        lines += block("With SESSION_ENGINE", "python")
    server_block(block(SERVER[profile], "sql"))
    done = project(lines, "session_audit", "--profile", profile, "--json")
    report = json.loads(done.stdout)
    assert [f for f in report["findings"] if f["met"] == NO] == []
    assert (done.returncode, report["no"], report["profile"]) == (0, 0, profile)
    assert report["yes"] > 4


def test_what_is_unmet_fails(project: Any) -> None:
    done = project("SECURE_HSTS_SECONDS = 3600", "session_audit", "--profile", "asvs1")
    assert done.returncode == 1
    assert "asvs1: " in done.stderr
    assert re.search(
        r"^no +ASVS v5\.0\.0-3\.4\.1: .*\n +SECURE_HSTS_SECONDS: 3600\n", done.stdout, re.M
    )
    # The default profile, by which the extension's limits count as well.
    done = project("", "session_audit")
    assert done.returncode == 1
    assert "asvs2: " in done.stderr
    assert "session_manager" not in done.stderr
    assert re.search(r"^no +ASVS v5\.0\.0-7\.3\.1: .*\n +idle_timeout: 0\n", done.stdout, re.M)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('DATABASES["default"]["PORT"] = "1"', "default: "),
        ('SESSION_MANAGER["IN_MEMORY"] = {}', "in memory"),
    ],
)
def test_a_server_that_cannot_be_asked(project: Any, lines: str, words: str) -> None:
    done = project(lines, "session_audit")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_unknown_profile(project: Any) -> None:
    done = project("", "session_audit", "--profile", "aal4")
    assert done.returncode == 2
    assert "aal4" in done.stderr


#: Whole settings under which nothing that Django decides is unmet.
GOOD: dict[str, Any] = {
    "SECURE_HSTS_SECONDS": 31536000,
    "SECURE_HSTS_INCLUDE_SUBDOMAINS": True,
    "CSRF_COOKIE_SECURE": True,
    "CSRF_COOKIE_NAME": "__Host-csrftoken",
}
ENGINE: dict[str, Any] = {
    **GOOD,
    "SESSION_ENGINE": "session_manager.backends.sessions",
    "SESSION_COOKIE_NAME": "__Host-sessionid",
    "SESSION_COOKIE_SECURE": True,
    "SESSION_EXPIRE_AT_BROWSER_CLOSE": True,
}
WITHOUT = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "session_manager.middleware.SessionMiddleware",
]


#: The profile and the requirement; with SESSION_ENGINE or without; what turns it from met to what.
CASES: list[tuple[str, str, dict[str, Any], str, Any, str]] = [
    ("aal2", "5.1 (persistence)", ENGINE, "SESSION_EXPIRE_AT_BROWSER_CLOSE", False, NO),
    ("aal2", "5.1 (persistence)", GOOD, "DEVICE_BOUND", "offer", APPLICATION),
    ("aal1", "5.1 (storage)", GOOD, "BEARER", True, APPLICATION),
    ("aal1", "5.1 (transport)", GOOD, "SECURE_HSTS_SECONDS", 0, NO),
    ("aal1", "5.1 (transport)", GOOD, "COOKIE_SECURE", False, NO),
    ("aal1", "5.1 (transport)", GOOD, "MIDDLEWARE", WITHOUT, NO),
    ("aal1", "5.1 (CSRF)", GOOD, "CSRF_TOKEN", False, NO),
    ("aal1", "5.1 (CSRF)", GOOD, "MIDDLEWARE", WITHOUT, NO),
    ("aal1", "5.1.1 (1)", GOOD, "COOKIE_SECURE", False, NO),
    ("aal1", "5.1.1 (1)", ENGINE, "SESSION_COOKIE_SECURE", False, NO),
    ("aal1", "5.1.1 (2)", GOOD, "COOKIE_DOMAIN", "example.com", NO),
    ("aal1", "5.1.1 (2)", ENGINE, "SESSION_COOKIE_DOMAIN", "example.com", NO),
    ("aal1", "5.1.1 (3)", ENGINE, "SESSION_COOKIE_HTTPONLY", False, NO),
    ("aal1", "5.1.1 (5)", GOOD, "COOKIE_HOST_PREFIX", False, NO),
    ("aal1", "5.1.1 (5)", GOOD, "DEBUG", True, NO),
    ("aal1", "5.1.1 (5)", ENGINE, "SESSION_COOKIE_NAME", "__Secure-id", NO),
    ("aal1", "5.1.1 (5)", ENGINE, "SESSION_COOKIE_PATH", "/app/", NO),
    ("aal1", "5.1.1 (6)", GOOD, "COOKIE_SAMESITE", "None", NO),
    ("aal1", "5.1.1 (6)", ENGINE, "SESSION_COOKIE_SAMESITE", False, NO),
    ("asvs1", "3.3.1", GOOD, "COOKIE_SECURE", False, NO),
    ("asvs1", "3.3.1", GOOD, "COOKIE_HOST_PREFIX", False, NO),
    ("asvs1", "3.3.1", GOOD, "CSRF_COOKIE_SECURE", False, NO),
    ("asvs1", "3.3.1", GOOD, "CSRF_COOKIE_NAME", "csrftoken", APPLICATION),
    ("asvs2", "3.3.2", GOOD, "COOKIE_SAMESITE", "None", NO),
    ("asvs2", "3.3.2", GOOD, "CSRF_COOKIE_SAMESITE", None, NO),
    ("asvs2", "3.3.3", GOOD, "COOKIE_DOMAIN", "example.com", NO),
    ("asvs2", "3.3.3", ENGINE, "SESSION_COOKIE_NAME", "__Secure-id", NO),
    ("asvs2", "3.3.4", ENGINE, "SESSION_COOKIE_HTTPONLY", False, NO),
    ("asvs2", "3.3.4", GOOD, "BEARER", True, APPLICATION),
    ("asvs1", "3.4.1", GOOD, "SECURE_HSTS_SECONDS", 31535999, NO),
    ("asvs1", "3.4.1", GOOD, "MIDDLEWARE", WITHOUT, NO),
    ("asvs2", "3.4.1", GOOD, "SECURE_HSTS_INCLUDE_SUBDOMAINS", False, NO),
    ("asvs1", "3.5.1", GOOD, "CSRF_TOKEN", False, NO),
    ("asvs1", "3.5.1", GOOD, "MIDDLEWARE", WITHOUT, NO),
    ("asvs1", "7.4.1", GOOD, "READ_DATABASE", "admin", NO),
    ("asvs1", "7.4.2", GOOD, "USER_ID_FIELD", None, APPLICATION),
    ("asvs1", "7.4.2", GOOD, "END_ON_USER_DELETED", False, NO),
    ("asvs1", "7.4.2", GOOD, "END_ON_USER_DEACTIVATED", False, NO),
    ("asvs2", "7.4.3", GOOD, "END_ON_PASSWORD_CHANGED", False, NO),
    ("asvs2", "7.4.3", GOOD, "USER_ID_FIELD", None, APPLICATION),
]


def full(reference: str, profile: str) -> str:
    return ("NIST SP 800-63B-4 " if profile.startswith("aal") else "ASVS v5.0.0-") + reference


def verdicts(profile: str, reference: str) -> list[tuple[str, str | None]]:
    wanted = full(reference, profile)
    return [(f.met, f.setting) for f in audit(profile) if f.reference == wanted]


@pytest.mark.parametrize(("profile", "reference", "start", "name", "value", "met"), CASES)
def test_each_setting(
    settings: Any,
    configure: Any,
    profile: str,
    reference: str,
    start: dict[str, Any],
    name: str,
    value: Any,
    met: str,
) -> None:
    for other, good in start.items():
        setattr(settings, other, good)
    own = {"USER_ID_FIELD": "username"}
    configure(**own, DEVICE_BOUND="require" if name == "DEVICE_BOUND" else "off")
    assert {verdict for verdict, _ in verdicts(profile, reference)} == {YES}
    if name in {field.name for field in fields(Settings)} - {"DEBUG"}:
        configure(**{name: value})
    else:
        setattr(settings, name, value)
    changed = {verdict for verdict, _ in verdicts(profile, reference)} - {YES}
    assert changed == {met}


def test_every_judge_is_tried() -> None:
    """Each has a row of the extension's to stand in for, and a case above."""
    rows = {f.reference for profile in PROFILES for f in audit(profile)}
    assert set(JUDGES) <= rows
    tried = {full(reference, profile) for profile, reference, *_ in CASES}
    assert set(JUDGES) == tried


def test_standbys_that_revocations_wait_for(configure: Any, database_setting: Any) -> None:
    configure(READ_DATABASE="admin")
    assert (NO, 'SESSION_MANAGER["READ_DATABASE"]') in verdicts("asvs1", "7.4.1")
    database_setting("revoke_commit", "remote_apply")
    found = verdicts("asvs1", "7.4.1")
    assert {verdict for verdict, _ in found} == {YES}


def test_cookies_beside_the_sessions(configure: Any, settings: Any) -> None:
    """Those of the device and of an actor count where they are in use."""
    for name, value in ENGINE.items():
        setattr(settings, name, value)
    settings.SESSION_COOKIE_NAME = "__Secure-sessionid"
    assert (YES, "SESSION_COOKIE_NAME") in verdicts("asvs1", "3.3.1")
    configure(DEVICE_BOUND="offer")
    assert (NO, "SESSION_COOKIE_NAME") in verdicts("asvs1", "3.3.1")
    configure(DEVICE_BOUND="off", MAY_IMPERSONATE="tests.hooks.may_impersonate")
    assert (YES, "SESSION_COOKIE_NAME") in verdicts("asvs1", "3.3.1")


def test_the_page_has_each_requirement() -> None:
    page = PAGE.read_text()
    for profile in PROFILES:
        for finding in audit(profile):
            reference = finding.reference.removeprefix("NIST SP 800-63B-4 ")
            reference = reference.removeprefix("ASVS v5.0.0-")
            assert re.search(rf"^\| {re.escape(reference)} \|", page, re.M), finding


def test_another_alias() -> None:
    out = StringIO()
    with pytest.raises(CommandError, match=r"unmet"):
        call_command("session_audit", "--database", "default", "--json", stdout=out)
    report = json.loads(out.getvalue())
    assert {f["database"] for f in report["findings"]} == {"default"}
    assert report["yes"] + report["no"] + report["application"] == len(report["findings"])
