"""Row-level security in another database than the sessions', by assertions."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.test import RequestFactory
from rest_framework.exceptions import NotAuthenticated

from session_manager import identity
from session_manager.conf import settings
from session_manager.exceptions import SessionEnded
from session_manager.identity import bound_tenant_id, bound_user_id, session_identity
from session_manager.services import session_service
from session_manager.store import aliases

from .apart import NAME
from .conftest import Superuser

pytestmark = pytest.mark.django_db(transaction=True, databases=["default"])


@pytest.fixture
def trusting(apart: str, superuser: Any, configure: Any) -> Iterator[str]:
    """The default database trusts the sessions' one, and has notes that belong to users."""
    configure(DATABASE=apart, USER_ID_FIELD=None)
    with Superuser(NAME) as sessions:
        (keys,) = sessions.execute("SELECT session_assertion_keys()::text").fetchone()
    superuser.execute("SELECT session_trust(%s::jsonb)", [keys])
    superuser.execute(
        """
        CREATE TABLE note (owner text NOT NULL DEFAULT session_user_id(), body text);
        ALTER TABLE note ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON note USING (owner = session_user_id());
        GRANT SELECT, INSERT ON note TO webapp;
        """
    )
    identity._audiences.clear()
    try:
        yield keys
    finally:
        superuser.execute("DROP TABLE note")
        superuser.execute("DELETE FROM session_issuers")


def bodies() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT body FROM note ORDER BY body")
        return [body for (body,) in cursor.fetchall()]


def insert(body: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO note (body) VALUES (%s)", [body])


def test_rows_of_the_user(trusting: str) -> None:
    ada = session_service.create("ada", tenant_id="acme")
    bob = session_service.create("bob")
    request = RequestFactory().get("/")
    request.COOKIES[settings.cookie_name] = ada.token
    with session_identity(request, using="default"):
        insert("of ada")
        assert (bound_user_id("default"), bound_tenant_id("default")) == ("ada", "acme")
        # Nobody is bound where the sessions are.
        assert bound_user_id() is None
    with session_identity(bob.token, using="default"):
        assert bodies() == []
        insert("of bob")
    live = session_service.get_id(ada.id, "ada")
    assert live is not None
    with session_identity(live, using="default"):
        assert bodies() == ["of ada"]
    assert bound_user_id("default") is None
    assert bodies() == []


def test_within_a_transaction(trusting: str) -> None:
    ada, bob = session_service.create("ada"), session_service.create("bob")
    with transaction.atomic():
        with session_identity(ada.token, using="default"):
            with session_identity(bob.token, using="default"):
                assert bound_user_id("default") == "bob"
            assert bound_user_id("default") == "ada"
        assert bound_user_id("default") is None


def test_the_outer_session_ends_within(trusting: str) -> None:
    ada, bob = session_service.create("ada"), session_service.create("bob")
    with session_identity(ada.token, using="default"):
        with session_identity(bob.token, using="default"):
            session_service.invalidate(ada.token)
        assert bound_user_id("default") is None
        assert bodies() == []


def test_to_the_last_moment(trusting: str) -> None:
    """A session that ends between two steps has ended; nothing is wrong with the settings."""
    ada = session_service.create("ada", ttl=timedelta(seconds=2))
    started = time.monotonic()
    with pytest.raises(NotAuthenticated):
        while time.monotonic() - started < 10:
            with session_identity(ada.token, using="default"):
                pass
            time.sleep(0.02)


def test_ended(trusting: str) -> None:
    ada = session_service.create("ada")
    live = session_service.get_id(ada.id, "ada")
    assert live is not None
    session_service.invalidate(ada.token)
    for whose, error in (
        (ada.token, NotAuthenticated),
        (live, SessionEnded),
        (RequestFactory().get("/"), NotAuthenticated),
    ):
        with pytest.raises(error), session_identity(whose, using="default"):
            pytest.fail("ran without an identity")


def test_not_trusted(trusting: str, superuser: Any) -> None:
    ada = session_service.create("ada")
    with session_identity(ada.token, using="default"):
        pass
    superuser.execute("DELETE FROM session_issuers")
    with (
        pytest.raises(ImproperlyConfigured, match="session_trust"),
        session_identity(ada.token, using="default"),
    ):
        pytest.fail("ran without an identity")


@pytest.mark.parametrize(
    ("change", "back", "message"),
    [
        (
            "REVOKE EXECUTE ON FUNCTION session_audience() FROM webapp",
            "GRANT EXECUTE ON FUNCTION session_audience() TO webapp",
            "may not call",
        ),
        (
            "ALTER FUNCTION session_audience() RENAME TO somewhere",
            "ALTER FUNCTION somewhere() RENAME TO session_audience",
            "does not have the extension",
        ),
        (
            "CREATE TABLE kept AS TABLE session_installation; DELETE FROM session_installation",
            "INSERT INTO session_installation TABLE kept; DROP TABLE kept",
            "session_key_generate",
        ),
    ],
)
def test_what_the_database_lacks(
    trusting: str, superuser: Any, change: str, back: str, message: str
) -> None:
    ada = session_service.create("ada")
    superuser.execute(change)
    try:
        with (
            pytest.raises(ImproperlyConfigured, match=message),
            session_identity(ada.token, using="default"),
        ):
            pytest.fail("ran without an identity")
    finally:
        superuser.execute(back)


def test_another_audience(trusting: str) -> None:
    """The database has been restored from another one, say, while the process went on."""
    ada = session_service.create("ada")
    identity._audiences["default"] = str(uuid.uuid4())
    with session_identity(ada.token, using="default"):
        assert bound_user_id("default") == "ada"


def test_by_the_same_database(trusting: str, configure: Any) -> None:
    """By another role, say: no assertion is needed."""
    configure(DATABASE="default")
    ada = session_service.create("ada")
    with session_identity(ada.token, using="default"):
        assert bound_user_id("default") == "ada"


def test_for_services(trusting: str) -> None:
    """Any library for JSON Web Tokens can check one."""
    ada = session_service.create("ada", tenant_id="acme")
    assertion = session_service.assertion(ada.token, "billing")
    assert assertion is not None
    keys = jwt.PyJWKSet.from_json(trusting)
    key = keys[jwt.get_unverified_header(assertion)["kid"]]
    claims = jwt.decode(assertion, key, algorithms=["EdDSA"], audience="billing")
    assert (claims["sub"], claims["tenant"]) == ("ada", "acme")
    assert claims["sid"] == str(ada.id)
    assert claims["exp"] - claims["iat"] == 30
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(assertion, key, algorithms=["EdDSA"], audience="shipping")
    assert session_service.assertion("sm1_" + "A" * 64, "billing") is None
    with aliases.using("default"):
        assert not session_service.bind_assertion(assertion)
