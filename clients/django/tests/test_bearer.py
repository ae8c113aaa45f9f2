"""Clients without cookies: the token in the Authorization header (BEARER)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import django
import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import AsyncClient, Client, override_settings
from django.utils.log import AdminEmailHandler

from session_manager.conf import settings
from session_manager.services import session_service
from session_manager.store.tokens import digest_form
from session_manager.types import CreatedSession

from .conftest import Browser
from .issuer import AUDIENCE, Issuer
from .pages import run, run_script, samples
from .serving import Served

pytestmark = pytest.mark.django_db

CURRENT = "/api/sessions/current/"
CREATE = "/api/sessions/create/"
REFRESH = "/api/sessions/refresh/"
TENANT = "/api/sessions/tenant/"
ASKING = {"Session-Transport": "bearer"}
NEW_TOKEN = "Session-Token"
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "session_manager.middleware.SessionMiddleware",
    "session_manager.middleware.AuthenticationMiddleware",
]


@pytest.fixture(autouse=True)
def _allowed(configure: Callable[..., None]) -> None:
    configure(BEARER=True)


KEYCHAIN = """
const items = new Map();
export const getItemAsync = async (key) => items.get(key) ?? null;
export const setItemAsync = async (key, value) => void items.set(key, value);
export const deleteItemAsync = async (key) => void items.delete(key);
"""
USE = """
import { getItemAsync, setItemAsync } from "expo-secure-store";
import { call, refresh, signIn, signOut } from "./client.mjs";

