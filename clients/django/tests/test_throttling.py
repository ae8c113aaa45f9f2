"""Throttles: who is counted, and that nobody uses up what another needs.

Rates are by the hour where a limit is to be met, so that no test depends on the machine's speed.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection
from django.test import RequestFactory

from session_manager.api import throttling
from session_manager.conf import settings
from session_manager.services import session_service
from session_manager.store.tokens import is_token
from session_manager.types import CreatedSession

from .conftest import Browser
from .issuer import AUDIENCE, Issuer
from .serving import Served

API = "/api/sessions/"
CREATE, CURRENT, REFRESH = f"{API}create/", f"{API}current/", f"{API}refresh/"
# Someone out there, and where Next.js is that says nothing of its clients.
THERE, ELSEWHERE, FRONTEND = "203.0.113.9", "198.51.100.7", "127.0.0.1"


def at(address: str, token: str | None = None) -> Browser:
    browser = Browser(REMOTE_ADDR=address)
    return browser if token is None else browser.give(token)


def wrong_secret(token: str) -> str:
    """The session's id, and another secret."""
    wrong = token[:30] + ("A" * 38 if token[30:] != "A" * 38 else "B" * 38)
    assert is_token(wrong)
    return wrong


def bearer(token: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {token}"}}


class TestRealServer:
    """Under uvicorn, at the default rates: all requests come from one address, as Next.js's do."""

    pytestmark = pytest.mark.django_db(transaction=True)

    @pytest.fixture
    def client(self, issuer: Issuer, tmp_path: Path) -> Iterator[httpx.Client]:
        issuer.reset()
        values = {
            "AUTH0": {"ISSUER": issuer.url, "AUDIENCE": AUDIENCE, "JWKS_URL": issuer.jwks_url},
            "THROTTLE_RATES": {},
        }
        with (
            Served(tmp_path, connection.settings_dict["NAME"], values) as served,
            httpx.Client(base_url=served.url, verify=served.context(), timeout=60) as client,
        ):
            client.headers.update({"X-CSRFToken": "a" * 32, "Referer": f"{served.url}/"})
            yield client

    def send(
        self, client: httpx.Client, method: str, path: str, token: str | None = None, **more: Any
    ) -> httpx.Response:
        client.cookies.clear()
        cookie = "csrftoken=" + "a" * 32
        if token is not None:
            cookie += f"; {settings.cookie_name}={token}"
        headers = {"Cookie": cookie, **more.pop("headers", {})}
        return client.request(method, path, headers=headers, **more)

    def test_one_anonymous_client(self, client: httpx.Client, user_id: str) -> None:
        tokens = [session_service.create(f"{user_id}{n}").token for n in range(5)]
        codes = {self.send(client, "POST", REFRESH).status_code for _ in range(180)}
        assert codes == {401}
        assert [self.send(client, "POST", REFRESH, t).status_code for t in tokens] == [200] * 5

    def test_many_sign_in(self, client: httpx.Client, issuer: Issuer, user_id: str) -> None:
        codes = [
            self.send(client, "POST", CREATE, **bearer(issuer.token(f"{user_id}{n}"))).status_code
            for n in range(70)
        ]
        assert codes == [201] * 70

    def test_wrong_secrets(self, client: httpx.Client, user_id: str) -> None:
        token = session_service.create(user_id).token
        wrong = wrong_secret(token)
        codes = {self.send(client, "POST", REFRESH, wrong).status_code for _ in range(70)}
        codes |= {self.send(client, "PATCH", CURRENT, wrong).status_code for _ in range(130)}
        assert codes == {401}
        assert self.send(client, "PATCH", CURRENT, token, json={"client": {}}).status_code == 200
        assert self.send(client, "POST", REFRESH, token).status_code == 200


@pytest.mark.django_db
class TestJunk:
    """What is refused before it is known whose it is."""

    @pytest.fixture(autouse=True)
    def _rates(self, auth0: Issuer, configure: Callable[..., None]) -> None:
        configure(THROTTLE_RATES={"junk": "4/hour"})

    @pytest.fixture
    def junk(
        self, request: pytest.FixtureRequest, auth0: Issuer, created: CreatedSession, user_id: str
    ) -> Callable[[str], Any]:
        wrong = wrong_secret(created.token)
        unknown = session_service.create(user_id).token
        session_service.invalidate(unknown)
        foreign = {"headers": {"Sec-Fetch-Site": "cross-site"}}
        kinds: dict[str, Callable[[str], Any]] = {
            "no cookie": lambda a: at(a).get(CURRENT),
            "no cookie to refresh": lambda a: at(a).unsafe("POST", REFRESH),
            "no token in it": lambda a: at(a, "sm1_nonsense").get(CURRENT),
            "a wrong secret": lambda a: at(a, wrong).get(CURRENT),
            "a wrong secret to refresh": lambda a: at(a, wrong).unsafe("POST", REFRESH),
            "a wrong secret to sign out": lambda a: at(a, wrong).unsafe("DELETE", CURRENT),
            "an ended session": lambda a: at(a, unknown).get(API),
            "from another site": lambda a: at(a, created.token).unsafe("PATCH", CURRENT, **foreign),
            "no access token": lambda a: at(a).unsafe("POST", CREATE),
            "a malformed one": lambda a: at(a).unsafe("POST", CREATE, **bearer("nonsense")),
            "a forged one": lambda a: at(a).unsafe(
                "POST", CREATE, **bearer(auth0.token(user_id)[:-8] + "AAAAAAAA")
            ),
            "for another": lambda a: at(a).unsafe(
                "POST", CREATE, **bearer(auth0.token(user_id, aud="https://elsewhere"))
            ),
            "a body that is none": lambda a: at(a).unsafe("POST", CREATE, [1]),
        }
        return kinds[request.param]

    KINDS = (
        "no cookie",
        "no cookie to refresh",
        "no token in it",
        "a wrong secret",
        "a wrong secret to refresh",
        "a wrong secret to sign out",
        "an ended session",
        "from another site",
        "no access token",
        "a malformed one",
        "a forged one",
        "for another",
        "a body that is none",
    )

    @pytest.mark.parametrize("junk", KINDS, indirect=True)
    def test_is_bounded_and_bounds_nothing_else(
        self, junk: Callable[[str], Any], auth0: Issuer, created: CreatedSession, user_id: str
    ) -> None:
        codes = [junk(THERE).status_code for _ in range(5)]
        assert codes[4] == 429
        assert 429 not in codes[:4]
        refused = junk(THERE)
        assert refused.json()["code"] == "throttled"
        assert 3000 < int(refused["Retry-After"]) <= 3600
        # Whoever is good at the same address.
        assert at(THERE, created.token).get(CURRENT).status_code == 200
        assert at(THERE, created.token).unsafe("PATCH", CURRENT, {}).status_code == 200
        signed_in = at(THERE).unsafe("POST", CREATE, **bearer(auth0.token(user_id)))
        assert signed_in.status_code == 201
        assert at(THERE, created.token).unsafe("POST", REFRESH).status_code == 200
        # Whoever is elsewhere.
        assert junk(ELSEWHERE).status_code != 429

    @pytest.mark.parametrize("junk", KINDS, indirect=True)
    def test_of_a_front_end(self, junk: Callable[[str], Any]) -> None:
        """Behind Next.js without an address everybody has one: an honest 401 stays one."""
        codes = {junk(FRONTEND).status_code for _ in range(6)}
        assert 429 not in codes

    def test_good_requests_are_none(self, created: CreatedSession) -> None:
        for _ in range(6):
            assert at(THERE, created.token).get(CURRENT).status_code == 200
        assert at(THERE).get(CURRENT).status_code == 401

    def test_nor_are_refused_ones_of_a_session(self, created: CreatedSession) -> None:
        for _ in range(6):
            response = at(THERE, created.token).unsafe("PATCH", CURRENT, {"plan": "team"})
            assert response.status_code == 400
        assert at(THERE).get(CURRENT).status_code == 401

    @pytest.mark.parametrize(
        ("one", "same", "other"),
        [
            ("2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1"),
            ("203.0.113.9", "::ffff:203.0.113.9", "::ffff:203.0.113.10"),
        ],
    )
    def test_who_is_one_client(self, one: str, same: str, other: str) -> None:
        for _ in range(4):
            assert at(one).get(CURRENT).status_code == 401
        assert at(same).get(CURRENT).status_code == 429
        assert at(other).get(CURRENT).status_code == 401

    def test_behind_a_proxy(self, configure: Callable[..., None]) -> None:
        configure(TRUSTED_PROXIES=1)

        def get(header: str | None) -> int:
            headers = {} if header is None else {"X-Forwarded-For": header}
            code: int = at(FRONTEND).get(CURRENT, headers=headers).status_code
            return code

        for _ in range(4):
            # What stands to the left is the client's own to write.
            assert get(f"192.0.2.{_}, {THERE}") == 401
        assert get(THERE) == 429
        assert get(ELSEWHERE) == 401
        # The proxy's own, and Next.js where it knows no address.
        assert {get(None) for _ in range(6)} == {401}
        assert {get("unknown") for _ in range(6)} == {401}


@pytest.mark.django_db
class TestSessions:
    """Reads, writes and refreshes: for the session whose token was right."""

    @pytest.fixture(autouse=True)
    def _rates(self, auth0: Issuer, configure: Callable[..., None]) -> None:
        rate = "3/hour"
        configure(
            THROTTLE_RATES={"read": rate, "write": rate, "refresh": rate},
            ON_SWITCH_TENANT="tests.hooks.on_switch_tenant",
        )

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", CURRENT, None),
            ("GET", API, None),
            ("PATCH", CURRENT, {}),
            ("POST", REFRESH, None),
            ("POST", f"{API}invalidate-all/", {"except_current": True}),
        ],
    )
    def test_each_for_itself(
        self,
        method: str,
        path: str,
        body: Any,
        created: CreatedSession,
        user_id: str,
        django_assert_num_queries: Any,
    ) -> None:
        browser = at(FRONTEND, created.token)
        for _ in range(3):
            assert browser.unsafe(method, path, body).status_code == 200
        with django_assert_num_queries(0):
            response = browser.unsafe(method, path, body)
        assert response.status_code == 429
        assert 3000 < int(response["Retry-After"]) <= 3600
        # Wherever the session is used from, not for another, and signing out is no matter of rates.
        assert at(THERE, browser.token()).unsafe(method, path, body).status_code == 429
        other = session_service.create(user_id)
        assert at(FRONTEND, other.token).unsafe(method, path, body).status_code == 200
        assert browser.unsafe("DELETE", CURRENT).status_code == 204

    @pytest.mark.parametrize(("method", "path"), [("GET", CURRENT), ("POST", REFRESH)])
    def test_not_by_its_id(self, method: str, path: str, created: CreatedSession) -> None:
        wrong = wrong_secret(created.token)
        for _ in range(5):
            assert at(THERE, wrong).unsafe(method, path).status_code == 401
        assert at(THERE, created.token).unsafe(method, path).status_code == 200

    def test_a_tenant_switched_to_is_counted_on(self, created: CreatedSession) -> None:
        browser = at(FRONTEND, created.token)
        codes = [
            browser.unsafe("POST", f"{API}tenant/", {"tenant_id": "globex"}).status_code
            for _ in range(4)
        ]
        assert codes == [200, 200, 200, 429]


