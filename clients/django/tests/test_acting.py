"""Work beside requests: tasks of Celery's, and scripts, that act for a session by its id."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging, task_postrun
from django.contrib.auth import get_user_model
from django.db import connections, transaction

from session_manager.acting import Reference, SessionEnded, acting_for, for_session, reference
from session_manager.identity import bound_tenant_id, bound_user_id, session_identity
from session_manager.services import session_service
from session_manager.store.tokens import digest_form
from session_manager.types import CreatedSession, Session

from .pages import run, samples

pytestmark = pytest.mark.django_db


@pytest.fixture
def session(created: CreatedSession) -> Session:
    session = session_service.get(created.token)
    assert session is not None
    return session


@pytest.mark.usefixtures("backend")
class TestActing:
    def test_what_it_knows(self, session: Session) -> None:
        with acting_for(**reference(session)) as acting:
            assert acting.session.id == session.id
            assert acting.session.tenant_id == "acme"
            assert acting.session.actor_id is None
            assert acting.session.expires_at == session.expires_at
            assert acting.session.ends_at <= session.expires_at
            assert acting.user.user_id == session.user_id
            acting.check()
            assert acting.still_live()

    def test_it_stops(self, session: Session) -> None:
        with acting_for(session.id, session.user_id) as acting:
            session_service.invalidate_id(session.id)
            assert not acting.still_live()
            with pytest.raises(SessionEnded):
                acting.check()
        with pytest.raises(SessionEnded), acting_for(session.id, session.user_id):
            pytest.fail("runs")

    def test_a_new_token_changes_nothing(self, session: Session, created: CreatedSession) -> None:
        session_service.refresh(created.token, rotate=True)
        with acting_for(session.id, session.user_id) as acting:
            assert acting.still_live()

    def test_no_use_is_noted(self, session: Session) -> None:
        before = session_service.get_id(session.id, session.user_id)
        with acting_for(session.id, session.user_id) as acting:
            acting.check()
        assert session_service.get_id(session.id, session.user_id) == before

    @pytest.mark.parametrize("wrong", ["user", "id"])
    def test_another_s(self, wrong: str, session: Session) -> None:
        key: Any = {
            "user": (session.id, "somebody else"),
            "id": (uuid.uuid4(), session.user_id),
        }[wrong]
        with pytest.raises(SessionEnded), acting_for(*key):
            pytest.fail("runs")

    def test_of_a_user_who_is_gone(self, configure: Callable[..., None]) -> None:
        configure(USER_ID_FIELD="username", END_ON_USER_DEACTIVATED=False)
        ada = get_user_model().objects.create_user("ada")
        created = session_service.create("ada")
        with acting_for(created.id, "ada") as acting:
            assert acting.user == ada
            get_user_model().objects.update(is_active=False)
            assert not acting.still_live()
        with pytest.raises(SessionEnded), acting_for(created.id, "ada"):
            pytest.fail("runs")

    def test_identity(self, session: Session) -> None:
        with acting_for(**reference(session)) as acting:
            with session_identity(acting.session):
                assert (bound_user_id(), bound_tenant_id()) == (session.user_id, "acme")
            session_service.invalidate_id(session.id)
            with pytest.raises(SessionEnded), session_identity(acting.session):
                pytest.fail("runs")

    def test_identities_nest(self, session: Session) -> None:
        other = session_service.create("other")
        with acting_for(**reference(session)) as acting, transaction.atomic():
            with session_identity(acting.session):
                with session_identity(other.token):
                    assert bound_user_id() == "other"
                assert bound_user_id() == session.user_id
            assert bound_user_id() is None

    def test_the_decorator(self, session: Session) -> None:
        @for_session
        def work(acting: Any, number: int, *, more: str = "") -> Any:
            return acting.session.user_id, number, more

        assert work(1, more="x", **reference(session)) == (session.user_id, 1, "x")
        session_service.invalidate_id(session.id)
        with pytest.raises(SessionEnded):
            work(1, **reference(session))


def leave_logging(**kwargs: Any) -> None:
    """A receiver keeps Celery from setting up logging."""


class TestCelery:
    """A real worker in a thread, and a broker in memory whose messages are looked at."""

    @pytest.fixture
    def celery(self, transactional_db: None) -> Iterator[Celery]:
        app = Celery("tests", broker="memory://", backend="cache+memory://")
        app.conf.update(task_always_eager=False)
        # A worker would set the level of the root logger, for the tests after it as well.
        setup_logging.connect(leave_logging)
        # Tasks run in a thread of the worker's.
        task_postrun.connect(close_connections)
        yield app
        task_postrun.disconnect(close_connections)
        setup_logging.disconnect(leave_logging)
        app.close()

    @pytest.fixture
    def sent(self) -> Iterator[list[Any]]:
        """Whole messages as the broker has them."""
        from kombu.transport.memory import Channel

        messages: list[Any] = []
        put = Channel._put

        def noting(self: Any, queue: str, message: Any, **kwargs: Any) -> Any:
            messages.append(message)
            return put(self, queue, message, **kwargs)

        Channel._put = noting
        yield messages
        Channel._put = put

    @pytest.fixture
    def task(self, celery: Celery) -> Any:
        """That of docs/django.md."""
        sample, _ = samples("Tasks")
        names = run(
            sample.replace("@shared_task(", "@app.task(shared=False, "),
            __name__="reports.tasks",
            app=celery,
            Report=Reports,
        )
        return names["export"]

    def test_it_acts(
        self, celery: Celery, sent: list[Any], task: Any, created: CreatedSession, session: Session
    ) -> None:
        Reports.started.clear()
        Reports.goes_on.set()
        with start_worker(celery, perform_ping_check=False):
            result = task.delay(7, **reference(session))
            assert result.get(timeout=60) == [f"{session.user_id} 7 {n}" for n in range(3)]
        whole = json.dumps(sent, default=repr)
        assert str(session.id) in whole
        assert "sm1_" not in whole
        assert "sd1_" not in whole
        assert created.token[4:] not in whole
        assert (digest_form(created.token) or "")[30:] not in whole

    def test_it_stops_when_the_session_ends(
        self, celery: Celery, task: Any, session: Session
    ) -> None:
        Reports.started.clear()
        Reports.goes_on.clear()
        with start_worker(celery, perform_ping_check=False):
            result = task.delay(7, **reference(session))
            assert Reports.started.wait(60)
            session_service.invalidate_id(session.id)
            Reports.goes_on.set()
            with pytest.raises(SessionEnded):
                result.get(timeout=60)
            with pytest.raises(SessionEnded):
                task.delay(8, **reference(session)).get(timeout=60)


def close_connections(**kwargs: Any) -> None:
    connections.close_all()


class Row:
    def __init__(self, text: str) -> None:
        self.text = text

    def render(self) -> str:
        Reports.started.set()
        assert Reports.goes_on.wait(60)
        return self.text


class Reports:
    """The application's model in the sample."""

    started = threading.Event()
    goes_on = threading.Event()

    @staticmethod
    def rows(report_id: int) -> list[Row]:
        return [Row(f"{bound_user_id()} {report_id} {number}") for number in range(3)]


def test_a_script(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """The command of docs/django.md."""
    (sample,) = samples("Scripts")
    command = run(sample)["Command"]()
    old = session_service.create(session.user_id, ttl=timedelta(hours=1))
    command.handle(user=session.user_id)
    assert session_service.get_id(old.id, session.user_id) is None
    reasons = {
        (event.detail or {}).get("reason")
        for event in session_service.history(user_id=session.user_id)
        if event.event == "invalidated"
    }
    assert reasons == {"account_closed"}


def test_a_reference_is_json(session: Session) -> None:
    given: Reference = json.loads(json.dumps(reference(session)))
    with acting_for(**given) as acting:
        assert acting.still_live()
