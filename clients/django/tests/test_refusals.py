"""401: why a session has ended, and a cookie that no late answer deletes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from session_manager.conf import settings
from session_manager.services import session_service
from session_manager.types import CreatedSession

from .conftest import Browser, Superuser
from .issuer import Issuer
from .serving import Served
from .test_asgi import CREATE, CURRENT, REFRESH, Visitor, in_thread, serve, transport_to

__all__ = ["serve"]

TENANT = "/api/sessions/tenant/"
# In DRF, and in views of Django's own and of an application's.
READS = [CURRENT, "/api/sessions/", "/protected/", "/bound-plainly/"]

REVOKED = [
    ("logout", "logout"),
    ("evicted", "evicted"),
    ("password_changed", "password_changed"),
    ("a" * 32, "a" * 32),
    # Free text, and what is none of ours to tell.
    ("a" * 33, None),
    ("called by phone", None),
    ("Admin", None),
    ("admin\n", None),
    ("<b>", None),
    ("été", None),
    ("7", None),
]


def body_of(response: Any) -> dict[str, Any]:
    assert response.status_code == 401, response.content
    assert "Session" in response["WWW-Authenticate"]
    assert settings.cookie_name not in response.cookies
    body = dict(response.json())
    assert body.pop("detail")
    return body


@pytest.mark.django_db
class TestReasons:
    @pytest.mark.parametrize(("reason", "told"), REVOKED)
    def test_revoked(
        self, signed_in: Browser, created: CreatedSession, reason: str, told: str | None
    ) -> None:
        session_service.invalidate(created.token, reason)
        assert session_service.end_reason(created.token) == reason
        expected = {"code": "session_revoked"} | ({"reason": told} if told else {})
        for path in READS:
            assert body_of(signed_in.get(path)) == expected, path
        assert body_of(signed_in.unsafe("POST", REFRESH)) == expected
        assert body_of(signed_in.unsafe("PATCH", CURRENT, {"client": 1})) == expected

    def test_expired(self, signed_in: Browser, created: CreatedSession) -> None:
        session_service.refresh(created.token, ttl=timedelta(microseconds=1))
        assert session_service.end_reason(created.token) == "expired"
        for path in READS:
            assert body_of(signed_in.get(path)) == {"code": "session_expired"}, path
        assert body_of(signed_in.unsafe("POST", REFRESH)) == {"code": "session_expired"}

    @pytest.mark.parametrize("reason", ["expired", "idle"])
    def test_revoked_as_if_expired(
        self, signed_in: Browser, created: CreatedSession, reason: str
    ) -> None:
        session_service.invalidate(created.token, reason)
        assert body_of(signed_in.get(CURRENT)) == {"code": "session_expired"}

    def test_told_to_its_token_alone(self, created: CreatedSession) -> None:
        session_service.invalidate(created.token, "evicted")
        guess = created.token[:-1] + ("A" if created.token[-1] != "A" else "B")
        for token in (guess, "sm1_" + "A" * 64):
            assert session_service.end_reason(token) is None
            for path in READS:
                assert body_of(Browser().give(token).get(path)) == {"code": "session_expired"}
        assert session_service.end_reason(None) is None
        assert session_service.end_reason("nonsense") is None

    def test_without_a_cookie(self, browser: Browser) -> None:
        for path in READS:
            assert body_of(browser.get(path)) == {"code": "not_authenticated"}, path

    def test_something_else_is_missing(self, signed_in: Browser, created: CreatedSession) -> None:
        """A login without an access token, beside a cookie of a session that has ended."""
        session_service.invalidate(created.token, "evicted")
        signed_in.get(CURRENT)
        body = signed_in.unsafe("POST", CREATE, {}).json()
        assert body == {"detail": "An access token is required.", "code": "not_authenticated"}

    def test_asked_when_a_401_is_written(
        self, signed_in: Browser, created: CreatedSession, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(1):
            assert signed_in.get(CURRENT).status_code == 200
        session_service.invalidate(created.token)
        with django_assert_num_queries(1):
            assert signed_in.get("/info/").json()["exists"] is False
            assert "reason" not in signed_in.get("/plain/").content.decode()
        # In a transaction of a test, where the question is put in a savepoint.
        with django_assert_num_queries(4):
            assert signed_in.get(CURRENT).status_code == 401


@pytest.mark.django_db(transaction=True)
class TestTransactions:
    async def test_twin(self, user_id: str) -> None:
        created = await session_service.acreate(user_id)
        assert await session_service.aend_reason(created.token) is None
        await session_service.ainvalidate(created.token, "evicted")
        assert await session_service.aend_reason(created.token) == "evicted"
        await sync_to_async(connections.close_all)()

    @pytest.mark.parametrize("path", READS)
    def test_a_database_that_cannot_say_why(
        self, signed_in: Browser, created: CreatedSession, superuser: Superuser, path: str
    ) -> None:
        """That there is no session is certain all the same."""
        session_service.invalidate(created.token, "evicted")
        superuser.execute("ALTER FUNCTION session_end_reason(text) RENAME TO session_end_reason_")
        try:
            assert body_of(signed_in.get(path)) == {"code": "session_expired"}
        finally:
            superuser.execute(
                "ALTER FUNCTION session_end_reason_(text) RENAME TO session_end_reason"
            )
        assert body_of(signed_in.get(path))["reason"] == "evicted"


async def log_in(visitor: Visitor, issuer: Issuer) -> None:
    bearer = f"Bearer {issuer.token(visitor.user_id)}"
    await visitor.expect(201, "POST", CREATE, {}, Authorization=bearer)


async def step_up(visitor: Visitor, issuer: Issuer) -> None:
    await visitor.expect(200, "POST", "/step-up/")


async def switch(visitor: Visitor, issuer: Issuer) -> None:
    await visitor.expect(200, "POST", TENANT, {"tenant_id": "globex"})


async def refresh(visitor: Visitor, issuer: Issuer) -> None:
    await visitor.expect(200, "POST", REFRESH)
    # The first use of the new token: from then on the old one is refused.
    await visitor.expect(200, "GET", CURRENT)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [log_in, step_up, switch, refresh])
def test_a_late_answer(
    serve: Callable[..., Served],
    issuer: Issuer,
    database_setting: Callable[[str, str], None],
    user_id: str,
    change: Callable[[Visitor, Issuer], Any],
) -> None:
    """Requests with the old token, some beside the change and some answered after it."""

    async def late(visitor: Visitor, old: str, path: str) -> Any:
        # Into the cookie jar that all of them share, as in a browser.
        cookie = f"{settings.cookie_name}={old}"
        answer = await visitor.http.get(path, headers={"Cookie": cookie})
        assert answer.status_code in (200, 401)
        return answer

    async def all_of_it(served: Served) -> None:
        async with transport_to(served) as transport:
            visitor = Visitor(served, transport, user_id)
            await visitor.expect(401, "GET", CURRENT)
            await log_in(visitor, issuer)
            for _ in range(5):
                old = visitor.token
                assert old is not None
                beside = [late(visitor, old, path) for path in [CURRENT, "/info/"] * 2]
                await asyncio.gather(change(visitor, issuer), *beside)
                new = visitor.token
                assert new not in (None, old)
                answers = [await late(visitor, old, path) for path in [CURRENT, "/info/"]]
                assert (answers[0].status_code, answers[1].json()["exists"]) == (401, False)
                set_by = [answer.headers.get("set-cookie", "") for answer in answers]
                assert not any(settings.cookie_name in header for header in set_by)
                assert visitor.token == new
                await visitor.expect(200, "GET", CURRENT)
            await in_thread(session_service.invalidate_all, user_id)

    database_setting("rotation_grace", "0")
    with serve() as served:
        asyncio.run(all_of_it(served))
