"""Sessions that are bound to a device: what a browser does, and what a thief tries."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.db import connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import include, path
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from session_manager.conf import settings
from session_manager.device import DeviceBound, device_bound_required
from session_manager.http.device import SKIPPED_SECONDS
from session_manager.login import log_in, log_out, step_up, switch_tenant
from session_manager.models import UserSession
from session_manager.services import session_service
from session_manager.store import tokens
from session_manager.store.cache import session_cache

from .conftest import STAND_IN, Browser, RedisServer, wait_for
from .issuer import Issuer
from .software_device import API, REFRESH, REGISTER, Device, Key, b64, number, post

pytestmark = pytest.mark.django_db(transaction=True)
#: For what needs no transactions of its own: no table has to be emptied after it.
quick = pytest.mark.django_db(transaction=False)

OFFER = "Secure-Session-Registration"
CHALLENGE = "Secure-Session-Challenge"
CURRENT = f"{API}current/"
LIFETIME = 300.0


@device_bound_required
def bound(request: HttpRequest) -> HttpResponse:
    return HttpResponse("done")


@device_bound_required(max_age=30)
def fresh(request: HttpRequest) -> HttpResponse:
    return HttpResponse("done")


@device_bound_required(max_age=30)
async def afresh(request: HttpRequest) -> HttpResponse:
    return HttpResponse("done")


@device_bound_required(max_age=0)
def never_fresh(request: HttpRequest) -> HttpResponse:
    return HttpResponse("done")


class Fresh(APIView):
    permission_classes = [IsAuthenticated, DeviceBound.within(30)]

    def get(self, request: Request) -> Response:
        return Response("done")


class NeverFresh(Fresh):
    permission_classes = [DeviceBound.within(0)]


class AtAnyAge(Fresh):
    permission_classes = [DeviceBound]


def act(request: HttpRequest) -> HttpResponse:
    """What the query string says, in a transaction of its own if that is to be undone."""
    for action in request.GET["do"].split(","):
        name, _, value = action.partition("=")
        if name == "in":
            log_in(request, value)
        elif name == "in-as":
            log_in(request, request.GET["user"], device_bound=value)
        elif name == "out":
            log_out(request)
        elif name == "undone-in":
            with transaction.atomic():
                log_in(request, value)
                transaction.set_rollback(True)
        elif name == "up":
            assert step_up(request, {"amr": ["otp"]}, {"up": True}).status == value
        elif name == "tenant":
            assert switch_tenant(request, value, {"tenant": True}).status == "rotated"
        elif name == "fail":
            raise ZeroDivisionError
    session = request.session_info  # type: ignore[attr-defined]
    return HttpResponse(session.user_id or "nobody")


urlpatterns = [
    path("act/", act),
    path("only/", bound),
    path("fresh/", fresh),
    path("afresh/", afresh),
    path("never-fresh/", never_fresh),
    path("api-only/", AtAnyAge.as_view()),
    path("api-fresh/", Fresh.as_view()),
    path("api-never-fresh/", NeverFresh.as_view()),
    path("", include("tests.urls")),
]


@pytest.fixture(autouse=True)
def _offered(settings: Any, configure: Callable[..., None]) -> None:
    settings.ROOT_URLCONF = __name__
    configure(DEVICE_BOUND="offer")


@pytest.fixture
def device(browser: Browser, user_id: str) -> Device:
    """A browser that has just been signed in, and has been asked to bind the session."""
    device = Device(browser)
    device.challenge = device.offered(browser.get(f"/login/?user={user_id}"))
    return device


@pytest.fixture
def owner(device: Device) -> Device:
    """One that has."""
    assert device.challenge is not None
    assert device.register(device.challenge).status_code == 200
    return device


@pytest.fixture
def after_grace(database_setting: Callable[[str, str], None]) -> Callable[[Device], Device]:
    """The time in which a session that has just been bound needs no proof is over.

    Its proof, of before, holds for as long as it says.
    """

    def end(device: Device) -> Device:
        database_setting("device_proof_lifetime", "1")
        time.sleep(1.02)
        return device

    return end


def thief_of(owner: Device) -> Browser:
    """Who has got the session's cookie, and not the device."""
    token = owner.browser.token()
    assert token is not None
    return Browser().give(token)


def events(user_id: str, event: str) -> list[Any]:
    return [e for e in session_service.history(user_id=user_id) if e.event == event]


def code(response: Any) -> tuple[int, str | None]:
    found = response.json() if response.headers.get("Content-Type", "").endswith("json") else {}
    return response.status_code, found.get("code") if isinstance(found, dict) else None


