"""Every endpoint and every status code that it has: a table, and a request for each cell."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connection, connections

from session_manager.conf import settings
from session_manager.services import session_service

from .conftest import Browser
from .issuer import Issuer
from .test_failures import Server, server
from .test_openapi import OPERATIONS

__all__ = ["server"]

pytestmark = pytest.mark.django_db(transaction=True)

API = "/api/sessions/"
LARGE = {"data": {"x": "y" * 66000}}


@dataclass
class Cell:
    """A request.  ``as_``: who sends it; ``cookie``: what becomes of the session's cookie."""

    as_: str = "user"
    body: Any = None
    code: str | None = None
    cookie: str = "kept"
    path: str | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    before: str | None = None


EXPIRED = Cell("ended", code="session_expired", cookie="cleared")
FOREIGN = Cell(headers={"Sec-Fetch-Site": "cross-site"}, code="csrf_failed")
NOT_JSON = Cell(body=b"{", code="parse_error")
MEDIA_TYPE = Cell(body=b"x", content_type="text/plain", code="unsupported_media_type")

# Without 429 and 503, which all have.
CELLS: dict[tuple[str, str], dict[int, Cell]] = {
    ("post", "create/"): {
        201: Cell("holder", cookie="set"),
        400: Cell("holder", b"{", "parse_error"),
        401: Cell("nobody", code="not_authenticated"),
        403: Cell("holder", code="csrf_failed", headers={"Sec-Fetch-Site": "cross-site"}),
        409: Cell("holder", code="session_limit_reached", before="limit"),
        413: Cell("holder", LARGE, "too_large"),
        415: Cell("holder", b"x", "unsupported_media_type", content_type="text/plain"),
    },
    ("get", "current/"): {200: Cell(), 401: EXPIRED},
    ("patch", "current/"): {
        200: Cell(body={"a": 1}),
        400: NOT_JSON,
        401: EXPIRED,
        403: FOREIGN,
        412: Cell(body={"a": 1}, headers={"If-Match": '"7"'}, code="version_conflict"),
        413: Cell(body=LARGE, code="too_large"),
        415: MEDIA_TYPE,
    },
    ("delete", "current/"): {204: Cell(cookie="cleared"), 403: FOREIGN},
    ("post", "refresh/"): {
        200: Cell(cookie="set"),
        400: NOT_JSON,
        401: EXPIRED,
        403: FOREIGN,
        413: Cell(body={"x": "y" * 140000}, code="too_large"),
        415: MEDIA_TYPE,
    },
    ("get", ""): {200: Cell(), 400: Cell(path="?limit=0", code="invalid"), 401: EXPIRED},
    ("delete", "{session_id}/"): {
        204: Cell(path="{other}/"),
        401: Cell("ended", code="session_expired", cookie="cleared", path="{other}/"),
        403: Cell(
            path="{other}/", headers={"Sec-Fetch-Site": "cross-site"}, code="csrf_failed"
        ),
        404: Cell(path=f"{uuid.uuid4()}/", code="not_found"),
    },
    ("post", "invalidate-all/"): {
        200: Cell(cookie="cleared"),
        400: NOT_JSON,
        401: EXPIRED,
        403: FOREIGN,
        413: Cell(body={"x": "y" * 140000}, code="too_large"),
        415: MEDIA_TYPE,
    },
    ("post", "tenant/"): {
        200: Cell(body={"tenant_id": "globex"}, cookie="set"),
        400: Cell(body={}, code="invalid"),
        401: EXPIRED,
        403: Cell(body={"tenant_id": "evil"}, code="tenant_refused"),
        413: Cell(body={"tenant_id": "globex"}, code="too_large", before="large"),
        415: MEDIA_TYPE,
    },
}
FLAT = [
    pytest.param(method, path, status, cell, id=f"{method} {path or 'list'} {status}")
    for (method, path), cells in CELLS.items()
    for status, cell in cells.items()
]


class Caller:
    """Sends the request of a cell."""

    def __init__(self, user_id: str, issuer: Issuer) -> None:
        self.user_id = user_id
        self.issuer = issuer
        self.other = session_service.create(user_id)

    def send(self, method: str, path: str, cell: Cell) -> Any:
        browser = Browser()
        headers = dict(cell.headers)
        if cell.as_ in ("user", "ended"):
            created = session_service.create(self.user_id, {"cart": [1]})
            if cell.as_ == "ended":
                session_service.invalidate(created.token)
            browser.give(created.token)
        elif cell.as_ == "holder":
            headers["Authorization"] = f"Bearer {self.issuer.token(self.user_id)}"
        if cell.path is not None:
            path = cell.path
        raw = isinstance(cell.body, bytes)
        if raw:
            browser._encode_json = lambda data, content_type: data  # type: ignore[method-assign]
        return browser.unsafe(
            method.upper(),
            f"{API}{path.format(other=self.other.id, session_id=self.other.id)}",
            cell.body,
            headers=headers,
            content_type=cell.content_type,
        )


