"""In a transaction a session is read as that transaction has left it, whoever began it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from session_manager import administration
from session_manager.exceptions import InvalidArgument
from session_manager.services import session_service
from session_manager.signals import session_created
from session_manager.store.tokens import token_bytes
from session_manager.store.transactions import changed_here

from .conftest import Heard, RedisServer, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def token(redis_server: RedisServer, user_id: str) -> str:
    """A session that Redis holds."""
    token = session_service.create(user_id, {"v": 1}).token
    wait_for(lambda: read(token)[1])
    return token


def read(token: str) -> tuple[Any, bool]:
    session = session_service.get(token, touch=False)
    assert session is not None
    return session.data["v"], session.cached


def test_autocommit_off(token: str) -> None:
    transaction.set_autocommit(False)
    try:
        wait_for(lambda: read(token) == (1, True) or transaction.rollback())
        session_service.update(token, {"v": 2})
        assert read(token) == (2, False)
        with transaction.atomic():
            assert read(token) == (2, False)
            session_service.update(token, {"v": 3})
        assert read(token) == (3, False)
        transaction.rollback()
        wait_for(lambda: read(token) == (1, True) or transaction.rollback())
        session_service.invalidate(token)
        assert session_service.get(token) is None
        transaction.rollback()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert read(token)[0] == 1


def test_an_expected_error_with_autocommit_off(user_id: str) -> None:
    transaction.set_autocommit(False)
    try:
        with pytest.raises(InvalidArgument):
            session_service.create(user_id, ttl=timedelta(0))
        assert session_service.create(user_id).token
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


@pytest.mark.parametrize("heard", [session_created], indirect=True)
def test_signals_with_autocommit_off(user_id: str, heard: Heard, transactional_db: None) -> None:
    transaction.set_autocommit(False)
    try:
        assert session_service.get(session_service.create(user_id).token) is not None
        assert len(heard) == 1
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


@pytest.mark.django_db(transaction=True, databases="__all__")
@pytest.mark.parametrize("what", ["tenant", "everything", "erase"])
def test_an_administrators_changes(
    redis_server: RedisServer, configure: Any, user_id: str, what: str
) -> None:
    """Where the application's own role is an administrator's."""
    configure(DATABASE="admin")
    token = session_service.create(user_id, {"v": 1}, tenant_id=user_id).token
    wait_for(lambda: read(token)[1])
    with transaction.atomic(using="admin"):
        if what == "tenant":
            assert administration.invalidate_tenant(user_id) == 1
        elif what == "everything":
            assert administration.invalidate_everything() >= 1
        else:
            assert administration.erase(user_id) == 1
        assert session_service.get(token) is None
        transaction.set_rollback(True, using="admin")
    assert read(token)[0] == 1


def test_a_login_beyond_the_limit(
    token: str, user_id: str, database_setting: Callable[[str, str], None]
) -> None:
    """It ends the oldest session."""
    database_setting("max_sessions_per_user", "1")
    wait_for(lambda: read(token)[1])
    with transaction.atomic():
        session_service.create(user_id)
        assert session_service.get(token) is None
        transaction.set_rollback(True)
    assert read(token)[0] == 1


def test_a_transaction_begun_by_sql(token: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            session_service.update(token, {"v": 2})
            assert read(token) == (2, False)
        finally:
            cursor.execute("ROLLBACK")
    wait_for(lambda: read(token) == (1, True))


def test_savepoints(token: str) -> None:
    with transaction.atomic():
        with transaction.atomic():
            session_service.update(token, {"v": 2})
        assert read(token) == (2, False)
        with transaction.atomic():
            session_service.update(token, {"v": 3})
            transaction.set_rollback(True)
        assert read(token) == (2, False)
        transaction.set_rollback(True)
    with transaction.atomic():
        with transaction.atomic():
            session_service.update(token, {"v": 4})
            transaction.set_rollback(True)
        assert read(token)[0] == 1
        session_service.update(token, {"v": 5})
        assert read(token) == (5, False)
        transaction.set_rollback(True)
    wait_for(lambda: read(token) == (1, True))


@pytest.mark.parametrize("commits", [True, False])
def test_a_block_that_is_used_again_remembers_nothing(user_id: str, commits: bool) -> None:
    tokens = [session_service.create(user_id).token for _ in range(20)]

    def changed(token: str) -> bool:
        raw = token_bytes(token)
        return raw is not None and changed_here(raw)

    @transaction.atomic
    def change(token: str) -> None:
        assert not any(changed(other) for other in tokens)
        session_service.update(token, {"a": 1})
        assert [other for other in tokens if changed(other)] == [token]
        transaction.set_rollback(not commits)

    for token in tokens:
        change(token)
    assert connection.run_on_commit == []