class TestBinding:
    pytestmark = pytest.mark.usefixtures("backend")

    def test_off(self, browser: Browser, user_id: str, configure: Any) -> None:
        configure(DEVICE_BOUND="off")
        with CaptureQueriesContext(connection) as captured:
            response = browser.get(f"/login/?user={user_id}")
        assert OFFER not in response.headers
        assert not any("device_" in str(q["sql"]).split("FROM")[-1] for q in captured)
        assert browser.get(CURRENT).json()["session"]["device_bound"] is False

    @quick
    @pytest.mark.parametrize("kind", ["EC", "RSA", "RSA 4096"])
    def test_registers_and_renews(self, device: Device, user_id: str, kind: str) -> None:
        if kind != "EC":
            size = 4096 if kind.endswith("4096") else 2048
            device.key = Key(rsa.generate_private_key(public_exponent=65537, key_size=size))
        browser, first = device.browser, device.browser.token()
        assert device.challenge is not None
        response = device.register(device.challenge)
        assert response.status_code == 200
        told = response.json()
        assert told["scope"] == {
            "origin": "https://testserver",
            "include_site": False,
            "scope_specification": [],
        }
        assert [credential["name"] for credential in told["credentials"]] == [
            "__Host-session_proof"
        ]
        morsel = response.cookies["__Host-session_proof"]
        assert (morsel["path"], morsel["secure"], morsel["httponly"], morsel["samesite"]) == (
            "/",
            True,
            True,
            "Lax",
        )
        assert LIFETIME - 5 < int(morsel["max-age"]) <= LIFETIME
        assert response.headers["Cache-Control"] == "private, no-store"
        second = browser.token()
        assert second not in (None, first)
        assert "sp1_" not in str(second)
        assert browser.get(CURRENT).json()["session"]["device_bound"] is True
        (listed,) = browser.get(API).json()["results"]
        assert listed["device_bound_at"] is not None
        public = device.key.jwk
        text = json.dumps(public, sort_keys=True, separators=(",", ":")).encode()
        assert listed["device_thumbprint"] == b64(hashlib.sha256(text).digest())
        (event,) = events(user_id, "device_bound")
        assert event.detail == {"thumbprint": listed["device_thumbprint"]}
        for _ in range(3):
            proof = device.proof
            device.lose_proof()
            # By the challenge of the answer before, in one request.
            assert device.answer(device.challenge).status_code == 200
            assert device.proof not in (None, proof)
            assert browser.token() == second

    @quick
    def test_without_a_challenge(self, owner: Device) -> None:
        response = owner.answer(None)
        assert code(response) == (403, "device_challenge")
        assert owner.answer(owner.challenge).status_code == 200
        used = owner.challenge
        assert owner.answer(used).status_code == 200
        assert code(owner.answer(used)) == (403, "device_challenge")
        assert owner.answer(owner.challenge).status_code == 200

    def test_a_stolen_cookie(
        self, owner: Device, user_id: str, after_grace: Callable[[Device], Device]
    ) -> None:
        # For a while everything works: requests are under way that know of no proof.
        assert thief_of(owner).get(CURRENT).status_code == 200
        after_grace(owner)
        thief = thief_of(owner)
        for response in (
            thief.get(CURRENT),
            thief.unsafe("PATCH", CURRENT, {"client": {}}),
            thief.unsafe("POST", f"{API}refresh/", {}),
            thief.get(API),
            thief.get("/protected/"),
            post(thief, REGISTER, Secure_Session_Response=f'"{Key().token("x", register=True)}"'),
        ):
            assert code(response) == (401, "device_proof_required"), response.request["PATH_INFO"]
            assert settings.cookie_name not in response.cookies
            assert settings.device_cookie_name not in response.cookies
        assert thief.get("/info/").json() == {"exists": False, "user": None, "data": {}}
        # The owner is not disturbed.
        assert owner.browser.get(CURRENT).status_code == 200
        assert owner.browser.unsafe("PATCH", CURRENT, {"client": {"n": 1}}).status_code == 200
        assert owner.browser.get("/protected/").status_code == 200
        response = owner.browser.unsafe("POST", f"{API}refresh/", {})
        assert response.json()["status"] == "rotated"
        assert OFFER not in response.headers
        assert owner.browser.get(CURRENT).json()["session"]["data"]["client"] == {"n": 1}
        forged = str(owner.proof)[:-1] + ("B" if str(owner.proof).endswith("A") else "A")
        for proof in ("", "sp1_", "sp1_" + "A" * 36, f"{owner.proof}A", forged):
            thief = thief_of(owner)
            thief.cookies[settings.device_cookie_name] = proof
            assert code(thief.get(CURRENT)) == (401, "device_proof_required")
        found = {(e.event, (e.detail or {}).get("cause")) for e in events_of(user_id)}
        assert ("device_proof_failed", "proof_wrong") in found

    def test_everything_that_renews_keeps_the_proof(
        self, owner: Device, user_id: str, after_grace: Callable[[Device], Device]
    ) -> None:
        after_grace(owner)
        for action in ("up=rotated", "tenant=acme", "up=rotated,tenant=other,up=rotated"):
            response = owner.browser.get(f"/act/?do={action}")
            assert (response.status_code, response.content.decode()) == (200, user_id)
            assert OFFER not in response.headers
            assert owner.browser.get(CURRENT).json()["session"]["device_bound"] is True
        assert thief_of(owner).get(CURRENT).status_code == 401
        assert thief_of(owner).get("/act/?do=up=proof_required").content == b"nobody"

    def test_signing_out(self, owner: Device, after_grace: Callable[[Device], Device]) -> None:
        after_grace(owner)
        response = owner.browser.unsafe("DELETE", CURRENT)
        assert response.status_code == 204
        assert response.cookies[settings.device_cookie_name].value == ""
        assert response.cookies[settings.cookie_name].value == ""
        response = owner.answer(None)
        assert response.json()["continue"] is False

    def test_a_thief_may_sign_out(self, owner: Device, after_grace: Any) -> None:
        after_grace(owner)
        assert thief_of(owner).unsafe("DELETE", CURRENT).status_code == 204
        assert code(owner.browser.get(CURRENT)) == (401, "session_revoked")

    @quick
    def test_revoked_elsewhere(self, owner: Device, user_id: str) -> None:
        session_service.invalidate_all(user_id)
        binding = owner.binding
        response = owner.answer(owner.challenge)
        assert response.status_code == 200
        assert response.json() == {"session_identifier": binding, "continue": False}
        assert response.cookies[settings.device_cookie_name].value == ""

    @quick
    def test_the_next_login_leaves_the_binding_before(self, owner: Device, user_id: str) -> None:
        first, challenge = owner.binding, owner.challenge
        second = Device(owner.browser)
        offered = second.offered(owner.browser.get(f"/login/?user={user_id}"))
        assert second.register(offered).status_code == 200
        # The browser still knows the one before; that it is over leaves the new proof alone.
        owner.binding = first
        response = owner.answer(challenge)
        assert response.json()["continue"] is False
        assert settings.device_cookie_name not in response.cookies
        assert second.renew().status_code == 200

    def test_a_late_look(self, owner: Device, configure: Any, after_grace: Any) -> None:
        """Why a 401 is one is asked when it is written, and not in sessions that are found."""
        after_grace(owner)
        if settings.stand_in is not None:
            return
        with CaptureQueriesContext(connection) as captured:
            assert owner.browser.get(CURRENT).status_code == 200
        assert len(captured) == 1
        configure(DEVICE_BOUND="off")
        assert owner.browser.get(CURRENT).status_code == 200
        assert code(thief_of(owner).get(CURRENT)) == (401, "session_expired")
        assert owner.renew().status_code == 200


def events_of(user_id: str) -> list[Any]:
    return list(session_service.history(user_id=user_id))


class TestRegistration:
    pytestmark = [quick, pytest.mark.usefixtures("backend")]

    def test_replayed(self, device: Device) -> None:
        challenge = device.challenge
        token = device.key.token(challenge, register=True)
        assert post(device.browser, REGISTER, Secure_Session_Response=token).status_code == 200
        for answer in (token, Key().token(challenge, register=True)):
            response = post(device.browser, REGISTER, Secure_Session_Response=answer)
            assert code(response) == (409, "device_already_bound")

    def test_crossed_between_two_sessions(self, device: Device, user_id: str) -> None:
        other = Device(Browser())
        challenge = other.offered(other.browser.get(f"/login/?user={user_id}"))
        response = device.register(challenge)
        assert code(response) == (403, "device_challenge")
        assert device.browser.get(CURRENT).json()["session"]["device_bound"] is False
        assert device.challenge is not None
        assert device.register(device.challenge).status_code == 200
        assert other.register(challenge).status_code == 200
        # So are the renewals.
        assert code(other.answer(device.challenge)) == (403, "device_challenge")
        other.binding = device.binding
        assert other.answer(None).json()["continue"] is False

    def test_after_the_end(self, device: Device, user_id: str) -> None:
        assert device.challenge is not None
        session_service.invalidate_all(user_id)
        assert code(device.register(device.challenge)) == (401, "session_revoked")
        browser = Browser()
        assert post(browser, REGISTER).status_code == 401
        browser.cookies[settings.cookie_name] = "nonsense"
        assert post(browser, REGISTER).status_code == 401

    def test_by_a_replaced_token(self, device: Device) -> None:
        assert device.challenge is not None
        before = device.browser.token()
        response = device.browser.unsafe("POST", f"{API}refresh/", {})
        assert device.offered(response) != device.challenge
        after = device.browser.token()
        device.browser.give(str(before))
        assert code(device.register(device.challenge)) == (409, "token_replaced")
        device.browser.give(str(after))
        assert device.register(device.challenge).status_code == 200

    def test_not_over_post_of_another_site(self, device: Device) -> None:
        """There is no CSRF token, and need be none: what is signed belongs to the session."""
        other = Key()
        response = post(
            device.browser,
            REGISTER,
            Secure_Session_Response=other.token("sc1_" + "A" * 36, register=True),
            Origin="https://evil.example",
        )
        assert code(response) == (403, "device_challenge")

    def test_without_cookies(self, device: Device, configure: Any) -> None:
        configure(BEARER=True)
        token = device.browser.token()
        answer = device.key.token(device.challenge, register=True)
        response = post(
            Browser(), REGISTER, Authorization=f"Bearer {token}", Secure_Session_Response=answer
        )
        assert code(response) == (403, "bearer_refused")
        response = post(
            Browser(), f"{API}refresh/", Authorization=f"Bearer {token}", Content_Type="x/y"
        )
        assert OFFER not in response.headers

    def test_not_where_it_is_off(self, device: Device, configure: Any) -> None:
        assert device.challenge is not None
        configure(DEVICE_BOUND="off")
        assert code(device.register(device.challenge)) == (403, "device_binding_off")


@pytest.mark.parametrize("what", ["register", "renew"])
def test_raced_by_two_tabs(device: Device, user_id: str, what: str) -> None:
    browser, challenge = device.browser, device.challenge
    if what == "renew":
        assert challenge is not None
        device.register(challenge)
    start = threading.Barrier(4)

    def tab(n: int) -> tuple[int, str | None, Any]:
        tab = Device(Browser(), device.key)
        tab.browser.cookies.update(browser.cookies)
        tab.binding = device.binding
        start.wait()
        try:
            if what == "register":
                return (*code(tab.register(str(challenge))), tab)
            return (*code(tab.answer(device.challenge)), tab)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(tab, range(4)))
    refusal = (409, "device_already_bound") if what == "register" else (403, "device_challenge")
    assert sorted(status for status, _, _ in found) == [200, *[refusal[0]] * 3]
    assert {why for _, why, _ in found} <= {None, refusal[1], "token_replaced"}
    if what == "renew":
        # Those that came late answer the challenge that they got.
        assert all(tab.renew().status_code == 200 for _, _, tab in found)
    else:
        assert len(events(user_id, "device_bound")) == 1


