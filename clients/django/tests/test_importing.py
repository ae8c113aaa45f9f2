"""From django.contrib.sessions to session_manager without signing anybody out."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session as DjangoSession
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from session_manager.conf import settings
from session_manager.http import importing
from session_manager.http.lookup import look_up
from session_manager.login import log_in, log_out
from session_manager.management import progress
from session_manager.models import ImportedSession
from session_manager.services import session_service

from .conftest import Superuser, wait_for

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _importing(configure: Any) -> None:
    configure(
        IMPORT_DJANGO_SESSIONS=True, USER_ID_FIELD="username", IMPORT_DATA="tests.hooks.import_data"
    )


def visitor(name: str, **values: Any) -> Client:
    """Somebody who is signed in by django.contrib.auth."""
    client = Client()
    client.force_login(get_user_model().objects.create_user(name, password=name))
    session = client.session
    session.update({"cart": [1, 2], **values})
    session.save()
    return client


def run(**options: Any) -> str:
    out = StringIO()
    options.setdefault("stderr", StringIO())
    call_command("import_django_sessions", stdout=out, **options)
    return out.getvalue()


def digest(client: Client) -> str:
    """How the command names a Django session."""
    return importing.key_hash(client.cookies["sessionid"].value).hex()[:16]


def ours(client: Client) -> str | None:
    morsel = client.cookies.get(settings.cookie_name)
    return morsel.value if morsel and morsel.value else None


def test_taken_over_on_the_next_request(django_assert_num_queries: Any) -> None:
    client = visitor("ada")
    assert client.get("/info/").json()["exists"] is False
    assert "1 sessions recorded" in run()
    response = client.get("/info/")
    assert response.json() == {"exists": True, "user": "ada", "data": {"cart": [1, 2]}}
    token = ours(client)
    assert token is not None
    cookie = response.cookies[settings.cookie_name]
    assert cookie["httponly"]
    assert cookie["secure"]
    # The session, and its user.
    with django_assert_num_queries(2):
        assert client.get("/info/").json()["user"] == "ada"
    assert session_service.get_active_sessions_count(user_id="ada") == 1
    # Django's own session lives on: its admin needs it.
    assert client.session.get("_auth_user_id")


def test_deactivated_while_it_is_taken_over(configure: Any, monkeypatch: Any) -> None:
    """The user was looked at, then the user's sessions ended, then the new session was made."""
    configure(LAZY_USER=True)
    client = visitor("ada")
    run()
    create = session_service.create

    def late(*args: Any, **kwargs: Any) -> Any:
        user = get_user_model().objects.get()
        user.is_active = False
        user.save()
        return create(*args, **kwargs)

    monkeypatch.setattr(importing.session_service, "create", late)
    assert client.get("/info/").json()["exists"] is False
    assert session_service.count_active(user_id="ada") == 0
    assert ours(client) is None


def test_once(monkeypatch: pytest.MonkeyPatch) -> None:
    client = visitor("ada")
    run()
    key = client.cookies["sessionid"].value
    client.get("/info/")

    def with_old_cookie() -> Any:
        late = Client()
        late.cookies["sessionid"] = key
        return late.get("/info/"), late

    # Sent together with the first: let through, without a second cookie.
    response, late = with_old_cookie()
    assert response.json() == {"exists": True, "user": "ada", "data": {"cart": [1, 2]}}
    assert ours(late) is None
    monkeypatch.setattr(importing, "GRACE", -importing.GRACE)
    response, late = with_old_cookie()
    assert response.json()["exists"] is False
    assert session_service.get_active_sessions_count(user_id="ada") == 1


def test_a_sign_out_in_between_counts() -> None:
    client = visitor("ada")
    run()
    key = client.cookies["sessionid"].value
    client.get("/info/")
    session_service.invalidate_all("ada")
    late = Client()
    late.cookies["sessionid"] = key
    assert late.get("/info/").json()["exists"] is False


@pytest.mark.parametrize("what", ["logout", "password", "inactive", "deleted", "expired", "row"])
def test_what_must_hold_at_that_moment(what: str) -> None:
    client = visitor("ada")
    run()
    user = get_user_model().objects.get(username="ada")
    key = client.cookies["sessionid"].value
    if what == "logout":
        client.logout()
    elif what == "password":
        user.set_password("another")
        user.save()
    elif what == "inactive":
        user.is_active = False
        user.save()
    elif what == "deleted":
        user.delete()
    elif what == "expired":
        DjangoSession.objects.update(expire_date=timezone.now())
    else:
        ImportedSession.objects.update(expires_at=timezone.now())
    late = Client()
    late.cookies["sessionid"] = key
    assert late.get("/info/").json()["exists"] is False
    assert ours(late) is None