@pytest.mark.django_db
class TestSignIns:
    """Per subject and per address, once the access token has been verified."""

    @pytest.fixture(autouse=True)
    def _rates(self, auth0: Issuer, configure: Callable[..., None]) -> None:
        configure(THROTTLE_RATES={"create": "2/hour", "create_address": "3/hour"})

    @pytest.fixture
    def sign_in(self, auth0: Issuer) -> Callable[..., int]:
        def send(address: str, user_id: str, **claims: Any) -> int:
            token = auth0.token(user_id, **claims)
            code: int = at(address).unsafe("POST", CREATE, **bearer(token)).status_code
            return code

        return send

    def test_per_subject(self, sign_in: Callable[..., int], user_id: str) -> None:
        codes = [sign_in(f"203.0.113.{n}", user_id) for n in range(3)]
        assert codes == [201, 201, 429]
        assert sign_in("203.0.113.1", f"{user_id} is another") == 201

    def test_per_address(self, sign_in: Callable[..., int], user_id: str) -> None:
        codes = [sign_in(THERE, f"{user_id}{n}") for n in range(4)]
        assert codes == [201, 201, 201, 429]
        assert sign_in(ELSEWHERE, user_id) == 201
        # What an address is refused does not count for the subject.
        assert [sign_in(THERE, f"{user_id}z") for _ in range(3)] == [429] * 3
        assert sign_in(ELSEWHERE, f"{user_id}z") == 201

    def test_not_for_the_address_of_a_front_end(
        self, sign_in: Callable[..., int], user_id: str
    ) -> None:
        codes = [sign_in(FRONTEND, f"{user_id}{n}") for n in range(6)]
        assert codes == [201] * 6
        assert [sign_in(FRONTEND, user_id) for _ in range(3)] == [201, 201, 429]

    def test_not_by_what_is_not_verified(self, sign_in: Callable[..., int], user_id: str) -> None:
        codes = {sign_in(THERE, user_id, aud="https://elsewhere") for _ in range(5)}
        assert codes == {401}
        assert sign_in(THERE, user_id) == 201

    def test_a_session_that_is_presented_is_not_asked(
        self, auth0: Issuer, configure: Callable[..., None], created: CreatedSession, user_id: str
    ) -> None:
        configure(THROTTLE_RATES={"write": "1/hour", "read": "1/hour"})
        browser = at(THERE, created.token)
        assert browser.unsafe("PATCH", CURRENT, {}).status_code == 200
        assert browser.unsafe("PATCH", CURRENT, {}).status_code == 429
        response = browser.unsafe("POST", CREATE, **bearer(auth0.token(user_id)))
        assert response.status_code == 201

    def test_any_subject(self, sign_in: Callable[..., int]) -> None:
        """A key of the cache has no length, no blank and no control character of its own."""
        for subject in ("a b\n", "ü" * 200, str(uuid.uuid4())):
            assert [sign_in(FRONTEND, subject) for _ in range(3)] == [201, 201, 429]