Make = Callable[[Key, str], str]


def _raw(header: Any, payload: Any, signature: bytes = b"x" * 64) -> str:
    parts = [p if isinstance(p, bytes) else json.dumps(p).encode() for p in (header, payload)]
    return ".".join(b64(part) for part in (*parts, signature))


def _by_hmac(key: Key, challenge: str, secret: bytes, algorithm: str = "HS256") -> str:
    header = {"typ": "dbsc+jwt", "alg": algorithm, "jwk": key.jwk}
    text = ".".join(b64(json.dumps(part).encode()) for part in (header, {"jti": challenge}))
    return f"{text}.{b64(hmac.digest(secret, text.encode(), 'sha256'))}"


def _pem(key: Key) -> bytes:
    return key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _flipped(token: str, part: int, at: int = -8) -> str:
    parts = [bytearray(base64.urlsafe_b64decode(p + "==")) for p in token.split(".")]
    parts[part][at] ^= 1
    return ".".join(b64(bytes(p)) for p in parts)


_P384 = ec.generate_private_key(ec.SECP384R1())
_SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024)
_RSA = Key(rsa.generate_private_key(public_exponent=65537, key_size=2048))

#: By the kind: what is no answer of a device, to a registration or to a renewal.
FORGED: dict[str, list[Make]] = {
    "nothing": [lambda k, c: "", lambda k, c: '""', lambda k, c: " ", lambda k, c: "a.b"],
    "not a token": [
        lambda k, c: "a.b.c",
        lambda k, c: "..",
        lambda k, c: "é.é.é".encode().decode("latin-1"),
        lambda k, c: c,
        lambda k, c: f"{k.token(c, register=True)}.x",
        lambda k, c: k.token(c, register=True).replace(".", ","),
        lambda k, c: f"?1;{k.token(c, register=True)}",
    ],
    "not JSON": [
        lambda k, c: _raw(b"\xff\xfe", {"jti": c}),
        lambda k, c: _raw(b"[" * 5000, {"jti": c}),
        lambda k, c: _raw({"typ": "dbsc+jwt", "alg": "ES256", "jwk": k.jwk}, b"{"),
        lambda k, c: _raw([], {"jti": c}),
        lambda k, c: _raw({"typ": "dbsc+jwt", "alg": "ES256", "jwk": k.jwk}, [c]),
        lambda k, c: _raw("dbsc+jwt", c),
        lambda k, c: _raw(b"", b""),
        lambda k, c: _raw(b'{"alg":"ES256"', {"jti": c}),
    ],
    "too long": [
        lambda k, c: k.token(c, {"x": "y" * 9000}, register=True),
        lambda k, c: k.token(c, payload={"x": "y" * 9000}, register=True),
        lambda k, c: "a" * 20000,
        lambda k, c: f'"{"a." * 8000}"',
    ],
    "no algorithm": [
        lambda k, c: _raw({"typ": "dbsc+jwt", "alg": "none", "jwk": k.jwk}, {"jti": c}, b""),
        lambda k, c: _raw({"typ": "dbsc+jwt", "alg": "none", "jwk": k.jwk}, {"jti": c}),
        lambda k, c: _raw({"typ": "dbsc+jwt", "alg": "NONE", "jwk": k.jwk}, {"jti": c}),
        lambda k, c: k.token(c, {"alg": None}, register=True),
        lambda k, c: k.token(c, {"alg": 1}, register=True),
        lambda k, c: k.token(c, {"alg": ["ES256"]}, register=True),
        lambda k, c: k.token(c, {"alg": {"ES256": 1}}, register=True),
    ],
    "a secret in the place of a key": [
        lambda k, c: _by_hmac(k, c, _pem(k)),
        lambda k, c: _by_hmac(k, c, json.dumps(k.jwk).encode()),
        lambda k, c: _by_hmac(k, c, b""),
        lambda k, c: _by_hmac(k, c, _pem(k), "ES256"),
        lambda k, c: _by_hmac(k, c, _pem(k), "HS512"),
        lambda k, c: _by_hmac(_RSA, c, _pem(_RSA)),
        lambda k, c: _by_hmac(_RSA, c, _pem(_RSA), "RS256"),
        lambda k, c: k.token(c, {"jwk": {"kty": "oct", "k": "AAAA"}, "alg": "HS256"}),
    ],
    "the other algorithm": [
        lambda k, c: k.token(c, {"alg": "RS256"}, register=True),
        lambda k, c: _RSA.token(c, {"alg": "ES256"}, register=True),
        lambda k, c: _RSA.token(c, {"alg": "PS256"}, register=True),
        lambda k, c: _RSA.token(c, {"alg": "RS512"}, register=True),
        lambda k, c: k.token(c, {"alg": "ES384"}, register=True),
        lambda k, c: k.token(c, {"alg": "EdDSA"}, register=True),
        lambda k, c: k.token(c, {"alg": "es256"}, register=True),
    ],
    "another type": [
        lambda k, c: k.token(c, {"typ": None}, register=True),
        lambda k, c: k.token(c, {"typ": "JWT"}, register=True),
        lambda k, c: k.token(c, {"typ": "dbsc"}, register=True),
        lambda k, c: k.token(c, {"typ": 7}, register=True),
    ],
    "extensions": [
        lambda k, c: k.token(c, {"crit": ["b64"], "b64": False}, register=True),
        lambda k, c: k.token(c, {"b64": False}, register=True),
        lambda k, c: k.token(c, {"crit": ["exp"]}, register=True),
        lambda k, c: k.token(c, {"kid": 5, "crit": []}, register=True),
    ],
    "no challenge": [
        lambda k, c: k.token(None, register=True),
        lambda k, c: k.token("", register=True),
        lambda k, c: k.token(5, register=True),
        lambda k, c: k.token([c], register=True),
        lambda k, c: k.token({"jti": c}, register=True),
        lambda k, c: k.token(None, payload={"nonce": c}, register=True),
        lambda k, c: k.token("\0" * 52, register=True),
        lambda k, c: k.token(f"{c}\n", register=True),
    ],
    "another challenge": [
        lambda k, c: k.token("sc1_" + "A" * 36, register=True),
        lambda k, c: k.token(c.replace("sc1_", "sp1_"), register=True),
        lambda k, c: k.token(c[:-2] + ("AA" if c[-2:] != "AA" else "BB"), register=True),
        lambda k, c: k.token(c[:10] + ("A" if c[10] != "A" else "B") + c[11:], register=True),
        lambda k, c: k.token(c + "A", register=True),
        lambda k, c: k.token(c[:-1], register=True),
        lambda k, c: k.token(c.upper(), register=True),
    ],
    "a changed signature": [
        lambda k, c: _flipped(k.token(c, register=True), 2),
        lambda k, c: _flipped(k.token(c, register=True), 2, 0),
        lambda k, c: k.token(c, register=True)[:-8],
        lambda k, c: k.token(c, register=True).rpartition(".")[0] + "." + b64(bytes(64)),
        lambda k, c: k.token(c, register=True).rpartition(".")[0] + "." + b64(b"\1" * 65),
        lambda k, c: k.token(c, register=True).rpartition(".")[0] + ".",
    ],
    "changed afterwards": [
        lambda k, c: _flipped(k.token(c, register=True), 1, -3),
        lambda k, c: _flipped(k.token(c, {"z": "abcdefghij"}, register=True), 0, -4),
        lambda k, c: ".".join(
            (
                k.token(c, register=True).split(".")[0],
                b64(json.dumps({"jti": c, "x": 1}).encode()),
                k.token(c, register=True).split(".")[2],
            )
        ),
    ],
    "signed by another key": [
        lambda k, c: Key().token(c, {"jwk": k.jwk}),
        lambda k, c: _RSA.token(c, {"jwk": Key(_rsa()).jwk}),
        lambda k, c: Key().token(c, {"jwk": k.jwk, "kid": "x"}),
    ],
}