const kept = [];
await signIn(%s);
kept.push(await getItemAsync("session"));
const { user } = await call("GET", "/api/sessions/current/");
const { status } = await refresh();
kept.push(await getItemAsync("session"));
const after = await signOut();
await setItemAsync("session", kept[1]);
const refused = await refresh().catch((error) => error.code);
const left = await getItemAsync("session");
console.log(JSON.stringify({ kept, user: user.id, refreshed: status, after, refused, left }));
"""


class App(Client):
    """A client that keeps its token itself; CSRF is enforced."""

    def __init__(self, token: str | None = None) -> None:
        super().__init__(enforce_csrf_checks=True)
        self.token = token

    def send(self, method: str, path: str, data: Any = None, **headers: str) -> Any:
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        body = b"" if data is None else json.dumps(data).encode()
        response = self.generic(
            method, path, body, content_type="application/json", headers=headers
        )
        if response.headers.get("Content-Type") == "application/json":
            self.token = response.json().get("token", self.token)
        self.token = response.headers.get(NEW_TOKEN, self.token)
        return response


@pytest.fixture
def app(created: CreatedSession) -> App:
    return App(created.token)


def test_a_life(auth0: Issuer, user_id: str, configure: Callable[..., None]) -> None:
    configure(ON_SWITCH_TENANT="tests.test_bearer.any_tenant")
    app = App()
    made = app.send("POST", CREATE, {"access_token": auth0.token(user_id)}, **ASKING)
    assert made.status_code == 201
    assert made.json()["token"].startswith("sm1_")
    assert made["Cache-Control"] == "private, no-store"
    tokens = {app.token}
    assert app.send("GET", CURRENT).json()["user"]["id"] == user_id
    patched = app.send("PATCH", CURRENT, {"client": {"theme": "dark"}})
    assert patched.json()["session"]["data"]["client"] == {"theme": "dark"}
    assert "token" not in patched.json()
    assert app.send("POST", REFRESH).json()["status"] == "rotated"
    tokens.add(app.token)
    assert app.send("POST", TENANT, {"tenant_id": "acme"}).status_code == 200
    tokens.add(app.token)
    assert len(tokens) == 3
    listed = app.send("GET", "/api/sessions/").json()["results"]
    assert [(one["is_current"], one["tenant_id"]) for one in listed] == [(True, "acme")]
    other = session_service.create(user_id)
    ended = app.send("POST", "/api/sessions/invalidate-all/", {"except_current": True})
    assert ended.json() == {"invalidated": 1}
    assert session_service.get(other.token) is None
    assert app.send("DELETE", CURRENT).status_code == 204
    gone = app.send("GET", CURRENT)
    assert (gone.status_code, gone.json()["code"]) == (401, "session_revoked")
    assert gone["WWW-Authenticate"] == 'Bearer realm="api", error="invalid_token"'
    assert not app.cookies


def any_tenant(request: Any, session: Any, tenant_id: str) -> dict[str, Any]:
    return {}


def test_create_ends_the_session_that_the_header_presents(auth0: Issuer, app: App) -> None:
    old = app.token
    data = {"access_token": auth0.token("somebody")}
    assert app.send("POST", CREATE, data).status_code == 201
    assert session_service.get(old) is None
    assert session_service.get(app.token) is not None


class TestOff:
    @pytest.fixture(autouse=True)
    def _off(self, _allowed: None, configure: Callable[..., None]) -> None:
        configure(BEARER=False)

    def test_the_header_is_none_of_ours(self, app: App) -> None:
        assert app.send("GET", CURRENT).status_code == 401
        assert app.send("GET", "/whoami/").status_code == 401  # no access token
        assert app.send("GET", "/info/").json()["exists"] is False
        response = app.send("PATCH", CURRENT, {"client": {}})
        assert response.json()["code"] == "csrf_failed"
        assert "Authorization" not in app.send("GET", "/info/")["Vary"]
        assert app.send("GET", CURRENT)["WWW-Authenticate"] == 'Session realm="api"'

    def test_asking_is_refused(self, auth0: Issuer, user_id: str) -> None:
        data = {"access_token": auth0.token(user_id)}
        response = App().send("POST", CREATE, data, **ASKING)
        assert (response.status_code, response.json()["code"]) == (403, "bearer_refused")
        assert session_service.count_active(user_id=user_id) == 0


class TestBrowsers:
    """Who has the cookie gets no token in a body, and skips no check."""

    @pytest.mark.parametrize("headers", [{}, ASKING])
    @pytest.mark.parametrize("path", [CREATE, REFRESH, TENANT])
    def test_no_token_in_the_body(
        self,
        path: str,
        headers: dict[str, str],
        signed_in: Browser,
        auth0: Issuer,
        user_id: str,
        configure: Callable[..., None],
    ) -> None:
        configure(ON_SWITCH_TENANT="tests.test_bearer.any_tenant")
        bodies = {
            CREATE: {"access_token": auth0.token(user_id)},
            REFRESH: {"rotate": True},
            TENANT: {"tenant_id": "other"},
        }
        token = signed_in.token()
        # The script of a page knows another session's token, or makes one up.
        for header in (
            None,
            "Bearer sm1_" + "A" * 64,
            f"Bearer {session_service.create('x').token}",
        ):
            response = signed_in.unsafe(
                "POST", path, bodies[path], headers={**headers, "Authorization": header}
            )
            if headers:
                assert (response.status_code, response.json()["code"]) == (403, "bearer_refused")
            assert "sm1_" not in response.content.decode()
        assert bool(headers) == (signed_in.token() == token)

    def test_the_cookie_wins_and_is_checked(self, signed_in: Browser, user_id: str) -> None:
        header = f"Bearer {session_service.create('other').token}"
        assert signed_in.get("/info/", headers={"Authorization": header}).json()["user"] == user_id
        for value in (header, "Bearer sm1_" + "A" * 64, f"Bearer {signed_in.token()}"):
            for method, path in (
                ("PATCH", CURRENT),
                ("POST", REFRESH),
                ("DELETE", CURRENT),
                ("POST", "/protected/"),
            ):
                response = signed_in.generic(
                    method,
                    path,
                    "{}",
                    content_type="application/json",
                    headers={"Authorization": value},
                )
                assert (response.status_code, response.json()["code"]) == (403, "csrf_failed")
        assert session_service.get(signed_in.token()) is not None

    @pytest.mark.parametrize(
        "mark",
        [
            {"Origin": "http://testserver"},
            {"Origin": "https://evil.example"},
            {"Sec-Fetch-Site": "same-origin"},
        ],
    )
    def test_a_page_without_the_cookie(
        self, mark: dict[str, str], auth0: Issuer, user_id: str
    ) -> None:
        """As fetch with credentials: "omit" sends it."""
        data = {"access_token": auth0.token(user_id)}
        response = App().send("POST", CREATE, data, **ASKING, **mark)
        assert (response.status_code, response.json()["code"]) == (403, "bearer_refused")
        # A token in the header, even a real one, makes no other client of it.
        for token in ("sm1_" + "A" * 64, session_service.create("other").token):
            response = App(token).send("POST", CREATE, data, **mark)
            assert (response.status_code, response.json()["code"]) == (403, "csrf_failed")
        assert session_service.count_active(user_id=user_id) == 0

    def test_a_cookie_that_is_no_token_is_a_cookie(self, browser: Browser, user_id: str) -> None:
        token = session_service.create(user_id).token
        browser.give("nonsense")
        response = browser.get(CURRENT, headers={"Authorization": f"Bearer {token}"})
        assert response.status_code == 401

    def test_a_session_of_django_s_is_not_taken_over(self, configure: Callable[..., None]) -> None:
        """It is the cookie's, which no check of CSRF would protect."""
        configure(IMPORT_DJANGO_SESSIONS=True, USER_ID_FIELD="username")
        ada = get_user_model().objects.create_user("ada")
        client = App("sm1_" + "A" * 64)
        client.force_login(ada)
        assert client.send("POST", "/protected/").status_code == 401
        assert session_service.count_active(user_id="ada") == 0