@pytest.fixture
def caller(auth0: Issuer, user_id: str, configure: Callable[..., None]) -> Caller:
    configure(ON_SWITCH_TENANT="tests.hooks.on_switch_tenant")
    return Caller(user_id, auth0)


def check(response: Any, status: int, cell: Cell) -> None:
    """What all answers have, and all errors."""
    assert response.status_code == status, response.content
    assert response["Cache-Control"] == "no-store"
    morsel = response.cookies.get(settings.cookie_name)
    found = "kept" if morsel is None else "set" if morsel.value else "cleared"
    assert found == cell.cookie
    if morsel is not None:
        assert (morsel["httponly"], morsel["secure"]) == (True, True)
        assert (morsel["samesite"], morsel["path"], morsel["domain"]) == ("Lax", "/", "")
        assert (morsel["max-age"] > 0) is (found == "set")
    if status == 204:
        assert response.content == b""
        return
    assert response["Content-Type"] == "application/json"
    if status >= 400:
        assert set(response.json()) == {"detail", "code"}
        assert response.json()["code"] == cell.code
    assert ("WWW-Authenticate" in response) is (status == 401)
    assert ("Retry-After" in response) is (status in (429, 503))


def test_the_table_is_whole() -> None:
    """What the schema says, to the last cell; test_openapi compares that with the endpoints."""
    # 409 of a change of tenant is below: it takes a race.
    expected = {key: codes - {429, 503} for key, codes in OPERATIONS.items()}
    expected["post", "tenant/"] = expected["post", "tenant/"] - {409}
    assert {key: set(cells) for key, cells in CELLS.items()} == expected


@pytest.mark.parametrize(("method", "path", "status", "cell"), FLAT)
def test_cell(
    caller: Caller,
    method: str,
    path: str,
    status: int,
    cell: Cell,
    request: pytest.FixtureRequest,
    configure: Callable[..., None],
) -> None:
    if cell.before == "limit":
        setting = request.getfixturevalue("database_setting")
        setting("max_sessions_per_user", "1")
        setting("on_limit", "deny")
    elif cell.before == "large":
        configure(ON_SWITCH_TENANT="tests.hooks.on_switch_tenant_too_large")
    check(caller.send(method, path, cell), status, cell)


@pytest.mark.parametrize(("method", "path"), [pytest.param(*key, id=" ".join(key)) for key in CELLS])
def test_throttled(
    caller: Caller, configure: Callable[..., None], method: str, path: str
) -> None:
    cells = CELLS[method, path]
    status = min(cells)
    rate = "1/min"
    configure(THROTTLE_RATES={"create": rate, "refresh": rate, "write": rate, "read": rate})
    check(caller.send(method, path, cells[status]), status, cells[status])
    check(caller.send(method, path, cells[status]), 429, Cell(code="throttled"))


def test_stopped(caller: Caller, server: Server) -> None:
    """503 of every operation, and the cookie stays; afterwards all is as before."""
    created = session_service.create(caller.user_id)
    connections.close_all()

    def send(method: str, path: str, cell: Cell) -> Any:
        browser = Browser().give(created.token)
        headers = {}
        if path == "create/":
            headers["Authorization"] = f"Bearer {caller.issuer.token(caller.user_id)}"
        return browser.unsafe(
            method.upper(),
            f"{API}{path.format(session_id=caller.other.id)}",
            cell.body,
            headers=headers,
        )

    server.stop()
    for (method, path), cells in CELLS.items():
        response = send(method, path, cells[min(cells)])
        check(response, 503, Cell(code="store_unavailable"))
        assert response["Retry-After"] == "2"
    server.start()
    check(send("get", "current/", Cell()), 200, Cell())


@pytest.mark.parametrize("fails", [False, True])
def test_a_login_is_part_of_atomic_requests(user_id: str, fails: bool) -> None:
    """A view of the application's that fails after log_in: no session, no cookie, the old one lives."""
    old = session_service.create(user_id)
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        browser = Browser(raise_request_exception=False).give(old.token)
        response = browser.get(f"/login/?user={user_id}{'&fail=1' if fails else ''}")
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    listed = [entry.id for entry in session_service.list(user_id)]
    if fails:
        assert response.status_code == 500
        assert settings.cookie_name not in response.cookies
        assert listed == [old.id]
        assert session_service.get(old.token) is not None
    else:
        assert response.status_code == 204
        token = response.cookies[settings.cookie_name].value
        session = session_service.get(token)
        assert session is not None
        assert listed == [session.id]
        assert session_service.get(old.token) is None
