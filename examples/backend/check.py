#!/usr/bin/env python3
"""Go through the example as a browser would, and print a line for each finding.

    scripts/example.sh python3 examples/backend/check.py

BACKEND_URL, ISSUER_URL and EXAMPLE_URL come from scripts/example.sh.  Nothing but the standard
library is used.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import sys
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

BACKEND, ISSUER = os.environ["BACKEND_URL"], os.environ["ISSUER_URL"]
REDIRECT = f"{os.environ['EXAMPLE_URL']}/auth/callback"
failures = 0


def check(what: str, good: bool) -> None:
    global failures
    failures += not good
    print("ok" if good else "not ok", f"example: {what}")


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Browser:
    """A cookie jar, and the CSRF token that goes with it."""

    def __init__(self) -> None:
        self.jar = CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(self.jar),
            NoRedirect(),
        )
        self.csrf = ""

    def send(self, method: str, url: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        url = BACKEND + url if url.startswith("/") else url
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
        if method != "GET":
            given["X-CSRFToken"] = self.csrf
        request = urllib.request.Request(  # noqa: S310
            url,
            data,
            {**given, **{k.replace("_", "-"): v for k, v in headers.items()}},
            method=method,
        )
        try:
            response = self.opener.open(request, timeout=60)
        except urllib.error.HTTPError as error:
            response = error
        self.csrf = response.headers.get("X-CSRFToken") or self.csrf
        raw = response.read()
        if response.headers.get("Location"):
            return response.status, response.headers["Location"]
        return response.status, json.loads(raw) if raw else None

    def access_token(self, user: str) -> str:
        """The issuer's authorization code flow."""
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": "example-web",
            "redirect_uri": REDIRECT,
            "scope": "openid profile",
            "state": "s",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "user": user,
        }
        _, location = self.send("GET", f"{ISSUER}/authorize?{urlencode(query)}")
        form = {
            "grant_type": "authorization_code",
            "client_id": "example-web",
            "redirect_uri": REDIRECT,
            "code": parse_qs(urlsplit(location).query)["code"][0],
            "code_verifier": verifier,
        }
        _, tokens = self.send(
            "POST",
            f"{ISSUER}/token",
            urlencode(form).encode(),
            Content_Type="application/x-www-form-urlencoded",
        )
        return str(tokens["access_token"])

    def sign_in(self, user: str) -> tuple[int, Any]:
        self.send("GET", "/api/sessions/current/")
        authorization = f"Bearer {self.access_token(user)}"
        return self.send("POST", "/api/sessions/create/", {}, Authorization=authorization)

    def customers(self) -> set[str]:
        _, body = self.send("GET", "/api/invoices/")
        return {invoice["customer"] for invoice in body["results"]}


def main() -> int:
    ada, linus, stranger = Browser(), Browser(), Browser()
    check("nobody is signed in at first", ada.send("GET", "/api/invoices/")[0] == 401)
    status, body = ada.sign_in("auth0|ada")
    check("an access token becomes a session", status == 201)
    check("the tenant is the application's choice", body["session"]["tenant_id"] == "acme")
    check("the plan is in the session", body["session"]["data"]["plan"] == "team")
    check("the token is in a cookie alone", "sm1_" not in json.dumps(body))
    acme = {"Initech", "Umbrella", "Hooli"}
    check("invoices are the tenant's", ada.customers() == acme)
    status, invoice = ada.send("POST", "/api/invoices/", {"customer": "New", "amount": "10.00"})
    check("an invoice is written", status == 201 and ada.customers() == acme | {"New"})

    status, body = ada.send("POST", "/api/sessions/tenant/", {"tenant_id": "globex"})
    check("the tenant is changed", status == 200 and body["session"]["data"]["plan"] == "free")
    globex = {"Wayne Enterprises", "Stark Industries"}
    check("and the invoices with it", ada.customers() == globex)
    path = f"/api/invoices/{invoice['number']}/"
    check("another tenant's invoice is not found", ada.send("GET", path)[0] == 404)
    status, body = ada.send("POST", "/api/sessions/tenant/", {"tenant_id": "umbrella"})
    check("a tenant of others is refused", (status, body["code"]) == (403, "tenant_refused"))
    status, body = ada.send("PATCH", "/api/sessions/current/", {"plan": "enterprise"})
    check("a browser cannot give itself a plan", (status, body["code"]) == (400, "protected_data"))
    status, body = ada.send("PATCH", "/api/sessions/current/", {"is_admin": True})
    check("nor what nobody has thought of", (status, body["code"]) == (400, "protected_data"))
    status, body = ada.send("PATCH", "/api/sessions/current/", {"client": {"theme": "dark"}})
    check("what is its own it may write", body["session"]["data"]["client"] == {"theme": "dark"})

    status, body = linus.sign_in("auth0|linus")
    check("a second user signs in", status == 201)
    ada.send("POST", "/api/sessions/tenant/", {"tenant_id": "acme"})
    status, body = ada.send("POST", "/api/subscription/", {"plan": "enterprise"})
    check("a new plan reaches all sessions of the tenant", (status, body["sessions"]) == (200, 2))
    _, body = linus.send("GET", "/api/sessions/current/")
    check("at once", body["session"]["data"]["plan"] == "enterprise")

    status, body = ada.send("POST", "/api/sessions/refresh/")
    check("a refresh replaces the token", (status, body["status"]) == (200, "rotated"))
    phone = Browser()
    phone.sign_in("auth0|ada")
    _, body = ada.send("GET", "/api/sessions/")
    check("the list has both devices", len(body["results"]) == 2)
    other = next(entry["id"] for entry in body["results"] if not entry["is_current"])
    check("one is ended", ada.send("DELETE", f"/api/sessions/{other}/")[0] == 204)
    check("and has no access any more", phone.send("GET", "/api/invoices/")[0] == 401)
    _, body = phone.send("GET", "/api/sessions/current/")
    why = (body["code"], body["reason"])
    check("and is told why", why == ("session_revoked", "revoked_by_user"))
    _, body = ada.send("GET", "/api/history/")
    events = {entry["event"] for entry in body["results"]}
    check("the history tells of it", {"created", "rotated", "invalidated"} <= events)

    stranger.send("GET", "/api/sessions/current/")
    status, body = stranger.send(
        "POST", "/api/sessions/create/", {"access_token": "eyJhbGciOiJub25lIn0.e30."}
    )
    check("an unsigned token is refused", status == 401)
    status, _ = ada.send("DELETE", "/api/sessions/current/", Sec_Fetch_Site="cross-site")
    check("another site signs nobody out", status == 403)
    check("signing out ends it", ada.send("DELETE", "/api/sessions/current/")[0] == 204)
    check("for good", ada.send("GET", "/api/invoices/")[0] == 401)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