#: The same for registrations alone: a renewal does not look at the key in the header.
KEYS: dict[str, list[Make]] = {
    "no key": [
        lambda k, c: k.token(c),
        lambda k, c: k.token(c, {"jwk": {}}),
        lambda k, c: k.token(c, {"jwk": []}),
        lambda k, c: k.token(c, {"jwk": "key"}),
        lambda k, c: k.token(c, {"jwk": {"kty": "EC"}}),
        lambda k, c: k.token(c, {"jwk": {"kty": ["EC"]}}),
        lambda k, c: k.token(c, {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}}),
        lambda k, c: k.token(c, {"jwk": {"keys": [k.jwk]}}),
        lambda k, c: k.token(c, {"jku": "https://evil.example/keys"}),
    ],
    "a key that is none": [
        lambda k, c: k.token(c, {"jwk": {**k.jwk, "x": k.jwk["y"], "y": k.jwk["x"]}}),
        lambda k, c: k.token(c, {"jwk": {**k.jwk, "x": "AAAA"}}),
        lambda k, c: k.token(c, {"jwk": {**k.jwk, "x": "é"}}),
        lambda k, c: k.token(c, {"jwk": {**k.jwk, "x": 5}}),
        lambda k, c: k.token(c, {"jwk": {**k.jwk, "y": None}}),
        lambda k, c: k.token(c, {"jwk": {**k.jwk, "x": number(0, 32), "y": number(0, 32)}}),
        lambda k, c: k.token(c, {"jwk": {**k.jwk, "crv": "P-384"}}),
        lambda k, c: k.token(c, {"jwk": {**k.jwk, "crv": "secp256k1"}}),
        lambda k, c: k.token(c, {"jwk": {**k.jwk, "kty": "RSA"}}),
    ],
    "a private key": [
        lambda k, c: k.token(c, {"jwk": {**k.jwk, "d": number(5, 32)}}),
        lambda k, c: _RSA.token(c, {"jwk": {**_RSA.jwk, "p": "AQAB"}}),
    ],
    "another curve": [
        lambda k, c: Key(_P384).token(
            c,
            {
                "alg": "ES256",
                "jwk": {
                    "kty": "EC",
                    "crv": "P-384",
                    "x": number(_P384.public_key().public_numbers().x, 48),
                    "y": number(_P384.public_key().public_numbers().y, 48),
                },
            },
        ),
    ],
    "an RSA key of another size": [
        lambda k, c: Key(_SMALL).token(c, register=True),
        lambda k, c: _RSA.token(c, {"jwk": {**_RSA.jwk, "e": "AQ"}}),
        lambda k, c: _RSA.token(c, {"jwk": {**_RSA.jwk, "e": ""}}),
        lambda k, c: _RSA.token(c, {"jwk": {**_RSA.jwk, "n": ""}}),
        lambda k, c: _RSA.token(c, {"jwk": {**_RSA.jwk, "n": _RSA.jwk["n"] * 3}}),
        lambda k, c: _RSA.token(c, {"jwk": {**_RSA.jwk, "e": _RSA.jwk["n"]}}),
    ],
}


def _rsa() -> Any:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _kinds(*groups: dict[str, list[Make]]) -> Any:
    merged = [item for group in groups for item in group.items()]
    return pytest.mark.parametrize(("kind", "makers"), merged, ids=[name for name, _ in merged])


@quick
def test_there_are_enough() -> None:
    assert len(FORGED) + len(KEYS) >= 15
    registrations = sum(map(len, (*FORGED.values(), *KEYS.values())))
    renewals = sum(map(len, FORGED.values()))
    assert registrations >= 100 or registrations + renewals >= 150


@quick
@_kinds(FORGED, KEYS)
def test_forged_registrations(device: Device, kind: str, makers: list[Make]) -> None:
    challenge = str(device.challenge)
    for n, make in enumerate(makers):
        token = make(device.key, challenge)
        for answer in (token, f'"{token}"'):
            response = post(device.browser, REGISTER, Secure_Session_Response=answer)
            assert response.status_code in (400, 403), (kind, n, response.content)
            assert set(response.json()) == {"detail", "code"}
            assert settings.device_cookie_name not in response.cookies
    assert device.browser.get(CURRENT).json()["session"]["device_bound"] is False
    assert device.register(challenge).status_code == 200


@quick
@_kinds(FORGED)
def test_forged_renewals(owner: Device, user_id: str, kind: str, makers: list[Make]) -> None:
    challenge = str(owner.challenge)
    before = owner.proof
    for n, make in enumerate(makers):
        response = post(
            owner.browser,
            REFRESH,
            Sec_Secure_Session_Id=f'"{owner.binding}"',
            Secure_Session_Response=make(owner.key, challenge),
        )
        assert response.status_code in (400, 403), (kind, n, response.content)
        assert set(response.json()) == {"detail", "code"}
        assert settings.device_cookie_name not in response.cookies
    assert owner.proof == before
    failed = events(user_id, "device_proof_failed")
    assert all((e.severity, e.detail) == ("critical", {"cause": "signature"}) for e in failed)
    if kind in ("a changed signature", "changed afterwards", "signed by another key"):
        assert failed
    assert owner.answer(challenge).status_code == 200


@quick
def test_what_is_no_matter(owner: Device) -> None:
    """Other members of the token, and who else the header names."""
    for header, payload in (
        ({"jwk": Key().jwk}, {}),
        ({"kid": "x", "jku": "https://evil.example/"}, {}),
        ({}, {"exp": 1, "nbf": 9999999999, "iat": "never", "aud": ["x"], "iss": "y", "sub": 5}),
        ({}, {"authorization": "x", "key": Key().jwk}),
    ):
        response = owner.answer(owner.challenge, header=header, payload=payload)
        assert response.status_code == 200, response.content


@quick
@pytest.mark.parametrize("binding", ["", '""', "x", '"x"', "a" * 5000, '"\0"'])
def test_which_binding(owner: Device, binding: str) -> None:
    response = post(owner.browser, REFRESH, Sec_Secure_Session_Id=binding)
    assert code(response) == (400, "device_answer_invalid")
    # It may be bare.
    response = post(owner.browser, REFRESH, Sec_Secure_Session_Id=str(owner.binding))
    assert code(response) == (403, "device_challenge")


def test_a_counterfeit_proof(owner: Device, after_grace: Callable[[Device], Device]) -> None:
    """What looks like a proof opens nothing, in whichever place it has been changed."""
    after_grace(owner)
    proof = str(owner.proof)
    raw = base64.urlsafe_b64decode(proof[4:])
    for n in range(0, 27, 2):
        changed = bytearray(raw)
        changed[n] ^= 0x10
        thief = thief_of(owner)
        thief.cookies[settings.device_cookie_name] = f"sp1_{b64(bytes(changed))}"
        assert code(thief.get(CURRENT)) == (401, "device_proof_required")
    assert owner.browser.get(CURRENT).status_code == 200


NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}
OWN_NAVIGATION = {**NAVIGATION, "Sec-Fetch-Site": "same-origin"}