class TestPlainViews:
    @pytest.fixture(autouse=True)
    def _middleware(self, settings: Any, configure: Callable[..., None]) -> None:
        settings.MIDDLEWARE = MIDDLEWARE
        configure(USER_ID_FIELD="username")
        get_user_model().objects.create_user("ada")

    def test_user_and_no_csrf(self) -> None:
        app = App(session_service.create("ada").token)
        assert app.send("GET", "/members/").content == b"ada"
        assert app.send("POST", "/greeting/").content == b"ada"

    def test_with_any_cookie_django_checks(self) -> None:
        """It may be what signs somebody in: Django's own session, for example."""
        app = App("sm1_" + "A" * 64)
        app.force_login(get_user_model().objects.get())
        assert app.send("POST", "/greeting/").status_code == 403
        app = App(session_service.create("ada").token)
        assert app.send("POST", "/greeting/", Origin="https://evil.example").status_code == 403
        app.cookies["other"] = "1"
        assert app.send("POST", "/greeting/").status_code == 403

    def test_log_in_gives_no_cookie(self) -> None:
        app = App(session_service.create("ada").token)
        response = app.send("GET", "/login/?user=ada")
        assert response.status_code == 204
        assert settings.cookie_name not in response.cookies

    def test_a_page_is_given_no_cookie_for_its_header(self) -> None:
        app = App(session_service.create("ada").token)
        response = app.send("GET", "/login/?user=ada", Origin="http://testserver")
        assert response.status_code == 204
        assert settings.cookie_name not in response.cookies

    @pytest.mark.django_db(transaction=True)
    async def test_asynchronous(self) -> None:
        created = await session_service.acreate("ada")
        header = {"Authorization": f"Bearer {created.token}"}
        response = await AsyncClient().get("/amember/", headers=header)
        assert response.content == b"ada"

    def test_request_session(self, settings: Any) -> None:
        settings.SESSION_ENGINE = "session_manager.backends.sessions"
        settings.MIDDLEWARE = [
            "session_manager.middleware.RequestSessionMiddleware",
            *MIDDLEWARE[1:],
        ]
        app = App(session_service.create("ada").token)
        assert app.send("GET", "/session/?colour=red").json() == {"colour": "red"}
        assert app.send("GET", "/session/").json() == {"colour": "red"}
        assert not app.cookies
        assert session_service.count_active(user_id="ada") == 1


