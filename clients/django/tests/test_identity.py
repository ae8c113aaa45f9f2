"""Row-level security by session_identity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import RequestFactory
from rest_framework.exceptions import NotAuthenticated

from session_manager.conf import settings
from session_manager.exceptions import InvalidArgument
from session_manager.identity import bound_tenant_id, bound_user_id, session_identity
from session_manager.services import session_service
from session_manager.types import CreatedSession

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("backend")]


@pytest.fixture
def notes(superuser: Any) -> Iterator[None]:
    superuser.execute(
        """
        CREATE TABLE note (tenant text NOT NULL DEFAULT session_tenant_id(), body text);
        ALTER TABLE note ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON note USING (tenant = session_tenant_id());
        GRANT SELECT, INSERT ON note TO webapp;
        """
    )
    yield
    superuser.execute("DROP TABLE note")


def bodies() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT body FROM note ORDER BY body")
        return [body for (body,) in cursor.fetchall()]


def insert(body: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO note (body) VALUES (%s)", [body])


def request(created: CreatedSession) -> Any:
    request = RequestFactory().get("/")
    request.COOKIES[settings.cookie_name] = created.token
    return request


@pytest.mark.server_only("policies are of PostgreSQL")
def test_rows_of_the_tenant(notes: None, user_id: str) -> None:
    acme = session_service.create(user_id, tenant_id="acme")
    globex = session_service.create(user_id, tenant_id="globex")
    with session_identity(request(acme)):
        insert("of acme")
        assert (bound_user_id(), bound_tenant_id()) == (user_id, "acme")
    with session_identity(globex.token):
        assert bodies() == []
        insert("of globex")
        assert bodies() == ["of globex"]
    assert bodies() == []
    assert bound_user_id() is None


def test_nested(notes: None, user_id: str) -> None:
    acme = session_service.create(user_id, tenant_id="acme").token
    globex = session_service.create(user_id, tenant_id="globex").token
    with transaction.atomic():
        with session_identity(acme):
            with session_identity(globex):
                assert bound_tenant_id() == "globex"
            assert bound_tenant_id() == "acme"
            with pytest.raises(ZeroDivisionError), session_identity(globex):
                raise ZeroDivisionError
            assert bound_tenant_id() == "acme"
        assert bound_tenant_id() is None


def test_never_without_an_identity(user_id: str, created: CreatedSession) -> None:
    session_service.invalidate(created.token)
    for token in (created.token, "nonsense", ""):
        with pytest.raises(NotAuthenticated), session_identity(token):
            pytest.fail("ran without an identity")
    with pytest.raises(NotAuthenticated), session_identity(RequestFactory().get("/")):
        pytest.fail("ran without an identity")
    with transaction.atomic():
        live = session_service.create(user_id).token
        with session_identity(live):
            with pytest.raises(NotAuthenticated), session_identity(created.token):
                pytest.fail("ran without an identity")
            assert bound_user_id() == user_id


@pytest.mark.server_only("policies are of PostgreSQL")
def test_an_error_rolls_back(notes: None, user_id: str) -> None:
    token = session_service.create(user_id, tenant_id="acme").token
    with pytest.raises(ZeroDivisionError), session_identity(token):
        insert("lost")
        raise ZeroDivisionError
    with session_identity(token):
        assert bodies() == []


def test_assertions(backend: str, user_id: str) -> None:
    created = session_service.create(user_id)
    audience = session_service.audience()
    assert audience is not None
    assert session_service.assertion(created.token, "another") is not None
    assert session_service.assertion_id(created.id, user_id, audience) is not None
    assert session_service.assertion_id(created.id, "somebody", audience) is None
    session_service.invalidate(created.token)
    assert session_service.assertion(created.token, audience) is None
    assert session_service.assertion_id(created.id, user_id, audience) is None
    assert not session_service.bind_assertion("no.such.assertion")
    for wrong in ("", "x" * 513):
        with pytest.raises(InvalidArgument, match="audience"):
            session_service.assertion(created.token, wrong)