def test_what_is_left_out(settings: Any) -> None:
    Client().get("/info/")
    anonymous = Client().session
    anonymous["cart"] = [1]
    anonymous.save()
    visitor("ada")
    gone = visitor("gone")
    get_user_model().objects.filter(username="gone").delete()
    assert gone.cookies["sessionid"].value
    strange = Client().session
    strange["_auth_user_id"] = "not a number"
    strange.save()
    assert "1 sessions would be recorded, 0 recorded before, 3 left out" in run(dry_run=True)
    assert ImportedSession.objects.count() == 0
    assert "1 sessions recorded, 0 recorded before" in run(batch=1)
    assert "0 sessions recorded, 1 recorded before" in run()
    assert "0 sessions would be recorded, 1 recorded before" in run(dry_run=True)


class TestWhatIsLeftOut:
    """It is named by the digest of its key, as the key itself is as good as a cookie."""

    def named(self, text: str, client: Client) -> str | None:
        assert client.cookies["sessionid"].value not in text
        found = [line for line in text.splitlines() if line.startswith(digest(client))]
        return found[0].split("  ", 1)[1] if found else None

    def test_by_its_login(self, monkeypatch: pytest.MonkeyPatch) -> None:
        good, unreadable, gone, expired, inactive, changed = (
            visitor(name) for name in ("good", "unreadable", "gone", "expired", "off", "changed")
        )

        def rows(client: Client) -> Any:
            return DjangoSession.objects.filter(pk=client.cookies["sessionid"].value)

        rows(unreadable).update(session_data="not what Django wrote")
        rows(expired).update(expire_date=timezone.now())
        users = get_user_model().objects
        users.filter(username="gone").delete()
        users.filter(username="off").update(is_active=False)
        users.filter(username="changed").update(password="another")
        number = Client().session
        number["_auth_user_id"] = str(10**30)
        number.save()
        text = run()
        assert "1 sessions recorded, 0 recorded before, 6 left out" in text
        assert self.named(text, unreadable) == "its data cannot be read"
        assert self.named(text, gone) == "its user does not exist"
        for client in (good, expired, inactive, changed):
            assert self.named(text, client) is None
        # How docs/migrating-to-session_manager.md finds the row again.
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT session_key FROM django_session"
                " WHERE encode(sha256(session_key::bytea), 'hex') LIKE %s",
                [f"{digest(gone)}%"],
            )
            assert cursor.fetchall() == [(gone.cookies["sessionid"].value,)]
        for count, why in ((2, importing.UNKNOWN), (1, importing.EXPIRED), (1, importing.OUTDATED)):
            assert f"       {count}  {why}" in text.splitlines()
        text = run(verbosity=2)
        assert "0 sessions recorded, 1 recorded before, 6 left out" in text
        assert self.named(text, good) is None
        assert self.named(text, expired) == "it has expired"
        assert self.named(text, inactive) == "its user is not active"
        assert self.named(text, changed) == "its login is no longer valid"

    def test_by_its_user_id(self, configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        client = visitor("ada")
        run()
        model = get_user_model()
        monkeypatch.setattr(model, "subject", None, raising=False)
        configure(USER_ID_FIELD="subject")
        assert self.named(run(), client) == "its user has no user id"
        # Noted while they had one.
        assert client.get("/info/").json()["exists"] is False

    def test_by_its_data(self, configure: Any) -> None:
        configure(IMPORT_DATA="tests.hooks.import_all")
        visitor("good")
        refused = {
            "the data that IMPORT_DATA keeps is too large": visitor(
                "large", kept={"x": "y" * 70_000}
            ),
            "the data that IMPORT_DATA keeps is not a JSON object": visitor("list", kept=[1]),
            "IMPORT_DATA fails: ZeroDivisionError": visitor("fails", divide=True),
            "IMPORT_DATA fails: InvalidArgument": visitor("nan", kept={"x": float("nan")}),
        }
        nul = visitor("nul", kept={"x": "\0"})
        for options in ({"dry_run": True}, {"batch": 2}, {}):
            text = run(**options)
            assert ("would be" in text) == ("dry_run" in options)
            assert "5 left out" in text
            for why, client in refused.items():
                assert self.named(text, client) == why
            assert "cannot be stored" in (self.named(text, nul) or "")

    def test_it_stays_with_django(self, configure: Any, caplog: pytest.LogCaptureFixture) -> None:
        """Data that grew too large after it was noted: not an error on every page."""
        large = visitor("large", kept={"x": "y" * 70_000})
        nul = visitor("nul", kept={"x": "\0"})
        run()
        configure(IMPORT_DATA="tests.hooks.import_all")
        for client in (large, nul):
            assert client.get("/info/").json()["exists"] is False
            assert client.session.get("_auth_user_id")
        assert caplog.text.count("cannot be imported") == 2


def test_many_are_a_few_statements() -> None:
    for n in range(20):
        visitor(f"u{n}")

    def statements(batch: int) -> int:
        ImportedSession.objects.all().delete()
        with CaptureQueriesContext(connection) as captured:
            assert "20 sessions recorded" in run(batch=batch)
        return len(captured)

    one, five = statements(20), statements(4)
    # For a batch: read, users, check of the data (2 and its savepoint), known ones, insert.
    per_batch = (five - one) / 4
    assert per_batch <= 12
    assert one < 20


class TestInterrupted:
    """A batch is noted as a whole or not at all, and the next run goes on behind it."""

    def test_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for n in range(10):
            visitor(f"u{n}")
        keys = sorted(DjangoSession.objects.values_list("pk", flat=True))
        bulk_create = type(ImportedSession.objects.all()).bulk_create
        batches = []

        def then_ctrl_c(*args: Any, **kwargs: Any) -> Any:
            done = bulk_create(*args, **kwargs)
            batches.append(done)
            if len(batches) == 3:
                raise KeyboardInterrupt
            return done

        monkeypatch.setattr(type(ImportedSession.objects.all()), "bulk_create", then_ctrl_c)
        with pytest.raises(CommandError, match="Interrupted") as caught:
            run(batch=3)
        assert caught.value.returncode == 130
        position = str(caught.value).split()[-1]
        assert keys[5].startswith(position)
        assert len(position) == 8
        assert ImportedSession.objects.count() == 6
        monkeypatch.undo()
        settings.reload()  # type: ignore[attr-defined]
        text = run(batch=3, after=position)
        assert ImportedSession.objects.count() == 10
        # The last one that was read begins with the position.
        assert "4 sessions recorded, 1 recorded before" in text

    def test_an_error_tells_the_position_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for n in range(4):
            visitor(f"u{n}")
        mark, err = importing.mark_importable, StringIO()

        def once(*args: Any, **kwargs: Any) -> int:
            monkeypatch.setattr(importing, "mark_importable", lambda *a, **k: 1 / 0)
            return mark(*args, **kwargs)

        monkeypatch.setattr(importing, "mark_importable", once)
        with pytest.raises(ZeroDivisionError):
            run(batch=2, stderr=err)
        assert "--after " in err.getvalue()


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    for n in range(4):
        visitor(f"u{n}")
    err = StringIO()
    run(batch=2, stderr=err)
    lines = err.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["2 of 4 sessions", "4 of 4 sessions"]


@pytest.mark.django_db(transaction=True)
def test_ctrl_c_at_the_terminal(tmp_path: Path) -> None:
    """A real process with a real terminal: a bar, and status 130."""
    for n in range(60):
        visitor(f"u{n}")
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    name = connection.settings_dict["NAME"]
    gate = tmp_path / "gate"
    process = subprocess.Popen(
        [
            # As at a terminal, also where these tests run in the background and ignore it.
            *("env", "--default-signal=INT"),
            *(sys.executable, "-m", "django", "import_django_sessions", "--batch", "10"),
        ],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "SM_TEST_DBNAME": name,
            "SM_TEST_GATE": str(gate),
            "SM_TEST_SESSION_MANAGER": '{"USER_ID_FIELD": "username",'
            ' "IMPORT_DATA": "tests.hooks.import_slowly"}',
        },
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
    )
    os.close(follower)
    shown = b""
    try:
        while b"/60" not in shown:
            shown += os.read(leader, 4096)
            assert process.poll() is None, shown
        wait_for(gate.exists, 60)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        with suppress(OSError):  # EIO, when all has been read
            while part := os.read(leader, 4096):
                shown += part
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert process.returncode == 130, shown
    assert b"--after " in shown
    assert b"Traceback" not in shown
    assert "20 sessions recorded" in out
    assert ImportedSession.objects.count() == 20