@pytest.mark.django_db(transaction=True)
class TestEngine:
    """request.session gets a new token behind the view: the header Session-Token has it."""

    @pytest.fixture(autouse=True)
    def _engine(self, settings: Any) -> None:
        settings.ROOT_URLCONF = "tests.test_engine_requests"
        settings.SESSION_ENGINE = "session_manager.backends.sessions"
        settings.MIDDLEWARE = [
            "session_manager.middleware.RequestSessionMiddleware",
            *MIDDLEWARE[1:],
            "django.contrib.messages.middleware.MessageMiddleware",
        ]

    @pytest.fixture
    def ada(self) -> Any:
        return get_user_model().objects.create_user("ada", password="of ada")

    @pytest.fixture
    def app(self, ada: Any) -> App:
        """Signed in, with something in request.session."""
        app = App(session_service.create(str(ada.pk)).token)
        app.send("GET", "/act/?do=cart=1")
        return app

    def goes_on(self, app: App, response: Any, old: str | None, user: str) -> None:
        """The client has the token of the only session, and the old token is void."""
        assert response.status_code == 200, response.content
        assert not app.cookies
        assert response["Cache-Control"] == "private, no-store"
        assert app.token not in (None, old)
        assert session_service.get(old) is None
        found = app.send("GET", "/act/?do=look")
        assert found.json()["user"] == user
        assert NEW_TOKEN not in found
        pk = get_user_model().objects.get(username=user).pk
        assert session_service.count_active(user_id=str(pk)) == 1

    def test_login_without_a_session(self, ada: Any) -> None:
        app = App()
        response = app.send("GET", "/act/?do=in=ada", **ASKING)
        self.goes_on(app, response, None, "ada")

    def test_login_of_a_guest(self, ada: Any) -> None:
        app = App()
        assert NEW_TOKEN in app.send("GET", "/act/?do=cart=1", **ASKING)
        guest = app.token
        response = app.send("GET", "/act/?do=in=ada")
        self.goes_on(app, response, guest, "ada")
        assert app.send("GET", "/act/?do=look").json()["session"] == {"cart": "1"}

    def test_login_again(self, app: App) -> None:
        old = app.token
        self.goes_on(app, app.send("GET", "/act/?do=in=ada"), old, "ada")

    def test_login_of_somebody_else(self, app: App, ada: Any) -> None:
        get_user_model().objects.create_user("eve")
        old = app.token
        self.goes_on(app, app.send("GET", "/act/?do=in=eve"), old, "eve")
        assert session_service.count_active(user_id=str(ada.pk)) == 0
        assert app.send("GET", "/act/?do=look").json()["session"] == {}

    def test_a_form_of_django_s(self, ada: Any) -> None:
        """Its CSRF check asks nothing of a client without cookies, at the first login either."""
        form = "username=ada&password=of+ada"
        for headers in (ASKING, {}, {"Authorization": "Bearer sm1_" + "A" * 64}):
            app = App()
            response = app.generic(
                "POST",
                "/accounts/login/?next=/plain/",
                form,
                content_type="application/x-www-form-urlencoded",
                headers=headers,
            )
            assert response.status_code == (302 if headers else 403)
            assert response.headers.get(NEW_TOKEN, "").startswith("sm1_" if headers else "")
            assert not app.cookies
        assert session_service.count_active(user_id=str(ada.pk)) == 2

    @pytest.mark.parametrize("query", ["do=password=new", "do=password=new&ours=1"])
    def test_password(self, app: App, query: str) -> None:
        app.send("GET", "/act/?do=our-in=ada")
        old = app.token
        self.goes_on(app, app.send("GET", f"/act/?{query}"), old, "ada")

    if django.VERSION >= (5, 1):
        # Before that request.session has no asynchronous methods.
        async def test_cycle_key(self, ada: Any) -> None:
            created = await session_service.acreate(str(ada.pk))
            client = AsyncClient()
            header = {"Authorization": f"Bearer {created.token}"}
            response = await client.get("/aact/?cycle", headers=header)
            token = response[NEW_TOKEN]
            assert await session_service.aget(created.token) is None
            found = await session_service.aget(token)
            assert found is not None
            assert found.id == created.id
            header = {"Authorization": f"Bearer {token}"}
            response = await client.get("/aact/?flush", headers=header)
            assert NEW_TOKEN not in response
            assert await session_service.aget(token) is None
            assert not client.cookies

    @pytest.mark.parametrize("what", ["out", "our-out"])
    def test_out(self, app: App, ada: Any, what: str) -> None:
        old = app.token
        response = app.send("GET", f"/act/?do={what}")
        assert response.status_code == 200
        assert NEW_TOKEN not in response
        assert not app.cookies
        assert session_service.get(old) is None
        assert app.send("GET", "/act/?do=look").json()["user"] == ""

    def test_log_in(self, app: App) -> None:
        """This package's own, whose view answers without the token."""
        old = app.token
        self.goes_on(app, app.send("GET", "/act/?do=our-in=ada"), old, "ada")

    def test_endpoints_are_alike(self, app: App, settings: Any) -> None:
        """A save behind the refresh goes on by the new token."""
        settings.SESSION_SAVE_EVERY_REQUEST = True
        old = app.token
        response = app.send("POST", REFRESH)
        assert response.json()["token"] == response[NEW_TOKEN] == app.token != old
        assert app.send("POST", REFRESH).json()["status"] == "rotated"
        assert app.send("GET", "/act/?do=look").json()["session"] == {"cart": "1"}

    @pytest.mark.parametrize("every_request", [False, True])
    def test_the_token_that_it_has_is_not_sent(
        self, app: App, ada: Any, settings: Any, every_request: bool
    ) -> None:
        """Another request may have brought a newer one meanwhile, which it would replace."""
        settings.SESSION_SAVE_EVERY_REQUEST = every_request
        short = session_service.create(str(ada.pk), ttl=timedelta(minutes=1))
        for token in (app.token, short.token):
            app.token = token
            for what in ("cart=2", "cart=2", "look"):
                response = app.send("GET", f"/act/?do={what}")
                assert (response.status_code, NEW_TOKEN in response) == (200, False)
                assert "sm1_" not in str(response.headers)

    def test_nothing_is_ended_by_a_failure(self, app: App, ada: Any) -> None:
        old = app.token
        app.raise_request_exception = False
        response = app.send("GET", "/act/?do=in=ada,fail")
        assert response.status_code == 500
        assert NEW_TOKEN not in response
        assert app.send("GET", "/act/?do=look").json()["user"] == "ada"
        assert app.token == old

    @pytest.mark.parametrize("what", ["in=ada", "in=eve", "in=ada,save"])
    def test_a_page_is_refused(self, app: App, what: str) -> None:
        """It may have no token, and its session is not to end for one that nobody gets."""
        get_user_model().objects.create_user("eve")
        old = app.token
        response = app.send("GET", f"/act/?do={what}", Origin="http://testserver")
        assert (response.status_code, response.json()["code"]) == (403, "bearer_refused")
        assert "sm1_" not in str(response.headers)
        assert not app.cookies
        assert app.send("GET", "/act/?do=look").json()["user"] == "ada"
        assert app.token == old

    def test_with_the_cookie_the_cookie(self, app: App, ada: Any) -> None:
        app.cookies["sessionid"] = session_service.create(str(ada.pk)).token
        response = app.send("GET", "/act/?do=in=ada")
        assert NEW_TOKEN not in response
        assert response.cookies["sessionid"].value.startswith("sm1_")


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Basic {token}",
        "Token {token}",
        "{token}",
        "Bearer {token} {token}",
        "Bearer {token}x",
        "Bearer {digest}",
        "Bearer sm1_",
        "Bearer SM1_{token}",
    ],
)
def test_other_headers(header: str, created: CreatedSession) -> None:
    value = header.format(token=created.token, digest=digest_form(created.token))
    response = Client().get(CURRENT, headers={"Authorization": value})
    assert response.status_code == 401
    assert Client().get("/info/", headers={"Authorization": value}).json()["exists"] is False


