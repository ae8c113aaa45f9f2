"""Every endpoint, every status code and every code of an error: a table, and a request for each.

The table is compared with the OpenAPI schema and with docs/django.md: what one of them has and
another has not is a failure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from drf_spectacular.generators import SchemaGenerator

from session_manager.conf import settings
from session_manager.services import session_service
from session_manager.store.shards import alias_of, bucket_of_id
from session_manager.types import CreatedSession

from .conftest import Browser, Superuser
from .issuer import Issuer
from .software_device import Key
from .test_failures import Server, server

__all__ = ["server"]

pytestmark = pytest.mark.django_db(transaction=True)

API = "/api/sessions/"
DOCS = Path(__file__).resolve().parents[3] / "docs" / "django.md"


@dataclass(frozen=True)
class Cell:
    """A request and what it is answered.

    by: who sends it: somebody signed in ("user"), the "holder" of an access token, "nobody", or
    somebody whose session has "ended", "expired" or is "corrupt", or whose token has been
    "replaced" and used, or whose session is "bound" to a device, or that and corrupt.
    device: what the device says in headers.
    cookie: what becomes of the session's cookie.  before: what is arranged first.
    """

    code: str | None = None
    by: str = "user"
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    path: str | None = None
    before: str | None = None
    cookie: str = "kept"
    claims: dict[str, Any] = field(default_factory=dict)
    device: str | None = None


KEY = Key()
UNKNOWN = "01975a3e-9c00-7abc-9def-012345675ec4"
HUGE = {"x": "y" * 140000}
LARGE = {"client": "y" * 66000}
ENDED = Cell("session_revoked", "ended")
EXPIRED = Cell("session_expired", "expired")
NOBODY = Cell("not_authenticated", "nobody")
REFUSED = [ENDED, EXPIRED, NOBODY]
CORRUPT = [Cell("session_data_corrupt", "corrupt")]
CROSS_SITE = {"Sec-Fetch-Site": "cross-site"}
FOREIGN = Cell("csrf_failed", headers=CROSS_SITE)
NOT_JSON = Cell("parse_error", body=b"{")
BLANK = Cell("parse_error", body=b"\f")
TOO_LARGE = Cell("too_large", body=HUGE)
TEXT = [Cell("unsupported_media_type", body=b"x", content_type="text/plain")]
OTHER = "{other}/"

# Without 429 and 503 store_unavailable, which are below.
CELLS: dict[tuple[str, str], dict[int, list[Cell]]] = {
    ("post", "create/"): {
        201: [Cell(by="holder", cookie="set")],
        400: [
            Cell("parse_error", "holder", b"{"),
            Cell("invalid", "holder", {"data": 1}),
            Cell("invalid", "nobody", {"access_token": 1}),
            Cell("invalid", "nobody", {"access_token": ""}),
            Cell("protected_data", "holder", {"data": {"roles": ["admin"]}}),
            Cell("user_mismatch", "holder", {"user": {"sub": "auth0|somebody else"}}),
        ],
        401: [
            NOBODY,
            Cell("invalid_token", "holder", claims={"aud": "https://elsewhere.example.com"}),
            Cell("token_expired", "holder", claims={"exp": 1_000_000_000}),
        ],
        403: [
            Cell("csrf_failed", "holder", headers=CROSS_SITE),
            Cell("user_not_found", "holder", before="users"),
        ],
        409: [Cell("session_limit_reached", "holder", before="limit")],
        413: [Cell("too_large", "holder", HUGE), Cell("too_large", "holder", {"data": LARGE})],
        415: [Cell("unsupported_media_type", "holder", b"x", content_type="text/plain")],
        503: [Cell("issuer_unavailable", "holder", before="issuer")],
    },
    ("get", "current/"): {200: [Cell()], 401: REFUSED, 500: CORRUPT},
    ("patch", "current/"): {
        200: [
            Cell(body={"client": {"a": 1}}),
            Cell(body={"client": {"a": 1}}, headers={"If-Match": '"1"'}),
            Cell(body={"client": {"a": 1}}, content_type="application/merge-patch+json"),
        ],
        400: [NOT_JSON, Cell("protected_data", body={"plan": "team"})],
        401: REFUSED,
        403: [FOREIGN],
        412: [Cell("version_conflict", body={"client": 1}, headers={"If-Match": '"7"'})],
        413: [TOO_LARGE, Cell("too_large", body=LARGE)],
        415: TEXT,
        500: CORRUPT,
    },
    ("delete", "current/"): {
        204: [Cell(by=by, cookie="cleared") for by in ("user", "ended", "nobody", "corrupt")],
        403: [FOREIGN],
    },
    ("post", "refresh/"): {
        200: [Cell(cookie="set"), Cell(body={"rotate": False})],
        400: [NOT_JSON, *(Cell("invalid", body={"rotate": v}) for v in (0, "false", None))],
        401: [*REFUSED, Cell("token_reused", "replaced")],
        403: [FOREIGN],
        413: [TOO_LARGE],
        415: TEXT,
        500: CORRUPT,
    },
    ("get", ""): {
        200: [Cell(), Cell(path="?limit=1&after=01975a3e-9c00-7abc-9def-012345675ec4")],
        400: [Cell("invalid", path="?limit=0"), Cell("invalid", path="?after=yesterday")],
        401: REFUSED,
        500: CORRUPT,
    },
    ("delete", "{session_id}/"): {
        204: [Cell(path=OTHER), Cell(path="{own}/", cookie="cleared")],
        401: [
            Cell("session_revoked", "ended", path=OTHER),
            Cell("session_expired", "expired", path=OTHER),
            Cell("not_authenticated", "nobody", path=OTHER),
        ],
        403: [Cell("csrf_failed", path=OTHER, headers=CROSS_SITE)],
        404: [
            Cell("not_found", path="01975a3e-9c00-7abc-9def-012345675ec4/"),
            Cell("not_found", path="{strangers}/"),
            # A slip of a front end's.
            Cell("not_found", path="undefined/"),
        ],
        500: [Cell("session_data_corrupt", "corrupt", path=OTHER)],
    },
    ("post", "invalidate-all/"): {
        200: [Cell(cookie="cleared"), Cell(body={"except_current": True})],
        400: [
            NOT_JSON,
            BLANK,
            *(Cell("invalid", body={"except_current": v}) for v in (1, "true", [])),
        ],
        401: REFUSED,
        403: [FOREIGN],
        413: [TOO_LARGE],
        415: TEXT,
        500: CORRUPT,
    },
    ("delete", "impersonation/"): {200: [Cell()], 401: REFUSED, 403: [FOREIGN], 500: CORRUPT},
    ("post", "tenant/"): {
        200: [Cell(body={"tenant_id": "globex"}, cookie="set")],
        400: [
            NOT_JSON,
            *(
                Cell("invalid", body=body)
                for body in ({}, {"tenant_id": 7}, {"tenant_id": ""}, {"tenant_id": "x" * 513})
            ),
        ],
        401: REFUSED,
        403: [FOREIGN, Cell("tenant_refused", body={"tenant_id": "evil"})],
        409: [Cell("token_replaced", "rotated", body={"tenant_id": "globex"})],
        413: [TOO_LARGE, Cell("too_large", body={"tenant_id": "globex"}, before="large tenant")],
        415: TEXT,
        500: CORRUPT,
    },
}
CELLS["post", "device/register/"] = {
    200: [Cell(device="registers", cookie="set")],
    400: [
        Cell("device_answer_invalid"),
        Cell("device_answer_invalid", headers={"Secure-Session-Response": "x"}),
    ],
    401: REFUSED,
    403: [
        Cell("device_challenge", device="registers another's"),
        Cell("device_binding_off", device="registers", before="off"),
    ],
    409: [
        Cell("device_already_bound", "bound"),
        Cell("token_replaced", "rotated", device="registers"),
    ],
    500: CORRUPT,
}
CELLS["post", "device/refresh/"] = {
    200: [
        Cell(by="bound", device="proves"),
        *(Cell(by=by, device="is unknown") for by in ("user", "bound", "ended", "nobody")),
    ],
    400: [
        Cell("device_answer_invalid"),
        Cell(
            "device_answer_invalid",
            "bound",
            device="asks",
            headers={"Secure-Session-Response": "x"},
        ),
    ],
    403: [Cell("device_challenge", "bound", device="asks")],
    500: [Cell("session_data_corrupt", "bound, corrupt", device="asks")],
}
# What an answer has beside its code.
MORE = {"session_limit_reached": {"sessions"}, "session_revoked": {"reason"}}
OPERATIONS = list(CELLS)
FLAT = [
    pytest.param(method, path, status, cell, id=f"{method} {path} {status} {cell.code} {n}")
    for (method, path), cells in CELLS.items()
    for status, variants in cells.items()
    for n, cell in enumerate(variants)
]
# What so many endpoints say that the docs say it once, above the table.
COMMON = {
    (400, "parse_error"),
    (401, "not_authenticated"),
    (401, "session_expired"),
    (401, "session_revoked"),
    (403, "csrf_failed"),
    (413, "too_large"),
    (415, "unsupported_media_type"),
    (429, "throttled"),
    (500, "session_data_corrupt"),
    (503, "store_unavailable"),
}


class Caller:
    """Sends the requests of a user who has another session beside."""

    def __init__(self, issuer: Issuer, user_id: str, arrange: Callable[[str], None]) -> None:
        self.issuer = issuer
        self.user_id = user_id
        self.arrange = arrange
        self.other = session_service.create(user_id)
        self.strangers = session_service.create(f"{user_id} is another")

    def said(self, what: str | None, own: CreatedSession) -> dict[str, str]:
        """The headers in which a browser tells what its device says."""
        if what is None:
            return {}
        if what.startswith("registers"):
            token = own.token if what == "registers" else self.other.token
            challenge = session_service.device_challenge(token)
            return {"Secure-Session-Response": f'"{KEY.token(challenge, register=True)}"'}
        device = session_service.device(own.token)
        if what == "is unknown" or device is None:
            return {"Sec-Secure-Session-Id": UNKNOWN}
        headers = {"Sec-Secure-Session-Id": f'"{device.binding_id}"'}
        if what == "proves":
            challenge = session_service.device_challenge(own.token)
            headers["Secure-Session-Response"] = f'"{KEY.token(challenge)}"'
        return headers

    def send(self, method: str, path: str, cell: Cell, own: CreatedSession | None = None) -> Any:
        """own: the session of the request, in the place of a new one."""
        browser = Browser()
        headers = dict(cell.headers)
        if own is None and cell.by in ("holder", "nobody"):
            own = self.other
        elif own is None:
            own = session_service.create(self.user_id, {"cart": [1]})
        if cell.by == "holder":
            token = self.issuer.token(self.user_id, **cell.claims)
            headers["Authorization"] = f"Bearer {token}"
        elif cell.by.startswith("bound"):
            challenge = session_service.device_challenge(own.token)
            bound = session_service.bind_device(own.token, KEY.jwk, str(challenge))
            browser.give(bound.token or own.token)
        elif cell.by != "nobody":
            browser.give(own.token)
        headers.update(self.said(cell.device, own))
        if cell.by == "ended":
            assert session_service.invalidate(own.token)
        elif cell.by == "expired":
            moment = timedelta(microseconds=1)
            assert session_service.refresh(own.token, ttl=moment).status == "extended"
        elif cell.by.endswith("corrupt"):
            with Superuser(alias=alias_of(bucket_of_id(own.id))) as superuser:
                superuser.execute(
                    "UPDATE user_sessions SET sealed_data ="
                    " set_byte(sealed_data, 40, get_byte(sealed_data, 40) # 1)"
                    " WHERE session_id = %s",
                    [own.id],
                )
        elif cell.by == "rotated":
            assert session_service.refresh(own.token, rotate=True).token is not None
        elif cell.by == "replaced":
            self.arrange("no grace")
            rotated = session_service.refresh(own.token, rotate=True)
            assert session_service.get(rotated.token) is not None
        if cell.before is not None:
            self.arrange(cell.before)
        path = (path if cell.path is None else cell.path).format(
            own=own.id,
            other=self.other.id,
            session_id=self.other.id,
            strangers=self.strangers.id,
        )
        return browser.unsafe(
            method.upper(),
            f"{API}{path}",
            cell.body,
            headers=headers,
            content_type=cell.content_type,
        )


@pytest.fixture
def caller(
    auth0: Issuer,
    user_id: str,
    configure: Callable[..., None],
    request: pytest.FixtureRequest,
) -> Iterator[Caller]:
    def database_setting(name: str, value: str) -> None:
        request.getfixturevalue("database_setting")(name, value)

    def arrange(what: str) -> None:
        if what == "limit":
            database_setting("max_sessions_per_user", "1")
            database_setting("on_limit", "deny")
        elif what == "no grace":
            database_setting("rotation_grace", "0")
        elif what == "large tenant":
            configure(ON_SWITCH_TENANT="tests.hooks.on_switch_tenant_too_large")
        elif what == "off":
            configure(DEVICE_BOUND="off")
        elif what == "users":
            configure(USER_ID_FIELD="username")
        elif what == "issuer":
            auth0.status = 500
        else:
            raise AssertionError(what)

    configure(ON_SWITCH_TENANT="tests.hooks.on_switch_tenant", DEVICE_BOUND="offer")
    yield Caller(auth0, user_id, arrange)
    auth0.reset()


def check(response: Any, status: int, cell: Cell) -> None:
    """What the cell says, and what all answers have."""
    assert response.status_code == status, response.content
    assert response["Cache-Control"] == "private, no-store"
    assert "Cookie" in response["Vary"]
    morsel = response.cookies.get(settings.cookie_name)
    found = "kept" if morsel is None else "set" if morsel.value else "cleared"
    assert found == cell.cookie
    if morsel is not None:
        assert (morsel["httponly"], morsel["secure"]) == (True, True)
        assert (morsel["samesite"], morsel["path"], morsel["domain"]) == ("Lax", "/", "")
        assert (morsel["max-age"] > 0) is (found == "set")
    assert (response.headers.get("WWW-Authenticate") is not None) is (status == 401)
    assert (response.headers.get("Retry-After") is not None) is (status in (429, 503))
    if status == 204:
        assert response.content == b""
        return
    assert response["Content-Type"] == "application/json"
    assert "sm1_" not in response.content.decode()
    body = response.json()
    if status >= 400:
        more = MORE.get(cell.code or "", set())
        assert set(body) == {"detail", "code"} | more
        assert body["detail"]
        assert body["code"] == cell.code
    elif "session" in body:
        assert response["ETag"] == f'"{body["session"]["version"]}"'


@pytest.mark.parametrize(("method", "path", "status", "cell"), FLAT)
def test_cell(caller: Caller, method: str, path: str, status: int, cell: Cell) -> None:
    check(caller.send(method, path, cell), status, cell)


def first(operation: tuple[str, str]) -> tuple[int, Cell]:
    """A request that succeeds."""
    status = min(CELLS[operation])
    return status, CELLS[operation][status][0]


# Browsers give a binding up at a 429.
THROTTLED = [operation for operation in OPERATIONS if operation != ("post", "device/refresh/")]


@pytest.mark.parametrize("operation", THROTTLED, ids=" ".join)
def test_throttled(
    caller: Caller, configure: Callable[..., None], operation: tuple[str, str]
) -> None:
    """Of those who are counted together: a session, a subject; without either, an address."""
    _, cell = first(operation)
    configure(THROTTLE_RATES=dict.fromkeys(settings.THROTTLE_RATES, "1/hour"), TRUSTED_PROXIES=1)
    if operation == ("delete", "current/"):
        # There is no second time for a session.
        cell = Cell(by="nobody")
    cell = replace(cell, headers={**cell.headers, "X-Forwarded-For": "203.0.113.9"})
    own = session_service.create(caller.user_id)
    assert caller.send(*operation, cell, own).status_code < 300
    check(caller.send(*operation, cell, own), 429, Cell("throttled"))


def test_stopped(caller: Caller, server: Server) -> None:
    """503 of every operation, and the cookie stays; afterwards all is as before."""
    created = session_service.create(caller.user_id)
    connections.close_all()

    def send(operation: tuple[str, str]) -> Any:
        method, path = operation
        browser = Browser().give(created.token)
        headers = {"Sec-Secure-Session-Id": UNKNOWN}
        if path == "create/":
            headers["Authorization"] = f"Bearer {caller.issuer.token(caller.user_id)}"
        return browser.unsafe(
            method.upper(),
            f"{API}{path.format(session_id=caller.other.id)}",
            first(operation)[1].body,
            headers=headers,
        )

    server.stop()
    for operation in OPERATIONS:
        response = send(operation)
        check(response, 503, Cell("store_unavailable"))
        assert response["Retry-After"] == "2"
    server.start()
    check(send(("get", "current/")), 200, Cell())


@pytest.mark.parametrize("accept", ["text/html", "application/xml;q=0.9", "image/*", "nonsense"])
def test_there_is_no_406(caller: Caller, accept: str) -> None:
    """Whatever a client says that it wants: JSON, errors included."""
    check(caller.send("get", "current/", Cell(headers={"Accept": accept})), 200, Cell())
    cell = Cell("not_authenticated", "nobody", headers={"Accept": accept})
    check(caller.send("get", "current/", cell), 401, cell)
    check(caller.send("get", "", Cell(path="?format=xml")), 200, Cell())


def test_the_schema_says_the_same() -> None:
    """Each method, path and status of the schema is in the table, and nothing else is."""
    schema: Any = SchemaGenerator().get_schema(request=None, public=True)
    documented = {
        (method, path.removeprefix(API), int(status))
        for path, methods in schema["paths"].items()
        if path.startswith(API)
        for method, operation in methods.items()
        for status in operation["responses"]
    }
    tested = {(method, path, status) for (method, path), cells in CELLS.items() for status in cells}
    # test_throttled and test_stopped go through all of them.
    tested |= {(*operation, 429) for operation in THROTTLED}
    tested |= {(*operation, 503) for operation in OPERATIONS}
    assert tested == documented


def test_the_docs_say_the_same() -> None:
    """The table of docs/django.md: which error comes with which code of its own."""
    rows = dict(
        re.findall(
            r"^\| `([A-Z]+ /api/sessions/[^`]*)` \| (.*) \|$", DOCS.read_text(), re.MULTILINE
        )
    )
    documented = {
        (operation, int(status), code)
        for operation, text in rows.items()
        for status, codes in re.findall(r"([45]\d\d)((?: `[a-z_]+`,?)+)", text)
        for code in re.findall(r"[a-z_]+", codes)
    }
    tested = {
        (f"{method.upper()} {API}{path.replace('session_id', 'id')}", status, cell.code)
        for (method, path), cells in CELLS.items()
        for status, variants in cells.items()
        for cell in variants
        if cell.code is not None and (status, cell.code) not in COMMON
    }
    assert set(rows) == {
        f"{method.upper()} {API}{path.replace('session_id', 'id')}" for method, path in OPERATIONS
    }
    assert documented == tested
