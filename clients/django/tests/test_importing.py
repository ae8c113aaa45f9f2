"""From django.contrib.sessions to session_manager without signing anybody out."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session as DjangoSession
from django.core.management import CommandError, call_command
from django.test import Client, RequestFactory
from django.utils import timezone

from session_manager import importing
from session_manager.conf import settings
from session_manager.models import ImportedSession
from session_manager.requests import look_up
from session_manager.services import session_service

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
    call_command("import_django_sessions", stdout=out, **options)
    return out.getvalue()


def ours(client: Client) -> str | None:
    morsel = client.cookies.get(settings.cookie_name)
    return morsel.value if morsel and morsel.value else None


def test_taken_over_on_the_next_request(django_assert_num_queries: Any) -> None:
    client = visitor("ada")
    assert client.get("/info/").json()["exists"] is False
    assert "1 sessions noted" in run()
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
    assert "1 sessions would be noted, 0 noted before, 3 left out" in run(dry_run=True)
    assert ImportedSession.objects.count() == 0
    assert "1 sessions noted, 0 noted before" in run(batch=1)
    assert "0 sessions noted, 1 noted before" in run()


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