def test_the_scheme_in_any_case(created: CreatedSession) -> None:
    for scheme in ("bearer", "BEARER"):
        header = {"Authorization": f"{scheme}  {created.token}"}
        assert Client().get(CURRENT, headers=header).status_code == 200


class TestAccessTokensBeside:
    def test_told_by_their_looks(self, app: App, auth0: Issuer, user_id: str) -> None:
        assert app.send("GET", "/whoami/").json() == {"user": user_id}
        access = {"Authorization": f"Bearer {auth0.token(user_id)}"}
        assert Client().get("/whoami/", headers=access).json() == {"user": user_id}
        session_service.invalidate_all(user_id, reason="blocked")
        ended = app.send("GET", "/protected/")
        assert (ended.status_code, ended.json()["code"]) == (401, "session_revoked")
        assert ended.json()["reason"] == "blocked"
        assert Client().get("/protected/", headers=access).status_code == 200
        assert app.send("GET", "/protected/", Authorization="Bearer x").status_code == 401

    def test_without_anything(self) -> None:
        challenge = App().send("GET", "/protected/")["WWW-Authenticate"]
        assert challenge == 'Session realm="api", Bearer realm="api"'


def test_for_caches(app: App) -> None:
    response = app.send("GET", "/info/")
    assert set(response["Vary"].split(", ")) >= {"Cookie", "Authorization"}
    assert response["Cache-Control"] == "private"