class TestNavigation:
    """By a link on another site, for which a browser does not wait for a proof."""

    @pytest.mark.parametrize("page", ["/info/", "/protected/", "/act/?do=x", "/no-such-page/"])
    def test_is_loaded_again(self, owner: Device, after_grace: Any, page: str) -> None:
        after_grace(owner)
        thief = thief_of(owner)
        response = thief.get(page, headers=NAVIGATION)
        assert code(response) == (401, "device_proof_required")
        assert response.headers["Refresh"] == "0"
        assert response.headers["Cache-Control"] == "private, no-store"
        assert not response.cookies
        # The page that it loads is one of ours: then there is a proof, or an ordinary answer.
        assert "Refresh" not in thief.get(page, headers=OWN_NAVIGATION).headers
        response = owner.browser.get(page, headers=NAVIGATION)
        assert "Refresh" not in response.headers
        assert response.status_code == (404 if "no-such" in page else 200)

    def test_the_view_is_not_called(self, owner: Device, after_grace: Any, user_id: str) -> None:
        """What the link is for may be good for one use."""
        after_grace(owner)
        before = len(session_service.list("somebody else"))
        response = thief_of(owner).get("/act/?do=in=somebody else", headers=NAVIGATION)
        assert (response.status_code, response.headers["Refresh"]) == (401, "0")
        assert len(session_service.list("somebody else")) == before

    @pytest.mark.parametrize("engine", [False, True])
    async def test_asynchronously(
        self, owner: Device, after_grace: Any, settings: Any, engine: bool
    ) -> None:
        client = AsyncClient()
        client.cookies.update(thief_of(owner).cookies)
        if engine:
            (settings.SESSION_COOKIE_NAME,) = client.cookies
            settings.SESSION_ENGINE = "session_manager.backends.sessions"
            django_s = "django.contrib.sessions.middleware.SessionMiddleware"
            settings.MIDDLEWARE = [
                "session_manager.middleware.RequestSessionMiddleware" if name == django_s else name
                for name in settings.MIDDLEWARE
                if name != "session_manager.middleware.SessionMiddleware"
            ]
        await sync_to_async(after_grace)(owner)
        response = await client.get("/act/?do=in=somebody", secure=True, headers=NAVIGATION)
        assert code(response) == (401, "device_proof_required")
        assert response.headers["Refresh"] == "0"

    def test_nobody_is_sent_round_for_nothing(self, browser: Browser, owner: Device) -> None:
        """Without a session, or with one that is not bound, there is nothing to wait for."""
        assert "Refresh" not in Browser().get("/info/", headers=NAVIGATION).headers
        other = Browser()
        other.get("/login/?user=somebody")
        assert other.get("/info/", headers=NAVIGATION).json()["exists"]
        session_service.invalidate(other.token())
        assert "Refresh" not in other.get("/info/", headers=NAVIGATION).headers

    def test_is_no_sign_of_a_thief(
        self, owner: Device, user_id: str, database_setting: Any
    ) -> None:
        database_setting("device_proof_lifetime", "1")
        time.sleep(3.1)
        browser = thief_of(owner)
        skipped = {"Secure-Session-Skipped": "unreachable"}
        # The last one is what Next.js passes on of a navigation.
        for headers in (NAVIGATION, skipped, {"Sec-Fetch-Site": "cross-site"}):
            assert browser.get("/info/", headers=headers).status_code in (200, 401)
        assert not events(user_id, "device_proof_failed")
        assert browser.get("/info/").json()["exists"] is False
        assert [e.detail["cause"] for e in events(user_id, "device_proof_failed")] == [
            "proof_missing"
        ]


class TestOffer:
    """A browser that comes from another site registers without its cookies, in vain."""

    @quick
    @pytest.mark.parametrize("page", [CURRENT, "/info/"])
    def test_is_repeated(self, device: Device, page: str) -> None:
        assert post(Browser(), REGISTER, Secure_Session_Response="x").status_code == 401
        if page != CURRENT:
            assert OFFER not in device.browser.get(page).headers
            assert OFFER not in device.browser.get(page, headers=NAVIGATION).headers
        challenge = device.offered(device.browser.get(page, headers=OWN_NAVIGATION))
        assert device.register(challenge).status_code == 200
        assert OFFER not in device.browser.get(page, headers=OWN_NAVIGATION).headers

    @quick
    def test_is_not_an_answer_to_its_own(self, device: Device) -> None:
        """Or the browser would begin again for ever."""
        response = post(device.browser, REGISTER, Secure_Session_Response="x")
        assert code(response) == (400, "device_answer_invalid")
        assert OFFER not in response.headers
        assert device.challenge is not None
        assert OFFER not in device.register(device.challenge).headers

    @quick
    def test_ends(self, device: Device, configure: Any) -> None:
        configure(DEVICE_REGISTRATION_SECONDS=1)
        time.sleep(1.1)
        assert OFFER not in device.browser.get(CURRENT).headers
        assert OFFER not in device.browser.get("/info/", headers=OWN_NAVIGATION).headers

    async def test_is_repeated_by_asynchronous_views(self, user_id: str) -> None:
        client = AsyncClient()
        response = await client.get("/login/", {"user": user_id}, secure=True)
        assert OFFER in response.headers
        response = await client.get("/info/", secure=True, headers=OWN_NAVIGATION)
        assert OFFER in response.headers


@quick
def test_a_thief_cannot_use_up_the_owner_s_renewals(owner: Device, configure: Any) -> None:
    """A browser gives its binding up at a 429."""
    configure(THROTTLE_RATES={"read": "2/min", "refresh": "2/min", "write": "2/min"})
    cache.clear()
    thief = thief_of(owner)
    for _ in range(6):
        response = post(thief, REFRESH, Sec_Secure_Session_Id=str(owner.binding))
        assert code(response) == (403, "device_challenge")
    assert owner.answer(None).status_code == 403
    assert owner.answer(owner.challenge).status_code == 200


@quick
class TestSkipped:
    def test_is_recorded_once(self, owner: Device, user_id: str, caplog: Any) -> None:
        header = {"Secure-Session-Skipped": f'quota_exceeded;session_identifier="{owner.binding}"'}
        for _ in range(3):
            assert owner.browser.get(CURRENT, headers=header).status_code == 200
        (event,) = events(user_id, "device_proof_skipped")
        assert event.detail == {"cause": "quota_exceeded"}
        assert sum("quota_exceeded" in record.getMessage() for record in caplog.records) == 1
        owner.browser.get(CURRENT, headers={"Secure-Session-Skipped": "unreachable"})
        assert len(events(user_id, "device_proof_skipped")) == 2
        cache.clear()
        owner.browser.get("/info/", headers=header)
        assert len(events(user_id, "device_proof_skipped")) == 3
        assert SKIPPED_SECONDS >= 60

    @pytest.mark.parametrize(
        ("given", "cause"),
        [
            ("", "other"),
            ("\x7f<script>", "other"),
            ("a" * 500, "other"),
            ("server_error, unreachable", "server_error"),
            ("Unreachable\t;x=y", "unreachable"),
        ],
    )
    def test_what_it_says(self, owner: Device, user_id: str, given: str, cause: str) -> None:
        response = owner.browser.get(CURRENT, headers={"Secure-Session-Skipped": given})
        assert response.status_code == 200
        (event,) = events(user_id, "device_proof_skipped")
        assert event.detail == {"cause": cause}

    def test_not_of_others(self, device: Device, user_id: str) -> None:
        header = {"Secure-Session-Skipped": "unreachable"}
        assert Browser().get("/info/", headers=header).status_code == 200
        assert device.browser.get("/info/", headers=header).status_code == 200
        assert events(user_id, "device_proof_skipped") == []


class TestPolicy:
    pytestmark = [quick, pytest.mark.usefixtures("backend")]

    def test_required(self, browser: Browser, user_id: str, configure: Any) -> None:
        configure(DEVICE_BOUND="require", DEVICE_REGISTRATION_SECONDS=0.4)
        device = Device(browser)
        challenge = device.offered(browser.get(f"/login/?user={user_id}"))
        assert browser.get(CURRENT).status_code == 200
        assert browser.get(CURRENT).json()["session"]["auth"] == {"amr": ["pwd"]}
        late = Device(Browser())
        late_challenge = late.offered(late.browser.get(f"/login/?user={user_id}"))
        assert device.register(challenge).status_code == 200
        time.sleep(0.5)
        assert browser.get(CURRENT).status_code == 200
        # A new token, or another tenant, gives no more time.
        switched = session_service.switch_tenant(late.browser.token(), "acme")
        assert switched.token is not None
        late.browser.give(switched.token)
        for response in (
            late.browser.get(CURRENT),
            late.browser.get("/protected/"),
            late.register(late_challenge),
            late.browser.unsafe("POST", f"{API}refresh/", {}),
        ):
            assert code(response) == (401, "device_binding_required")
            assert settings.cookie_name not in response.cookies
        assert late.browser.get("/info/").json()["exists"] is False
        # The switch of the feature: nobody is locked out.
        configure(DEVICE_BOUND="off")
        assert late.browser.get(CURRENT).status_code == 200

    def test_sessions_of_before(self, browser: Browser, user_id: str, configure: Any) -> None:
        browser.get(f"/login/?user={user_id}")
        configure(DEVICE_BOUND="require", DEVICE_REGISTRATION_SECONDS=0.01)
        time.sleep(0.02)
        assert browser.get(CURRENT).status_code == 200
        assert OFFER in browser.unsafe("POST", f"{API}refresh/", {}).headers

    @pytest.mark.parametrize("how", ["path", "function"])
    def test_by_user(self, configure: Any, how: str) -> None:
        from .hooks import device_by_name

        configure(
            DEVICE_BOUND="tests.hooks.device_by_name" if how == "path" else device_by_name,
            DEVICE_REGISTRATION_SECONDS=0.01,
        )
        for name, offered, status in (
            ("staff-1", True, 401),
            ("old-1", False, 200),
            ("other-1", True, 200),
        ):
            browser = Browser()
            response = browser.get(f"/login/?user={name}")
            assert (OFFER in response.headers) is offered
            time.sleep(0.02)
            assert browser.get(CURRENT).status_code == status

    def test_by_login(self, configure: Any, user_id: str) -> None:
        browser = Browser()
        assert OFFER not in browser.get(f"/act/?do=in-as=off&user={user_id}").headers
        assert OFFER not in browser.unsafe("POST", f"{API}refresh/", {}).headers
        assert OFFER in browser.get(f"/act/?do=in-as=offer&user={user_id}").headers
        configure(DEVICE_REGISTRATION_SECONDS=0.01)
        browser.get(f"/act/?do=in-as=require&user={user_id}")
        time.sleep(0.02)
        assert code(browser.get(CURRENT)) == (401, "device_binding_required")
        configure(DEVICE_BOUND="off")
        assert OFFER not in browser.get(f"/act/?do=in-as=require&user={user_id}").headers

    def test_nonsense(self, configure: Any, user_id: str) -> None:
        configure(DEVICE_BOUND="tests.hooks.device_nonsense")
        browser = Browser(raise_request_exception=False)
        assert browser.get(f"/login/?user={user_id}").status_code == 500


