"""A browser with a device of its own, as Device Bound Session Credentials have it, in software."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from session_manager.conf import settings

from .conftest import Browser

API = "/api/sessions/"
REGISTER, REFRESH = f"{API}device/register/", f"{API}device/refresh/"


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def number(value: int, size: int | None = None) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class Key:
    """A key that signs as a device does."""

    def __init__(self, private: Any = None) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1()) if private is None else private

    @property
    def algorithm(self) -> str:
        return "ES256" if isinstance(self.private, ec.EllipticCurvePrivateKey) else "RS256"

    @property
    def jwk(self) -> dict[str, Any]:
        numbers: Any = self.private.public_key().public_numbers()
        if isinstance(self.private, rsa.RSAPrivateKey):
            return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        return {
            "kty": "EC",
            "crv": "P-256",
            "x": number(numbers.x, 32),
            "y": number(numbers.y, 32),
        }

    def sign(self, message: bytes) -> bytes:
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(message, padding.PKCS1v15(), SHA256())
        r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(SHA256())))
        size = (self.private.curve.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def token(
        self,
        challenge: Any,
        header: dict[str, Any] | None = None,
        payload: dict[str, Any] | None = None,
        *,
        register: bool = False,
    ) -> str:
        """What it signs; None in the header or the payload takes a member away."""
        members: dict[str, Any] = {"typ": "dbsc+jwt", "alg": self.algorithm}
        if register:
            members["jwk"] = self.jwk
        claims = {"jti": challenge, "iat": int(time.time()), **(payload or {})}
        parts = [
            b64(json.dumps({k: v for k, v in part.items() if v is not None}).encode())
            for part in ({**members, **(header or {})}, claims)
        ]
        text = ".".join(parts)
        return f"{text}.{b64(self.sign(text.encode()))}"


def post(browser: Browser, path: str, **headers: str) -> Any:
    """As the browser does of its own accord: no CSRF token, no Origin."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return browser.post(path, b"", content_type="application/octet-stream", headers=named)


class Device:
    """What a browser knows of its binding, and does about it."""

    def __init__(self, browser: Browser, key: Key | None = None) -> None:
        self.browser = browser
        self.key = key or Key()
        self.binding: str | None = None
        self.challenge: str | None = None

    def offered(self, response: Any) -> str:
        """The challenge of the header that asks for a registration."""
        header = response.headers["Secure-Session-Registration"]
        found = re.fullmatch(
            r'\(ES256 RS256\);path="([^"]+)";challenge="(sc1_[A-Za-z0-9_-]{36})"', header
        )
        assert found is not None, header
        assert found[1] == REGISTER
        return found[2]

    def register(self, challenge: str, **changed: Any) -> Any:
        token = self.key.token(challenge, register=True, **changed)
        response = post(self.browser, REGISTER, Secure_Session_Response=f'"{token}"')
        self.learn(response)
        return response

    def learn(self, response: Any) -> None:
        given = response.headers.get("Secure-Session-Challenge")
        if given is not None:
            found = re.fullmatch(r'"(sc1_[A-Za-z0-9_-]{36})";id="([0-9a-f-]{36})"', given)
            assert found is not None, given
            self.challenge = found[1]
        if response.status_code != 200:
            return
        told = response.json()
        if told.get("continue") is False:
            self.binding = None
            return
        assert told["refresh_url"] == REFRESH
        self.binding = told["session_identifier"]
        (credential,) = told["credentials"]
        morsel = response.cookies[credential["name"]]
        # As the browser compares them.
        attributes = "; ".join(
            part
            for part in morsel.OutputString().split("; ")[1:]
            if part.partition("=")[0].lower() not in ("max-age", "expires")
        )
        assert sorted(attributes.split("; ")) == sorted(credential["attributes"].split("; "))

    def answer(self, challenge: str | None, **changed: Any) -> Any:
        """A renewal with an answer, or (None) without."""
        headers = {"Sec_Secure_Session_Id": f'"{self.binding}"'}
        if challenge is not None:
            headers["Secure_Session_Response"] = f'"{self.key.token(challenge, **changed)}"'
        response = post(self.browser, REFRESH, **headers)
        self.learn(response)
        return response

    def renew(self) -> Any:
        """As a browser renews: with the challenge it has, and once more if that is too old."""
        response = self.answer(self.challenge)
        if response.status_code == 403 and "Secure-Session-Challenge" in response.headers:
            response = self.answer(self.challenge)
        return response

    @property
    def proof(self) -> str | None:
        morsel = self.browser.cookies.get(settings.device_cookie_name)
        return morsel.value if morsel is not None and morsel.value else None

    def lose_proof(self) -> None:
        self.browser.cookies.pop(settings.device_cookie_name, None)