@pytest.mark.parametrize(
    ("proxies", "remote", "forwarded", "expected"),
    [
        (0, "203.0.113.7", None, "203.0.113.7"),
        (0, "203.0.113.7", "unknown", "203.0.113.7"),
        (0, "::ffff:203.0.113.7", None, "203.0.113.7"),
        (0, "2001:db8::1", None, "2001:db8::1"),
        (0, "127.0.0.1", None, None),
        (0, "127.0.0.1", "203.0.113.7", None),
        (0, "::ffff:127.0.0.1", None, None),
        (0, "::1", None, None),
        (0, "10.1.2.3", None, None),
        (0, "172.17.0.1", None, None),
        (0, "192.168.1.1", None, None),
        (0, "100.64.0.1", None, None),
        (0, "fd00::1", None, None),
        (0, "fe80::1%eth0", None, None),
        (0, "", None, None),
        (1, "203.0.113.7", None, None),
        (1, "10.0.0.1", "unknown", None),
        (1, "10.0.0.1", "192.0.2.1, 203.0.113.7", "203.0.113.7"),
        # A proxy says so: an intranet.
        (1, "10.0.0.1", "10.0.0.7", "10.0.0.7"),
        (2, "10.0.0.1", "203.0.113.7", None),
    ],
)
def test_own_address(
    configure: Any, proxies: int, remote: str, forwarded: str | None, expected: str | None
) -> None:
    from session_manager.http.addresses import own_address

    configure(TRUSTED_PROXIES=proxies)
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    assert own_address(RequestFactory().get("/", REMOTE_ADDR=remote, headers=headers)) == expected