@quick
def test_on_login_decides(auth0: Issuer, configure: Any, browser: Browser, user_id: str) -> None:
    def sign_in(sub: str) -> Any:
        token = auth0.token(sub)
        headers = {"Authorization": f"Bearer {token}"}
        return browser.unsafe("POST", f"{API}create/", {}, headers=headers)

    configure(ON_LOGIN="tests.hooks.on_login_with_device", DEVICE_REGISTRATION_SECONDS=0.01)
    response = sign_in(f"staff|{user_id}")
    assert response.status_code == 201
    assert response.json()["session"]["device_bound"] is False
    assert OFFER in response.headers
    time.sleep(0.02)
    assert code(browser.get(CURRENT)) == (401, "device_binding_required")
    browser = Browser()
    assert OFFER not in sign_in(f"old|{user_id}").headers


class TestDecorator:
    @quick
    def test_unbound(self, device: Device) -> None:
        for page in ("/only/", "/fresh/", "/api-only/", "/api-fresh/"):
            response = device.browser.get(page)
            assert code(response) == (403, "device_bound_required"), page
            assert CHALLENGE not in response.headers
        for page in ("/only/", "/fresh/", "/api-only/", "/api-fresh/"):
            assert Browser().get(page).status_code == 401, page

    @quick
    @pytest.mark.parametrize("page", ["/never-fresh/", "/api-never-fresh/"])
    def test_stale(self, owner: Device, page: str) -> None:
        for served in ("/only/", "/fresh/", "/api-only/", "/api-fresh/"):
            assert owner.browser.get(served).status_code == 200, served
        response = owner.browser.get(page)
        assert code(response) == (403, "device_proof_stale")
        owner.learn(SimpleNamespace(headers=response.headers, status_code=403))
        assert response.cookies[settings.device_cookie_name].value == ""
        assert settings.cookie_name not in response.cookies
        # The browser proves itself by the challenge that came along.
        assert owner.answer(owner.challenge).status_code == 200
        assert owner.browser.get("/fresh/").status_code == 200

    def test_a_new_proof_is_fresh(self, owner: Device, settings: Any) -> None:
        """It is as old as its challenge, and not as the answer."""
        time.sleep(1)
        urls = [path("soon/", device_bound_required(max_age=0.9)(bound)), *urlpatterns]
        settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": urls})
        assert code(owner.browser.get("/soon/")) == (403, "device_proof_stale")
        # Of the registration: as old as that.
        assert owner.answer(owner.challenge).status_code == 200
        response = owner.browser.get("/soon/")
        assert code(response) == (403, "device_proof_stale")
        owner.learn(response)
        assert owner.answer(owner.challenge).status_code == 200
        assert owner.browser.get("/soon/").status_code == 200

    def test_not_without_a_proof(self, owner: Device) -> None:
        """Whoever has the token alone can use the session for a while, but not for this."""
        assert code(thief_of(owner).get("/fresh/")) == (403, "device_proof_stale")
        thief = thief_of(owner)
        thief.cookies[settings.device_cookie_name] = str(owner.proof)[:4] + "A" * 36
        assert thief.get("/only/").status_code == 200
        assert code(thief.get("/fresh/")) == (403, "device_proof_stale")

    async def test_asynchronous(self, owner: Device) -> None:
        client = AsyncClient()
        client.cookies.update(owner.browser.cookies)
        assert (await client.get("/afresh/")).status_code == 200
        client.cookies.pop(settings.device_cookie_name)
        response = await client.get("/afresh/")
        assert code(response) == (403, "device_proof_stale")
        assert CHALLENGE in response.headers

    @pytest.mark.parametrize("page", ["/never-fresh/", "/api-never-fresh/"])
    def test_in_a_transaction_that_rolls_back(self, owner: Device, page: str) -> None:
        connection.settings_dict["ATOMIC_REQUESTS"] = True
        try:
            response = owner.browser.get(page)
        finally:
            connection.settings_dict["ATOMIC_REQUESTS"] = False
        assert CHALLENGE in response.headers
        assert response.cookies[settings.device_cookie_name].value == ""


class TestTransactions:
    @pytest.fixture(params=[False, True], autouse=True)
    def _atomic(self, request: Any) -> Iterator[None]:
        connection.settings_dict["ATOMIC_REQUESTS"] = request.param
        yield
        connection.settings_dict["ATOMIC_REQUESTS"] = False

    def test_the_offer_waits(self, browser: Browser, user_id: str) -> None:
        assert OFFER in browser.get(f"/act/?do=in={user_id}").headers
        assert OFFER not in browser.get(f"/act/?do=in={user_id},out").headers
        assert OFFER not in Browser().get(f"/act/?do=undone-in={user_id}").headers
        assert OFFER in browser.get(f"/act/?do=undone-in={user_id},in={user_id}").headers

    def test_the_whole_way(self, browser: Browser, user_id: str, after_grace: Any) -> None:
        device = Device(browser)
        assert device.register(device.offered(browser.get(f"/act/?do=in={user_id}")))
        connection.settings_dict["ATOMIC_REQUESTS"] = False
        after_grace(device)
        assert browser.get("/act/?do=up=rotated,tenant=acme").content.decode() == user_id
        assert device.renew().status_code == 200
        response = browser.get("/act/?do=out")
        assert response.cookies[settings.device_cookie_name].value == ""