def test_throttled(app: App, configure: Callable[..., None]) -> None:
    configure(THROTTLE_RATES={**dict.fromkeys(settings.THROTTLE_RATES), "read": "2/min"})
    assert [app.send("GET", CURRENT).status_code for _ in range(3)] == [200, 200, 429]


def test_in_no_log(app: App, caplog: pytest.LogCaptureFixture, mailoutbox: list[Any]) -> None:
    app.raise_request_exception = False
    caplog.set_level(logging.DEBUG)
    with override_settings(
        ADMINS=[("a", "a@example.com")],
        DEFAULT_EXCEPTION_REPORTER_FILTER="session_manager.reporting.ExceptionReporterFilter",
    ):
        handler = AdminEmailHandler(include_html=True)
        logging.getLogger("django.request").addHandler(handler)
        try:
            assert app.send("GET", "/api-raise/?name=DataCorrupt").status_code == 500
            app.send("GET", "/raise/?name=DataCorrupt")
        finally:
            logging.getLogger("django.request").removeHandler(handler)
    texts = [caplog.text, *(str(mail.message()) for mail in mailoutbox)]
    assert mailoutbox
    assert app.token is not None
    assert not any(app.token[4:] in text.replace("=\n", "") for text in texts)


def test_schema() -> None:
    schema = Client().get("/api/schema/?format=json").json()
    schemes = schema["components"]["securitySchemes"]
    assert schemes["sessionBearer"]["scheme"] == "bearer"
    for method, path in (("get", CURRENT), ("post", REFRESH), ("post", TENANT)):
        security = schema["paths"][path][method]["security"]
        assert {"session": []} in security
        assert {"sessionBearer": []} in security
    headers = [
        (parameter["in"], parameter["schema"])
        for parameter in schema["paths"][CREATE]["post"]["parameters"]
        if parameter["name"] == "Session-Transport"
    ]
    assert headers == [("header", {"type": "string", "enum": ["bearer"]})]


@pytest.fixture
def served(issuer: Issuer, tmp_path: Path) -> Iterator[Served]:
    issuer.reset()
    values = {
        "AUTH0": {"ISSUER": issuer.url, "AUDIENCE": AUDIENCE, "JWKS_URL": issuer.jwks_url},
        "BEARER": True,
    }
    with Served(tmp_path, connection.settings_dict["NAME"], values) as running:
        yield running


@pytest.mark.django_db(transaction=True)
class TestSamples:
    """The clients of docs/django.md, against a server."""

    def test_python(
        self, served: Served, issuer: Issuer, user_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, client = samples("Clients without cookies")
        names = run(client)
        monkeypatch.setenv("SSL_CERT_FILE", str(served.certificate))
        api = names["Api"](served.url, issuer.token(user_id))
        assert api.get(CURRENT)["user"]["id"] == user_id
        before = api.http.headers["Authorization"]
        assert api.refresh()["status"] == "rotated"
        assert api.http.headers["Authorization"] != before
        assert api.get("/whoami/") == {"user": user_id}
        api.sign_out()
        assert not api.http.cookies
        assert session_service.count_active(user_id=user_id) == 0
        assert "sm1_" not in served.log.read_text()

    def test_react_native(
        self, served: Served, issuer: Issuer, user_id: str, tmp_path: Path
    ) -> None:
        """In Node.js, whose fetch() is the standard's, with a store in memory for the keychain."""
        (sample,) = samples("Clients without cookies", "js")
        assert sample.count("https://api.example.com") == 1
        (tmp_path / "client.mjs").write_text(sample.replace("https://api.example.com", served.url))
        keychain = tmp_path / "node_modules" / "expo-secure-store"
        keychain.mkdir(parents=True)
        (keychain / "package.json").write_text('{"type": "module", "main": "index.js"}')
        (keychain / "index.js").write_text(KEYCHAIN)
        access_token = json.dumps(issuer.token(user_id))
        seen = run_script(tmp_path, USE % access_token, served.certificate)
        first, second = seen["kept"]
        assert first.startswith("sm1_")
        assert second.startswith("sm1_")
        assert first != second
        assert seen["user"] == user_id
        assert (seen["refreshed"], seen["after"]) == ("rotated", None)
        assert seen["refused"] == "session_revoked"
        # What the application has stored by then is gone as well.
        assert seen["left"] is None
        assert session_service.count_active(user_id=user_id) == 0
        assert "sm1_" not in served.log.read_text()
