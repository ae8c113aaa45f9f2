"""Access tokens, against an issuer with keys of its own; and what attackers try."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.core.exceptions import ImproperlyConfigured
from jwt.algorithms import RSAAlgorithm

from session_manager import auth0 as auth0_module
from session_manager.api.errors import ServiceUnavailable
from session_manager.auth0 import InvalidToken, KeySet, TokenVerifier, verifier
from session_manager.conf import Auth0Settings

from .conftest import Browser, wait_for
from .issuer import AUDIENCE, Issuer, bearer


def refused(token: str) -> bool:
    with pytest.raises(InvalidToken):
        verifier().verify(token)
    return True


def b64(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("kid", ["rsa", "ec"])
def test_good_tokens(auth0: Issuer, kid: str) -> None:
    assert verifier().verify(auth0.token("auth0|ada", kid))["sub"] == "auth0|ada"
    assert verifier().verify(auth0.token("auth0|ada", kid, aud=AUDIENCE))["aud"] == AUDIENCE
    assert auth0.requests == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example/"},
        {"iss": "https://tenant.example.com"},
        {"iss": None},
        {"aud": "https://other.example.com"},
        {"aud": []},
        {"aud": None},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": 1e400},
        {"sub": None},
        {"sub": ""},
    ],
)
def test_refused_claims(auth0: Issuer, changes: dict[str, Any]) -> None:
    assert refused(auth0.token("auth0|ada", **changes))


@pytest.mark.parametrize(("claim", "offset"), [("exp", -3600), ("nbf", 3600), ("iat", 3600)])
def test_refused_times(auth0: Issuer, claim: str, offset: int) -> None:
    assert refused(auth0.token("auth0|ada", **{claim: int(time.time()) + offset}))


@pytest.mark.parametrize("parties", ["spa", ["spa", "app"]])
def test_authorized_parties(auth0: Issuer, configure: Any, settings: Any, parties: Any) -> None:
    """Another client of the same issuer may get tokens for the same audience."""
    assert verifier().verify(auth0.token("auth0|ada", azp="somebody's"))
    configure(AUTH0={**settings.SESSION_MANAGER["AUTH0"], "AUTHORIZED_PARTIES": parties})
    assert verifier().verify(auth0.token("auth0|ada", azp="spa"))
    for other in ("somebody's", "", "sp", None, ["spa"]):
        assert refused(auth0.token("auth0|ada", azp=other))


@pytest.mark.parametrize("sub", [7, ["auth0|ada"], {"a": 1}, True])
def test_a_subject_is_text(auth0: Issuer, sub: Any) -> None:
    algorithm, key = auth0.keys["rsa"]
    payload = json.dumps({**auth0.claims("x"), "sub": sub}).encode()
    token = jwt.api_jws.encode(payload, key, algorithm=algorithm, headers={"kid": "rsa"})
    assert refused(token)


def test_leeway(auth0: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time())

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Stopped:
            return cls.fromtimestamp(now, tz)

    monkeypatch.setattr("jwt.api_jwt.datetime", Stopped)

    def token(**changes: int) -> str:
        return auth0.token("auth0|ada", iat=now, **changes)

    verifier().verify(token(exp=now - 9))
    verifier().verify(token(nbf=now + 10))
    assert refused(token(exp=now - 10))
    assert refused(token(nbf=now + 11))


@pytest.mark.parametrize(
    "token",
    ["", "x", "a.b", "a.b.c", "a.b.c.d", "." * 3, "e30.e30.", "é.é.é", "x" * 20000, "[" * 9000],
)
def test_nonsense(auth0: Issuer, token: str) -> None:
    assert refused(token)
    assert auth0.requests == 0


class TestConfusion:
    def test_none(self, auth0: Issuer) -> None:
        for algorithm in ("none", "None", "NONE", "nOnE", "", None, 7, ["RS256"]):
            header = {"typ": "JWT", "alg": algorithm, "kid": "rsa"}
            for signature in ("", b64(b"x")):
                token = f"{b64(header)}.{b64(auth0.claims('root'))}.{signature}"
                assert refused(token)

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "RS256", "ES256"])
    def test_public_key_as_secret(self, auth0: Issuer, algorithm: str) -> None:
        public = auth0.keys["rsa"][1].public_key()
        forms = [
            public.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            public.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            json.dumps(auth0.jwk("rsa")).encode(),
        ]
        for secret in forms:
            signed = f"{b64({'alg': algorithm, 'kid': 'rsa'})}.{b64(auth0.claims('root'))}"
            mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
            assert refused(f"{signed}.{b64(mac)}")

    def test_the_algorithm_of_another_key(self, auth0: Issuer) -> None:
        rsa_key, ec_key = auth0.keys["rsa"][1], auth0.keys["ec"][1]
        claims = auth0.claims("root")
        assert refused(jwt.encode(claims, rsa_key, "RS256", {"kid": "ec"}))
        assert refused(jwt.encode(claims, ec_key, "ES256", {"kid": "rsa"}))

    @pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
    def test_other_algorithms(self, auth0: Issuer, algorithm: str) -> None:
        key = auth0.keys["rsa"][1]
        assert refused(jwt.encode(auth0.claims("root"), key, algorithm, {"kid": "rsa"}))

    def test_a_key_in_the_header(self, auth0: Issuer) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        own = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
        for header in (
            {"kid": "rsa", "jwk": own},
            {"kid": "rsa", "jku": "https://evil.example/jwks.json"},
            {"kid": "rsa", "x5u": "https://evil.example/cert.pem"},
            {"jwk": own},
            {"kid": ""},
            {"kid": "../../../dev/null"},
        ):
            assert refused(jwt.encode(auth0.claims("root"), key, "RS256", header))

    def test_crit(self, auth0: Issuer) -> None:
        key = auth0.keys["rsa"][1]
        header = {"kid": "rsa", "crit": ["exp"], "exp": 1}
        token = jwt.encode(auth0.claims("auth0|ada"), key, "RS256", header)
        assert refused(token)

    def test_a_changed_payload(self, auth0: Issuer) -> None:
        header, _, signature = auth0.token("auth0|ada").split(".")
        assert refused(f"{header}.{b64(auth0.claims('root'))}.{signature}")

    def test_no_key_id(self, auth0: Issuer) -> None:
        assert refused(jwt.encode(auth0.claims("root"), auth0.keys["rsa"][1], "RS256"))


class TestUnusableKeys:
    @pytest.mark.parametrize(
        "change",
        [
            {"use": "enc"},
            {"alg": "HS256"},
            {"alg": "RS512"},
            {"kty": "oct", "k": "c2VjcmV0"},
            {"kid": 7},
            {"n": "AQAB"},
            {"n": None},
        ],
    )
    def test_left_out(self, auth0: Issuer, change: dict[str, Any]) -> None:
        auth0.extra = [{**auth0.jwk("rsa"), "kid": "odd", **change}, None, 7, {}]
        token = jwt.encode(auth0.claims("root"), auth0.keys["rsa"][1], "RS256", {"kid": "odd"})
        assert refused(token)
        verifier().verify(auth0.token("auth0|ada"))

    def test_small_keys_and_other_curves(self, auth0: Issuer) -> None:
        small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        other = ec.generate_private_key(ec.SECP384R1())
        auth0.keys["small"] = ("RS256", small)
        auth0.keys["other"] = ("ES384", other)
        assert refused(auth0.token("root", "small"))
        assert refused(auth0.token("root", "other"))


class TestRotation:
    def test_a_new_key_is_found(self, auth0: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("session_manager.auth0.REFETCH_SECONDS", 0.2)
        verifier().verify(auth0.token("auth0|ada"))
        auth0.keys = {
            "new": ("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048))
        }
        time.sleep(0.25)
        verifier().verify(auth0.token("auth0|ada", "new"))
        assert auth0.requests == 2

    def test_a_key_that_is_gone_is_refused(
        self, auth0: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("session_manager.auth0.REFETCH_SECONDS", 0.0)
        old = auth0.token("auth0|ada")
        verifier().verify(old)
        del auth0.keys["rsa"]
        assert refused(auth0_unknown(auth0))
        assert refused(old)

    def test_made_up_ids_fetch_once_a_minute(self, auth0: Issuer) -> None:
        verifier().verify(auth0.token("auth0|ada"))
        for _ in range(50):
            assert refused(auth0_unknown(auth0))
        assert auth0.requests == 1
        keys = verifier().keys
        assert keys._tried_at is not None
        keys._tried_at -= 61
        for _ in range(50):
            assert refused(auth0_unknown(auth0))
        assert auth0.requests == 2

    def test_many_threads_fetch_once(self, auth0: Issuer) -> None:
        auth0.delay = 0.3
        token = auth0.token("auth0|ada")
        verify = verifier().verify
        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(lambda _: verify(token), range(8)))) == 8
        assert auth0.requests == 1

    def test_the_set_is_fetched_again_when_it_is_old(self, auth0: Issuer) -> None:
        verifier().verify(auth0.token("auth0|ada"))
        keys = verifier().keys
        assert keys._fetched_at is not None
        assert keys._tried_at is not None
        keys._fetched_at -= 601
        keys._tried_at -= 601
        verifier().verify(auth0.token("auth0|ada"))
        assert auth0.requests == 2


def auth0_unknown(issuer: Issuer) -> str:
    key = issuer.keys["ec"][1]
    return jwt.encode(issuer.claims("auth0|ada"), key, "ES256", {"kid": f"k{time.time_ns()}"})


class TestOutage:
    def test_old_keys_go_on_for_a_while(self, auth0: Issuer) -> None:
        token = auth0.token("auth0|ada")
        verifier().verify(token)
        auth0.status = 500
        keys = verifier().keys
        assert keys._fetched_at is not None
        keys._fetched_at -= 700
        keys._tried_at = None
        verifier().verify(token)
        keys._fetched_at -= 4000
        keys._tried_at = None
        with pytest.raises(ServiceUnavailable):
            verifier().verify(token)

    @pytest.mark.parametrize(
        "body", [b"", b"<html>", b"[]", b"{}", b'{"keys": 1}', b'{"keys": []}', b"[" * 100000]
    )
    def test_no_key_set(self, auth0: Issuer, body: bytes) -> None:
        auth0.body = body
        with pytest.raises(ServiceUnavailable):
            verifier().verify(auth0.token("auth0|ada"))

    def test_too_large(self, auth0: Issuer) -> None:
        auth0.body = b" " * (1 << 21)
        with pytest.raises(ServiceUnavailable):
            verifier().verify(auth0.token("auth0|ada"))

    def test_redirects_are_not_followed(self, auth0: Issuer) -> None:
        auth0.status, auth0.location = 302, auth0.jwks_url
        with pytest.raises(ServiceUnavailable):
            verifier().verify(auth0.token("auth0|ada"))
        assert auth0.requests == 1

    def test_an_issuer_that_is_down_is_asked_sparingly(
        self, auth0: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(auth0_module, "RETRY_SECONDS", 3600.0)
        auth0.status = 500
        for _ in range(20):
            with pytest.raises(ServiceUnavailable):
                verifier().verify(auth0.token("auth0|ada"))
        assert auth0.requests == 1

    @pytest.mark.django_db
    def test_login_says_503(self, auth0: Issuer, browser: Browser) -> None:
        auth0.status = 500
        response = browser.unsafe(
            "POST",
            "/api/sessions/create/",
            headers=bearer(auth0.token("auth0|ada")),
        )
        assert (response.status_code, response.json()["code"]) == (503, "issuer_unavailable")
        assert response["Retry-After"] == "2"

    def test_a_slow_issuer(self, auth0: Issuer) -> None:
        auth0.released.clear()
        keys = KeySet(auth0.jwks_url, ttl=600, max_stale=600, timeout=0.2)
        try:
            with pytest.raises(auth0_module.IssuerUnavailable):
                keys.key("rsa")
            # It gave up, maybe before its request was read: there is no answer yet.
            wait_for(lambda: auth0.requests == 1)
            assert auth0.answers == 0
        finally:
            auth0.released.set()


@pytest.mark.parametrize(
    "url",
    ["http://issuer.example.com/jwks.json", "file:///etc/passwd", "ftp://localhost/x", "jwks"],
)
def test_keys_come_over_https(url: str) -> None:
    with pytest.raises(ImproperlyConfigured):
        TokenVerifier(Auth0Settings("https://issuer.example.com/", ("a",), url))


def test_settings(settings: Any) -> None:
    from session_manager.conf import settings as own

    settings.SESSION_MANAGER = {}
    assert own.AUTH0 is None
    settings.AUTH0_DOMAIN = "tenant.eu.auth0.com"
    settings.AUTH0_AUDIENCE = "https://api.example.com"
    assert own.AUTH0 is not None
    assert own.AUTH0.ISSUER == "https://tenant.eu.auth0.com/"
    assert own.AUTH0.JWKS_URL == "https://tenant.eu.auth0.com/.well-known/jwks.json"
    assert own.AUTH0.AUDIENCE == ("https://api.example.com",)
    for wrong in ({"AUDIENCE": "x"}, {"DOMAIN": "x"}, {"DOMAIN": "x", "AUDIENCE": "y", "X": 1}):
        settings.AUTH0_DOMAIN = settings.AUTH0_AUDIENCE = None
        settings.SESSION_MANAGER = {"AUTH0": wrong}
        with pytest.raises(ImproperlyConfigured):
            _ = own.AUTH0