@pytest.mark.django_db
def test_says_once_that_addresses_are_not_known(
    configure: Callable[..., None],
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(throttling, "_warned", False)
    at(THERE).get(CURRENT)
    assert "TRUSTED_PROXIES" not in caplog.text
    for _ in range(3):
        at(FRONTEND).get(CURRENT)
    assert caplog.text.count("The addresses of clients are not known") == 1
    monkeypatch.setattr(throttling, "_warned", False)
    settings.DEBUG = True
    caplog.clear()
    at(FRONTEND).get(CURRENT)
    assert "not known" not in caplog.text


@pytest.mark.django_db
@pytest.mark.django_db
def test_an_outage_of_the_cache(
    created: CreatedSession, configure: Callable[..., None], settings: Any
) -> None:
    """Sessions do not depend on it: nothing is throttled meanwhile."""
    configure(THROTTLE_RATES={"read": "9/min", "refresh": "9/min", "junk": "9/min"})
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:1",
        }
    }
    browser = at("203.0.113.9", created.token)
    assert browser.get(CURRENT).status_code == 200
    assert browser.unsafe("POST", REFRESH).status_code == 200
    assert at("203.0.113.9").unsafe("POST", REFRESH).status_code == 401


def test_a_clock_that_is_set_back(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch, created: CreatedSession
) -> None:
    """What was counted in a future that has not come holds nobody up."""
    configure(THROTTLE_RATES={"read": "1/hour"})
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(monkeypatch.context())
        patch.setattr(throttling.time, "time", lambda: 4_000_000_000.0)
        assert at(THERE, created.token).get(CURRENT).status_code == 200
        assert at(THERE, created.token).get(CURRENT).status_code == 429
    assert at(THERE, created.token).get(CURRENT).status_code == 200
