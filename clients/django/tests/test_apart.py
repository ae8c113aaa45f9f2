"""Sessions in another database than all else, without a router."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import FieldError
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from session_manager.models import ImportedSession, SessionEvent, UserSession
from session_manager.services import session_service
from session_manager.store.aliases import same_database
from session_manager.store.relations import attach_users

from .apart import add_alias, remove_alias

pytestmark = pytest.mark.django_db(transaction=True, databases=["default"])
LIST = "/admin/session_manager/usersession/"


def create_users() -> Any:
    users = get_user_model().objects
    users.create_user("bob", "bob@example.com")
    return users.create_user("ada", "ada@example.com")


def sessions_of(*user_ids: str) -> list[UserSession]:
    """A session of each, in this order."""
    made = [session_service.create(user_id).id for user_id in user_ids]
    found = UserSession.objects.in_bulk(made)
    return [found[session_id] for session_id in made]


def tables(alias: str) -> set[str]:
    return set(connections[alias].introspection.table_names())


def test_migrations(apart: str, superuser: Any) -> None:
    assert "session_manager_importedsession" in tables(apart)
    # Nothing of other applications; what they need of this one is where they are.
    assert not tables(apart) & {"auth_user", "django_content_type", "django_session"}
    assert Permission.objects.filter(codename="revoke_usersession").exists()
    assert ContentType.objects.filter(app_label="session_manager").exists()
    # And the other way round.
    superuser.execute("CREATE DATABASE sm_apart_main OWNER webapp")
    try:
        add_alias("main", "sm_apart_main")
        call_command("migrate", "session_manager", database="main", verbosity=0)
        assert "session_manager_importedsession" not in tables("main")
        call_command("migrate", "session_manager", "zero", database="main", verbosity=0)
    finally:
        remove_alias("main")
        superuser.execute("DROP DATABASE sm_apart_main WITH (FORCE)")
    call_command("migrate", "session_manager", "zero", database=apart, verbosity=0)
    assert "session_manager_importedsession" not in tables(apart)


def test_checks(apart: str) -> None:
    call_command("check", databases=[apart], fail_level="WARNING", stderr=StringIO())
    call_command("check", databases=["default", apart], stderr=StringIO())


def test_models(apart: str) -> None:
    ada = create_users()
    created = session_service.create("ada")
    other = session_service.create("bob")
    assert UserSession.objects.db == apart
    assert UserSession.objects.active().count() == 2
    session = UserSession.objects.for_user(ada).get()
    assert session.pk == created.id
    assert session.user == ada
    assert SessionEvent.objects.for_session(created.id).get().user == ada
    chosen = UserSession.objects.for_users(get_user_model().objects.filter(email__startswith="b"))
    assert [s.pk for s in chosen] == [other.id]
    assert UserSession.objects.for_user("bob").revoke() == 1
    assert session_service.get(other.token) is None
    assert not UserSession.objects.using(apart).active().for_user("bob").exists()
    for look_up in (
        lambda: UserSession.objects.filter(user__email="ada@example.com").count(),
        lambda: list(UserSession.objects.filter(user=ada)),
        lambda: list(UserSession.objects.select_related("user")),
    ):
        with pytest.raises(FieldError, match="for_users"):
            look_up()


def test_users_of_many(apart: str, django_assert_num_queries: Any) -> None:
    ada = create_users()
    sessions = sessions_of("ada", "ada", "nobody", "bob")
    with django_assert_num_queries(1):
        attach_users(sessions)
        assert [s.user and s.user.username for s in sessions] == ["ada", "ada", None, "bob"]
    assert sessions[0].user == ada
    attach_users([])


def test_users_by_number(apart: str, configure: Any) -> None:
    configure(USER_ID_FIELD="pk")
    ada = create_users()
    sessions = sessions_of(str(ada.pk), f"0{ada.pk}", "9" * 40, "auth0|ada")
    attach_users(sessions)
    assert [s.user for s in sessions] == [ada, None, None, None]


def test_admin(apart: str, configure: Any) -> None:
    create_users()
    first, second = session_service.create("ada", ip="203.0.113.7"), session_service.create("ada")
    bob = session_service.create("bob")
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))

    def shown(**query: str) -> set[str]:
        response = client.get(LIST, query)
        assert response.status_code == 200
        return {str(row.pk) for row in response.context_data["cl"].result_list}

    everybody = {str(s.id) for s in (first, second, bob)}
    assert shown() == shown(state="live") == shown(q="example.com") == everybody
    assert shown(q="ada@example.com") == shown(q="'ada@example.com'") == everybody - {str(bob.id)}
    assert shown(q="ada@example 203.0.113.7") == shown(q="203.0.113.7") == {str(first.id)}
    assert shown(q="bob") == shown(q=str(bob.id)) == {str(bob.id)}
    assert shown(q="no such user") == set()
    events = client.get("/admin/session_manager/sessionevent/", {"q": "bob@example"})
    assert str(bob.id) in events.content.decode()
    page = client.get(f"{LIST}{first.id}/change/")
    assert "created" in page.content.decode()
    for user_id in ("ada", "bob"):
        assert user_id in client.get(LIST).content.decode()
    client.post(LIST, {"action": "revoke", "_selected_action": [str(bob.id)]})
    assert session_service.get(bob.token) is None
    assert LogEntry.objects.get(object_id=str(bob.id)).change_message == "Revoked."
    client.post(f"{LIST}{first.id}/change/", {"_revoke_all": "1"})
    assert session_service.get(second.token) is None
    # A page of users is one query, not one for each session.
    for n in range(10):
        get_user_model().objects.create_user(f"u{n}")
        session_service.create(f"u{n}")
    with CaptureQueriesContext(connection) as captured:
        client.get(LIST)
    assert len([q for q in captured if '"auth_user"' in q["sql"]]) <= 3


def test_commands(apart: str) -> None:
    created = session_service.create("ada")

    def run(*arguments: str) -> str:
        out = StringIO()
        call_command(*arguments, stdout=out, stderr=StringIO())
        return out.getvalue()

    assert str(created.id) in run("sessions", "list")
    assert str(created.id) in run("sessions", "show", str(created.id))
    assert "0 sessions are due" in run("cleanup_sessions", "--dry-run")
    assert "1 sessions ended" in run("sessions", "revoke", "--user", "ada")
    with pytest.raises(CommandError, match="permission denied"):
        run("session_keys", "list")


class AllInDefault:
    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "default"

    db_for_write = db_for_read


def test_a_request(apart: str, configure: Any, settings: Any) -> None:
    create_users()
    client = Client()
    client.cookies["__Host-session_token"] = session_service.create("ada", {"n": 1}).token
    assert client.get("/info/").json() == {"exists": True, "user": "ada", "data": {"n": 1}}
    configure(IMPORT_DJANGO_SESSIONS=True)
    client = Client()
    client.force_login(get_user_model().objects.get(username="ada"))
    # As a router of an application's, which knows nothing of this package.
    settings.DATABASE_ROUTERS = [AllInDefault()]
    call_command("import_django_sessions", stdout=StringIO(), stderr=StringIO())
    assert ImportedSession.objects.get().user_id == "ada"
    assert client.get("/info/").json()["user"] == "ada"
    assert ImportedSession.objects.get().adopted_at is not None


@pytest.mark.django_db(databases="__all__")
def test_another_role_is_no_other_database() -> None:
    assert same_database("default", "admin")


def test_a_service_of_libpq_is_a_database() -> None:
    connections.settings["elsewhere"] = {
        **connections["default"].settings_dict,
        "OPTIONS": {"service": "elsewhere"},
    }
    try:
        assert not same_database("default", "elsewhere")
    finally:
        remove_alias("elsewhere")
