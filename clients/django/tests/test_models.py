"""The ORM over the extension's tables, as a role that may read safe columns only."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.models import Count

from session_manager.models import (
    SessionEvent,
    SessionKey,
    UserSession,
    WritesRefused,
)
from session_manager.services import session_service
from session_manager.types import CreatedSession

pytestmark = pytest.mark.django_db


def ids(queryset: Any) -> set[uuid.UUID]:
    return set(queryset.values_list("session_id", flat=True))


def test_reads(created: CreatedSession, user_id: str) -> None:
    session = UserSession.objects.get(session_id=created.id)
    assert session.user_id == user_id
    assert session.tenant_id == "acme"
    assert session.ip == "127.0.0.1"
    assert session.expires_at == created.expires_at
    assert session.revoked_at is None
    assert str(session) == str(created.id)
    assert UserSession.objects.filter(user_id=user_id).count() == 1
    event = SessionEvent.objects.for_user(user_id).get()
    assert (event.event, event.session_id) == ("created", created.id)
    assert SessionEvent.objects.for_session(created.id).exists()
    assert str(event).startswith("created ")
    assert SessionKey.objects.filter(state="active").count() == 1


def test_secrets_are_out_of_reach(created: CreatedSession) -> None:
    for column in ("verifier", "sealed_data", "previous_verifier"):
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SELECT {column} FROM user_sessions")
    for sql in (
        "UPDATE user_sessions SET user_id = 'root'",
        "DELETE FROM user_sessions",
        "DELETE FROM session_events",
        "SELECT check_value FROM session_keys",
        "SELECT * FROM session_installation",
    ):
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql)
    names = {field.name for field in UserSession._meta.get_fields()}
    assert not names & {"verifier", "sealed_data", "previous_verifier", "data"}


@pytest.mark.parametrize("model", [UserSession, SessionEvent, SessionKey])
def test_writes_are_refused(model: Any) -> None:
    queryset = model.objects.all()
    attempts: list[Any] = [
        lambda: model().save(),
        lambda: model(pk=1).delete(),
        lambda: queryset.update(user_id="root"),
        lambda: queryset.delete(),
        lambda: model.objects.create(),
        lambda: model.objects.bulk_create([]),
        lambda: model.objects.get_or_create(),
        lambda: model.objects.update_or_create(),
        lambda: queryset.bulk_update([], []),
    ]
    for attempt in attempts:
        with pytest.raises(WritesRefused):
            attempt()


def test_active(user_id: str) -> None:
    live = session_service.create(user_id)
    dead = session_service.create(user_id)
    session_service.invalidate(dead.token)
    queryset = UserSession.objects.for_user(user_id)
    assert ids(queryset) == {live.id, dead.id}
    assert ids(queryset.active()) == {live.id}
    assert UserSession.objects.active().for_user(user_id).count() == 1
    reason = UserSession.objects.get(session_id=dead.id).revoked_reason
    assert reason == "logout"


@pytest.mark.django_db(transaction=True)
class TestActive:
    def test_expired(self, user_id: str, superuser: Any) -> None:
        created = session_service.create(user_id)
        superuser.execute(
            "UPDATE user_sessions SET expires_at = now() WHERE session_id = %s", [created.id]
        )
        self.agree(user_id, 0)

    def test_idle(self, user_id: str, superuser: Any, database_setting: Any) -> None:
        created = session_service.create(user_id)
        superuser.execute(
            "UPDATE user_sessions SET last_seen_at = now() - interval '2h' WHERE session_id = %s",
            [created.id],
        )
        self.agree(user_id, 1)
        database_setting("idle_timeout", "3h")
        self.agree(user_id, 1)
        database_setting("idle_timeout", "1h")
        self.agree(user_id, 0)
        database_setting("idle_timeout", "0")
        self.agree(user_id, 1)

    def test_idle_by_a_timeout_of_its_own(self, user_id: str, superuser: Any) -> None:
        for hours in (1, 3):
            created = session_service.create(user_id, idle_timeout=timedelta(hours=hours))
            superuser.execute(
                "UPDATE user_sessions SET last_seen_at = now() - interval '2h'"
                " WHERE session_id = %s",
                [created.id],
            )
        self.agree(user_id, 1)

    def test_a_revoked_key(self, user_id: str, superuser: Any) -> None:
        session_service.create(user_id)
        (key,) = superuser.execute("SELECT session_key_generate()").fetchone()
        superuser.execute("SELECT session_key_activate(%s)", [key])
        session_service.create(user_id)
        self.agree(user_id, 2)
        superuser.execute("SELECT session_key_revoke(%s)", [key])
        try:
            # the first session is alive unless a worker sealed it again meanwhile
            (alive,) = superuser.execute(
                "SELECT count(*) FROM user_sessions"
                " WHERE user_id = %s AND key_id <> %s AND verifier_key_id <> %s",
                [user_id, key, key],
            ).fetchone()
            assert alive in (0, 1)
            self.agree(user_id, alive)
        finally:
            superuser.execute(
                "SELECT session_key_activate(min(key_id)) FROM session_keys"
                " WHERE state <> 'revoked'"
            )

    @staticmethod
    def agree(user_id: str, count: int) -> None:
        """The queryset and the extension say the same."""
        assert session_service.get_active_sessions_count(user_id=user_id) == count
        assert UserSession.objects.for_user(user_id).active().count() == count


def test_revoke(user_id: str) -> None:
    sessions = [session_service.create(user_id) for _ in range(3)]
    other = session_service.create("somebody else")
    session_service.invalidate(sessions[0].token)
    assert UserSession.objects.for_user(user_id).revoke("spring_cleaning") == 2
    assert session_service.get(sessions[1].token) is None
    assert session_service.get(other.token) is not None
    assert session_service.history(session_id=sessions[1].id)[0].detail == {
        "reason": "spring_cleaning"
    }


class Users:
    def __init__(self) -> None:
        create = get_user_model().objects.create_user
        self.ada = create("ada", "ada@example.com")
        self.bob = create("bob", "bob@example.com", is_staff=True)


@pytest.fixture(params=["pk", "username"])
def users(request: pytest.FixtureRequest, configure: Any, db: None) -> Users:
    configure(USER_ID_FIELD=request.param)
    return Users()


def key_of(user: Any) -> str:
    from session_manager.store.users import user_id_of

    return user_id_of(user)


class TestRelation:
    """``user__...`` as adopters write it, whatever the type of the user's key."""

    def test_filter(self, users: Users) -> None:
        ada = session_service.create(key_of(users.ada)).id
        bob = session_service.create(key_of(users.bob)).id
        nobody = session_service.create("auth0|nobody").id
        objects = UserSession.objects.filter(session_id__in=[ada, bob, nobody])
        assert ids(objects.filter(user__email="ada@example.com")) == {ada}
        assert ids(objects.filter(user__email__endswith="@example.com")) == {ada, bob}
        assert ids(objects.filter(user__is_staff=True)) == {bob}
        assert ids(objects.filter(user=users.ada)) == {ada}
        assert ids(objects.filter(user__in=[users.ada, users.bob])) == {ada, bob}
        assert ids(objects.filter(user__in=get_user_model().objects.filter(is_staff=True))) == {bob}
        assert ids(objects.filter(user__pk=users.bob.pk)) == {bob}
        assert ids(objects.filter(user__isnull=True)) == {nobody}
        assert ids(objects.exclude(user__email="ada@example.com")) == {bob, nobody}
        assert ids(objects.for_user(users.ada)) == {ada}
        assert ids(objects.for_users(get_user_model().objects.filter(email="bob@example.com"))) == {
            bob
        }
        assert ids(objects.active().filter(user__email="ada@example.com")) == {ada}

    def test_order_and_count(self, users: Users) -> None:
        session_service.create(key_of(users.ada))
        session_service.create(key_of(users.bob))
        session_service.create(key_of(users.bob))
        objects = UserSession.objects.filter(user__isnull=False)
        counted = objects.order_by("user__email").values_list("user__email").annotate(Count("pk"))
        assert list(counted) == [("ada@example.com", 1), ("bob@example.com", 2)]

    def test_access(self, users: Users, django_assert_num_queries: Any) -> None:
        session = UserSession.objects.get(pk=session_service.create(key_of(users.ada)).id)
        assert session.user == users.ada
        with django_assert_num_queries(1):
            session = UserSession.objects.select_related("user").get(pk=session.pk)
            assert session.user == users.ada
        stranger = UserSession.objects.select_related("user").get(
            pk=session_service.create("auth0|nobody").id
        )
        assert stranger.user is None
        assert UserSession.objects.get(pk=stranger.pk).user is None

    def test_events(self, users: Users) -> None:
        session_service.create(key_of(users.ada))
        assert SessionEvent.objects.filter(user__email="ada@example.com").count() == 1

    def test_users_can_be_deleted(self, users: Users) -> None:
        created = session_service.create(key_of(users.ada))
        users.ada.delete()
        assert UserSession.objects.get(pk=created.id).user is None


def test_look_ups_that_could_match_nothing(configure: Any, user_id: str) -> None:
    """Without USER_ID_FIELD a subject would be compared with a primary key."""
    configure(USER_ID_FIELD=None)
    Users()
    session = UserSession.objects.get(pk=session_service.create(user_id).id)
    for look_up in (
        lambda: UserSession.objects.filter(user__email="ada@example.com").count(),
        lambda: list(UserSession.objects.select_related("user")),
        lambda: list(UserSession.objects.order_by("user__email")),
        lambda: UserSession.objects.for_users(get_user_model().objects.all()),
        lambda: list(SessionEvent.objects.exclude(user__isnull=True)),
        lambda: session.user,
    ):
        with pytest.raises(FieldError, match="USER_ID_FIELD"):
            look_up()
    assert UserSession.objects.for_user(user_id).active().count() == 1


def test_no_migration_is_missing() -> None:
    call_command("makemigrations", "session_manager", check=True, dry_run=True, verbosity=0)
