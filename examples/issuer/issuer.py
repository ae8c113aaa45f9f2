#!/usr/bin/env python3
"""A small OpenID provider for the example: authorization code flow with PKCE, real JWTs.

It listens on loopback, keeps everything in memory and lets anybody sign in as anybody: for trying
things out, and for nothing else.  Keys are made at the start; tokens are signed with RS256.

    issuer.py --port 9000 --client web --redirect http://localhost:3000/auth/callback \\
        --audience https://api.example.com
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import secrets
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

USERS = {
    "auth0|ada": {"name": "Ada Lovelace", "email": "ada@example.com"},
    "auth0|grace": {"name": "Grace Hopper", "email": "grace@example.com"},
    "auth0|linus": {"name": "Linus Pauling", "email": "linus@example.com"},
}
CODE_SECONDS = 60
TOKEN_SECONDS = 3600

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sign in</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 22rem; margin: 15vh auto;
        padding: 0 1rem }}
h1 {{ font-size: 1.25rem }} p {{ color: #555 }}
a {{ display: block; margin: .5rem 0; padding: .75rem 1rem; border: 1px solid #ccd;
     border-radius: 8px; color: inherit; text-decoration: none }}
a:hover, a:focus {{ border-color: #36c; background: #f4f7ff }}
</style>
<main><h1>Who are you?</h1><p>This provider believes everybody. It is for the example only.</p>
{links}</main></html>"""


class Issuer(ThreadingHTTPServer):
    """The provider's state: its key, and codes that have not been exchanged yet."""

    daemon_threads = True

    def __init__(self, port: int, client: str, redirect: str, audience: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.client = client
        self.redirect = redirect
        self.audience = audience
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.kid = secrets.token_hex(8)
        self.codes: dict[str, dict[str, Any]] = {}

    def sign(self, claims: dict[str, Any]) -> str:
        now = int(time.time())
        claims = {"iss": f"{self.url}/", "iat": now, "exp": now + TOKEN_SECONDS, **claims}
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": self.kid})

    def key_set(self) -> dict[str, Any]:
        public = json.loads(RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**public, "kid": self.kid, "use": "sig", "alg": "RS256"}]}

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": f"{self.url}/",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/.well-known/jwks.json",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "code_challenge_methods_supported": ["S256"],
        }


class Refused(Exception):
    """An OAuth error."""


class Handler(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        parsed = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parsed.query).items()}
        if parsed.path == "/.well-known/openid-configuration":
            self.answer(self.server.metadata())
        elif parsed.path == "/.well-known/jwks.json":
            self.answer(self.server.key_set())
        elif parsed.path == "/authorize":
            self.refusing(self.authorize, query)
        else:
            self.answer({"error": "not_found"}, 404)

    def do_POST(self) -> None:
        if urlsplit(self.path).path != "/token":
            self.answer({"error": "not_found"}, 404)
            return
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 65536))
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        self.refusing(self.exchange, form)

    def refusing(self, action: Any, values: dict[str, str]) -> None:
        try:
            action(values)
        except Refused as error:
            self.answer({"error": str(error)}, 400)

    def authorize(self, query: dict[str, str]) -> None:
        """Show the users; with one chosen, send the browser back with a code."""
        server = self.server
        if query.get("client_id") != server.client or query.get("redirect_uri") != server.redirect:
            # Never a redirect to where nobody has asked for it.
            raise Refused("invalid_client")
        if query.get("response_type") != "code" or query.get("code_challenge_method") != "S256":
            raise Refused("invalid_request")
        if not query.get("code_challenge"):
            raise Refused("invalid_request")
        user = query.pop("user", None)
        if user not in USERS:
            links = "\n".join(
                f'<a href="/authorize?{html.escape(urlencode({**query, "user": sub}))}">'
                f"{html.escape(profile['name'])}</a>"
                for sub, profile in USERS.items()
            )
            self.page(PAGE.format(links=links))
            return
        code = secrets.token_urlsafe(32)
        server.codes[code] = {**query, "sub": user, "until": time.monotonic() + CODE_SECONDS}
        back = urlencode({"code": code, "state": query.get("state", "")})
        self.send_response(303)
        self.send_header("Location", f"{server.redirect}?{back}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def exchange(self, form: dict[str, str]) -> None:
        """A code and its verifier for tokens, once."""
        if form.get("grant_type") != "authorization_code":
            raise Refused("unsupported_grant_type")
        begun = self.server.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            begun is None
            or time.monotonic() > begun["until"]
            or form.get("client_id") != begun["client_id"]
            or form.get("redirect_uri") != begun["redirect_uri"]
            or not secrets.compare_digest(challenge, begun["code_challenge"])
        ):
            raise Refused("invalid_grant")
        sub, now = begun["sub"], int(time.time())
        id_claims = {"sub": sub, "aud": self.server.client, **USERS[sub], "auth_time": now}
        if "nonce" in begun:
            id_claims["nonce"] = begun["nonce"]
        access_claims = {
            "sub": sub,
            "aud": [self.server.audience],
            "azp": self.server.client,
            "amr": ["pwd"],
            "auth_time": now,
            "scope": begun.get("scope", "openid"),
        }
        self.answer(
            {
                "access_token": self.server.sign(access_claims),
                "id_token": self.server.sign(id_claims),
                "token_type": "Bearer",
                "expires_in": TOKEN_SECONDS,
            }
        )

    def answer(self, body: Any, status: int = 200) -> None:
        self.send(json.dumps(body).encode(), "application/json", status)

    def page(self, text: str) -> None:
        self.send(text.encode(), "text/html; charset=utf-8", 200)

    def send(self, raw: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--client", required=True, help="client id")
    parser.add_argument("--redirect", required=True, help="where codes are sent")
    parser.add_argument("--audience", required=True, help="audience of access tokens")
    Issuer(**vars(parser.parse_args())).serve_forever()


if __name__ == "__main__":
    main()