class TestSignOut:
    """A sign-out ends the Django session too, whether or not it has been taken over."""

    def recorded(self) -> Client:
        client = visitor("ada")
        run()
        return client

    def with_old_cookie(self, client: Client) -> Client:
        """Another request of the browser's, or a thief's."""
        other = Client()
        other.cookies["sessionid"] = client.cookies["sessionid"].value
        return other

    def is_over(self, client: Client) -> bool:
        answer = client.get("/info/").json()
        with_django = DjangoSession.objects.filter(pk=client.cookies["sessionid"].value).exists()
        return not answer["exists"] and not with_django

    @pytest.mark.parametrize("before", [0, 1])
    def test_at_the_endpoint(self, before: int) -> None:
        client = self.recorded()
        old = self.with_old_cookie(client)
        for _ in range(before):
            assert client.get("/info/").json()["exists"] is True
        assert client.delete("/api/sessions/current/").status_code == 204
        assert self.is_over(old)
        run()
        assert self.is_over(old)

    def test_beside_the_request_that_was_taken_over(self) -> None:
        client = self.recorded()
        old = self.with_old_cookie(client)
        assert client.get("/info/").json()["exists"] is True
        # Its browser has not got the cookie yet.
        assert old.delete("/api/sessions/current/").status_code == 204
        assert client.get("/info/").json()["exists"] is False

    @pytest.mark.django_db(transaction=True)
    def test_while_another_request_takes_it_over(self) -> None:
        client = self.recorded()
        taken_over = session_service.create("ada")
        request = RequestFactory().post("/")
        request.COOKIES["sessionid"] = client.cookies["sessionid"].value

        def sign_out() -> None:
            log_out(request)
            connection.close()

        with Superuser() as adopting, ThreadPoolExecutor(1) as pool:
            adopting.execute("BEGIN")
            adopting.execute(
                f"UPDATE {ImportedSession._meta.db_table} SET adopted_at = now(), session_id = %s",
                [taken_over.id],
            )
            signing_out = pool.submit(sign_out)
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            with Superuser() as watching:
                wait_for(lambda: watching.execute(waiting).fetchone()[0] == 1)
            adopting.execute("COMMIT")
            signing_out.result()
        assert session_service.get(taken_over.token) is None

    def test_everywhere(self) -> None:
        client = self.recorded()
        other = visitor("grace")
        run()
        session_service.invalidate_all("ada")
        assert client.get("/info/").json()["exists"] is False
        run()
        assert client.get("/info/").json()["exists"] is False
        assert other.get("/info/").json()["exists"] is True

    def test_of_the_next_user_of_a_browser(self) -> None:
        client = self.recorded()
        request = RequestFactory().post("/")
        request.COOKIES["sessionid"] = client.cookies["sessionid"].value
        log_in(request, "grace")
        assert self.with_old_cookie(client).get("/info/").json()["exists"] is False


def test_unknown_cookies_are_not_taken_over() -> None:
    for value in ("", "x", "x" * 5000, "é", "\0"):
        request = RequestFactory().get("/")
        request.COOKIES["sessionid"] = value
        assert look_up(request).session is None


def test_off(configure: Any, django_assert_num_queries: Any) -> None:
    client = visitor("ada")
    run()
    configure(IMPORT_DJANGO_SESSIONS=False)
    with django_assert_num_queries(0):
        assert client.get("/info/").json()["exists"] is False


def test_our_cookie_goes_first() -> None:
    client = visitor("ada")
    run()
    get_user_model().objects.create_user("grace")
    client.cookies[settings.cookie_name] = session_service.create("grace").token
    assert client.get("/info/").json()["user"] == "grace"


def test_stores_that_cannot_be_listed(settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    with pytest.raises(CommandError, match="cannot be listed"):
        run()


def test_the_key_is_not_kept() -> None:
    client = visitor("ada")
    run()
    noted = ImportedSession.objects.get()
    assert client.cookies["sessionid"].value not in str(vars(noted))