class TestEngine:
    """request.session, Django's login and the admin."""

    @pytest.fixture(autouse=True)
    def _engine(self, settings: Any, configure: Any) -> None:
        settings.SESSION_ENGINE = "session_manager.backends.sessions"
        settings.SESSION_COOKIE_SECURE = True
        ours = "session_manager.middleware.RequestSessionMiddleware"
        settings.MIDDLEWARE = [
            ours if name.endswith("sessions.middleware.SessionMiddleware") else name
            for name in settings.MIDDLEWARE
        ]
        get_user_model().objects.create_superuser("boss", password="secret")

    def sign_in(self, browser: Browser) -> Device:
        device = Device(browser)
        response = browser.post(
            "/accounts/login/?next=/admin/",
            {"username": "boss", "password": "secret", "csrfmiddlewaretoken": self.csrf(browser)},
        )
        assert response.status_code == 302
        assert device.register(device.offered(response)).status_code == 200
        return device

    @staticmethod
    def csrf(browser: Browser) -> str:
        browser.get("/accounts/login/")
        return str(browser.cookies["csrftoken"].value)

    def test_the_admin(self, browser: Browser, after_grace: Any) -> None:
        device = after_grace(self.sign_in(browser))
        listing = "/admin/session_manager/usersession/"
        response = browser.get(listing)
        assert response.status_code == 200
        assert "sm-bound" in response.content.decode()
        key = tokens.session_id_of(str(browser.token()))
        found = browser.get(f"{listing}?bound=yes&q={key}").content.decode()
        assert found.count("sm-bound") == 1
        assert "sm-bound" not in browser.get(f"{listing}?bound=no&q={key}").content.decode()
        assert UserSession.objects.get(pk=key).device_bound_at is not None
        page = browser.get(f"{listing}{key}/change/").content.decode()
        assert "device_bound" in page
        assert device.renew().status_code == 200
        # request.session is written as before.
        assert browser.get("/session/?colour=red").json() == {"colour": "red"}
        assert browser.get("/session/").json() == {"colour": "red"}

        thief = thief_of(device)
        response = thief.get(listing)
        assert (response.status_code, response.headers["Location"][:13]) == (302, "/admin/login/")
        assert ours_name() not in response.cookies
        # A link from another site does not make a visitor of the owner.
        response = thief.get("/session/?colour=blue", headers=NAVIGATION)
        assert (response.status_code, response.headers["Refresh"]) == (401, "0")
        assert not response.cookies

    def test_a_visitor_s_session_takes_no_cookie(self, browser: Browser, after_grace: Any) -> None:
        """While only the proof is missing, and the browser says that there will be one."""
        device = after_grace(self.sign_in(browser))
        browser.get("/session/?colour=red")
        proof = browser.cookies.pop(settings.device_cookie_name)
        skipped = {"Secure-Session-Skipped": f'unreachable;session_identifier="{device.binding}"'}
        response = browser.get("/session/?colour=blue", headers=skipped)
        assert ours_name() not in response.cookies
        boss = get_user_model().objects.get()
        assert events(str(boss.pk), "device_proof_skipped")
        browser.cookies[settings.device_cookie_name] = proof.value
        assert browser.get("/session/").json() == {"colour": "red"}
        # Who signs in anew gets a session, for which a visitor's may be needed.
        device.lose_proof()
        response = browser.get("/session/?colour=green")
        assert response.cookies[ours_name()].value != ""
        assert browser.get("/session/").json() == {"colour": "green"}
        again = self.sign_in(browser)
        assert again.binding != device.binding

    def test_a_new_password(self, browser: Browser, after_grace: Any) -> None:
        device = after_grace(self.sign_in(browser))
        token = self.csrf(browser)
        response = browser.post(
            "/accounts/password/",
            {
                "old_password": "secret",
                "new_password1": "correct-horse-9",
                "new_password2": "correct-horse-9",
                "csrfmiddlewaretoken": token,
            },
        )
        assert response.status_code == 302
        assert browser.get("/admin/session_manager/usersession/").status_code == 200
        assert device.renew().status_code == 200

    def test_signing_out(self, browser: Browser, after_grace: Any) -> None:
        device = after_grace(self.sign_in(browser))
        token = self.csrf(browser)
        response = browser.post("/accounts/logout/", {"csrfmiddlewaretoken": token})
        assert response.cookies[settings.device_cookie_name].value == ""
        assert device.answer(None).json()["continue"] is False

    def test_required(self, browser: Browser, configure: Any) -> None:
        configure(DEVICE_BOUND="require", DEVICE_REGISTRATION_SECONDS=0.01)
        browser.post(
            "/accounts/login/",
            {"username": "boss", "password": "secret", "csrfmiddlewaretoken": self.csrf(browser)},
        )
        time.sleep(0.02)
        assert code(browser.get(CURRENT)) == (401, "device_binding_required")
        assert browser.get("/admin/").status_code == 302


def ours_name() -> str:
    return settings.cookie_name


class TestActing:
    """Who acts as a user has two sessions, and one device."""

    @pytest.fixture(autouse=True)
    def _people(self, configure: Any, settings: Any) -> None:
        configure(USER_ID_FIELD="username")
        users = "session_manager.middleware.AuthenticationMiddleware"
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, users]
        get_user_model().objects.create_user("ada")
        get_user_model().objects.create_superuser("boss")

    def test_there_and_back(self, browser: Browser, after_grace: Any) -> None:
        device = Device(browser)
        assert device.register(device.offered(browser.get("/login/?user=boss"))).status_code == 200
        after_grace(device)
        response = browser.get("/impersonate/?user=ada")
        assert response.json() == {"user": "ada", "actor": "boss"}
        assert OFFER not in response.headers
        assert "sp1_" not in str(browser.cookies[settings.actor_cookie_name].value)
        assert browser.get(CURRENT).json()["session"]["device_bound"] is False
        # Not without the actor's device, whatever the actor's own cookie is.
        for names in ((settings.cookie_name,), (settings.cookie_name, settings.actor_cookie_name)):
            thief = Browser()
            for name in names:
                thief.cookies[name] = browser.cookies[name].value
            assert thief.get(CURRENT).status_code == 401
        # The browser goes on proving its device.
        assert device.renew().status_code == 200
        assert device.renew().status_code == 200
        assert browser.get("/stop/").json() == {"user": "boss"}
        assert browser.get(CURRENT).json()["session"]["device_bound"] is True
        assert "sp1_" not in str(browser.token())


class TestCache:
    def read(self, token: str | None, proof: str | None = None) -> Any:
        assert token is not None
        return session_service.get(tokens.with_proof(token, proof), touch=False)

    def is_cached(self, token: str | None, proof: str | None = None) -> bool:
        session = self.read(token, proof)
        assert session is not None
        return bool(session.cached)

    def wait_for_value(self, redis_server: RedisServer, owner: Device) -> None:
        """Until it is cached: without the binding's tombstone, which stays for a minute."""
        # The first use of the new token has to be noted.
        assert owner.browser.get(CURRENT).status_code == 200
        token = owner.browser.token()
        key = f"session:{tokens.session_id_of(str(token))}"

        def cached() -> bool:
            if redis_server.client.get(key) == b"T":
                redis_server.client.delete(key)
            return self.is_cached(token, owner.proof)

        wait_for(cached)

    def test_the_proof_opens_it(
        self, redis_server: RedisServer, owner: Device, after_grace: Any
    ) -> None:
        self.wait_for_value(redis_server, owner)
        token, proof = owner.browser.token(), owner.proof
        session = self.read(token, proof)
        assert session.device_bound
        # In the grace without one: not from the cache.
        assert not self.is_cached(token)
        after_grace(owner)
        self.wait_for_value(redis_server, owner)
        with CaptureQueriesContext(connection) as captured:
            assert owner.browser.get(CURRENT).json()["session"]["device_bound"] is True
        assert len(captured) == 0
        for other in (None, "sp1_" + "A" * 36, str(proof)[:-1] + "A" + "B"):
            assert self.read(token, other) is None
        assert thief_of(owner).get(CURRENT).status_code == 401
        # A new proof has a value of its own, once the older one's is gone.
        owner.renew()
        assert not self.is_cached(token, owner.proof)
        assert self.is_cached(token, proof)
        session_service.invalidate(token)
        for each in (proof, owner.proof):
            assert self.read(token, each) is None

    def test_no_longer_than_the_proof(
        self, redis_server: RedisServer, database_setting: Any, device: Device
    ) -> None:
        database_setting("device_proof_lifetime", "3")
        owner = device
        assert device.register(str(device.challenge)).status_code == 200
        self.wait_for_value(redis_server, owner)
        token, proof = owner.browser.token(), owner.proof
        raw = tokens.token_bytes(tokens.with_proof(str(token), proof))
        assert raw is not None
        until = tokens.proof_expiry(raw)
        assert until is not None
        key = f"session:{tokens.session_id_of(str(token))}"
        assert 0 < redis_server.client.pttl(key) <= 3000
        time.sleep(max(until / 1e6 - time.time(), 0) + 0.01)
        assert self.read(token, proof) is None
        found = session_cache().read(raw)  # type: ignore[union-attr]
        assert found[0] is None

    def test_an_older_proof_beside_an_unbound_session(
        self, redis_server: RedisServer, device: Device
    ) -> None:
        token, proof = device.browser.token(), "sp1_" + "A" * 36
        wait_for(lambda: self.is_cached(token, proof))
        # All share the value.
        assert self.is_cached(token)
        assert self.is_cached(token, "sp1_" + "B" * 36)


@quick
class TestChecks:
    def static(self) -> set[str]:
        from session_manager.checks import check_settings

        return {str(message.id).partition(".")[2] for message in check_settings(None)}

    @pytest.mark.parametrize(
        ("values", "found"),
        [
            ({}, set()),
            ({"DEVICE_BOUND": "require"}, set()),
            ({"DEVICE_BOUND": "tests.hooks.device_by_name"}, set()),
            ({"DEVICE_BOUND": lambda request, user_id: "off"}, set()),
            ({"DEVICE_BOUND": "always"}, {"E001"}),
            ({"DEVICE_BOUND": True}, {"E001"}),
            ({"DEVICE_BOUND": None}, {"E001"}),
            ({"DEVICE_BOUND": "tests.hooks.nobody"}, {"E002"}),
            ({"DEVICE_COOKIE_NAME": "session_token"}, {"E090"}),
            ({"DEVICE_COOKIE_NAME": "session_token_actor"}, {"E090"}),
            ({"DEVICE_COOKIE_NAME": "sessionid", "COOKIE_HOST_PREFIX": False}, {"E090"}),
            ({"DEVICE_COOKIE_NAME": ""}, {"E001"}),
            ({"DEVICE_REGISTRATION_SECONDS": 0}, {"E001"}),
            ({"DEVICE_REGISTRATION_SECONDS": "60"}, {"E001"}),
            ({"COOKIE_SECURE": False, "COOKIE_HOST_PREFIX": False}, {"E092", "W004"}),
        ],
        ids=str,
    )
    def test_settings(self, configure: Any, values: Any, found: set[str]) -> None:
        configure(**values)
        assert self.static() == found

    def test_surroundings(self, configure: Any, settings: Any) -> None:
        settings.DEBUG = True
        assert self.static() == {"W092"}
        settings.DEBUG = False
        settings.SESSION_ENGINE = "session_manager.backends.sessions"
        settings.SESSION_COOKIE_SECURE = True
        configure(ON_LOGIN="tests.hooks.on_login")
        assert self.static() == {"E093", "W043"}
        settings.ROOT_URLCONF = "django.contrib.auth.urls"
        assert self.static() >= {"E091"}
        configure(DEVICE_BOUND="off")
        assert self.static() == {"W043"}


def test_a_short_proof(database_setting: Any, configure: Any) -> None:
    from session_manager.checks import check_servers

    def found() -> set[str]:
        messages = check_servers(None, databases=["default"])
        return {str(message.id).partition(".")[2] for message in messages}

    assert "W094" not in found()
    database_setting("device_proof_lifetime", "239")
    connections.close_all()
    assert "W094" in found()
    configure(DEVICE_BOUND="off")
    assert "W094" not in found()


@quick
def test_the_host_prefix(configure: Any, settings: Any) -> None:
    from session_manager.conf import settings as ours

    assert ours.device_cookie_name == "__Host-session_proof"
    configure(DEVICE_COOKIE_NAME="proof", COOKIE_HOST_PREFIX=False)
    assert ours.device_cookie_name == "proof"
    configure(COOKIE_NAME="__Host-own")
    assert ours.device_cookie_name == "__Host-proof"


@pytest.mark.usefixtures("backend")
class TestService:
    """The calls alone, on the extension and on the stand-in."""

    @quick
    def test_verdicts(self, user_id: str) -> None:
        created = session_service.create(user_id)
        token, key = created.token, Key().jwk
        challenge = session_service.device_challenge(token)
        assert challenge is not None
        assert session_service.device(token) is None
        assert session_service.prove_device(token, challenge).status == "not_bound"
        assert not session_service.report_device(token, True, "x")
        assert session_service.bind_device(token, key, "sc1_x").status == "bad_challenge"
        done = session_service.bind_device(token, {**key, "use": "sig"}, challenge, ip="::1")
        assert done.status == "bound"
        assert done.token not in (None, token)
        assert (done.session_id, done.user_id) == (created.id, user_id)
        assert "sp1_" not in repr(done)
        device = session_service.device(done.token)
        assert device is not None
        assert (device.binding_id, device.key) == (done.binding_id, key)
        assert device.thumbprint == done.thumbprint
        assert device.proved_at <= device.bound_at
        assert session_service.bind_device(done.token, key, challenge).status == "already_bound"
        answer = session_service.prove_device(done.token, challenge)
        assert (answer.status, answer.proof) == ("bad_challenge", None)
        following = session_service.device_challenge(done.token)
        assert following is not None
        answer = session_service.prove_device(done.token, following)
        assert answer.status == "proved"
        assert "sp1_" not in repr(answer)
        assert session_service.prove_device(done.token, following).status == "bad_challenge"
        assert session_service.report_device(done.token, False, "signature", ip="::1")
        (event,) = [e for e in events_of(user_id) if e.event == "device_proof_failed"]
        assert (event.severity, event.ip) == ("critical", "::1")
        session = session_service.get(tokens.with_proof(str(done.token), answer.proof))
        assert session is not None
        assert session.device_bound
        (listed,) = session_service.list(user_id)
        assert (listed.device_bound, listed.device_thumbprint) == (True, device.thumbprint)
        assert session_service.invalidate(done.token)
        assert session_service.device_challenge(done.token) is None
        assert session_service.bind_device(done.token, key, challenge).status == "ended"
        assert session_service.prove_device(done.token, following).status == "ended"

    @quick
    def test_what_is_no_token(self) -> None:
        for nonsense in (None, "", "sm1_", "sd1_" + "A" * 64):
            assert session_service.device_challenge(nonsense) is None
            assert session_service.device(nonsense) is None
            assert session_service.bind_device(nonsense, {}, "").status == "ended"
            assert session_service.prove_device(nonsense, "").status == "ended"
            assert not session_service.report_device(nonsense, True, "x")

    def test_without_a_proof(self, user_id: str, backend: str, database_setting: Any) -> None:
        token = session_service.create(user_id).token
        challenge = session_service.device_challenge(token)
        done = session_service.bind_device(token, Key().jwk, str(challenge))
        bare, good = str(done.token), tokens.with_proof(str(done.token), done.proof)
        assert session_service.get(bare) is not None
        database_setting("device_proof_lifetime", "1")
        time.sleep(1.05)
        assert session_service.get(bare) is None
        assert session_service.update(bare, {"a": 1}) is None
        for refused in (
            session_service.refresh(bare, with_session=True),
            session_service.elevate(bare, {}, with_session=True),
            session_service.switch_tenant(bare, "acme", with_session=True),
        ):
            assert refused.status == "proof_required"
            assert not refused.live
            assert (refused.id, refused.token, refused.session) == (None, None, None)
        assert not session_service.bind(bare)
        assert session_service.end_reason(bare) is None
        assert session_service.bind(good)
        assert session_service.update(good, {"a": 1}) is not None
        rotated = session_service.refresh(good, rotate=True, with_session=True)
        assert rotated.status == "rotated"
        assert rotated.session is not None
        assert rotated.session.data == {"a": 1}
        good = tokens.with_proof(str(rotated.token), done.proof)
        assert session_service.create("other", actor_token=good).id is not None
        assert session_service.invalidate(bare) is (backend != STAND_IN or True)

    async def test_asynchronous(self, user_id: str) -> None:
        created = await session_service.acreate(user_id)
        challenge = await session_service.adevice_challenge(created.token)
        done = await session_service.abind_device(created.token, Key().jwk, str(challenge))
        assert (await session_service.adevice(done.token)) is not None
        challenge = await session_service.adevice_challenge(done.token)
        answer = await session_service.aprove_device(done.token, str(challenge))
        assert answer.status == "proved"
        assert await session_service.areport_device(done.token, True, "x")


@quick
def test_no_cookie_holds_a_proof() -> None:
    from session_manager.login import set_cookie, token_from

    token, proof = "sm1_" + "A" * 64, "sp1_" + "B" * 36
    request = RequestFactory().get("/")
    request.COOKIES[settings.cookie_name] = token
    assert token_from(request) == token
    request.COOKIES[settings.device_cookie_name] = "nonsense"
    assert token_from(request) == token
    request.COOKIES[settings.device_cookie_name] = proof
    assert token_from(request) == f"{token}.{proof}"
    response = HttpResponse()
    from django.utils import timezone

    set_cookie(response, f"{token}.{proof}", timezone.now() + timedelta(hours=1))
    assert response.cookies[settings.cookie_name].value == token
    request.COOKIES[settings.cookie_name] = f"{token}.{proof}"
    assert token_from(request) is None
