"""An OpenID-style issuer: a real HTTP server with RSA and EC keys of its own."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "https://api.example.com"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        issuer = self.server.issuer
        issuer.requests += 1
        if issuer.delay:
            time.sleep(issuer.delay)
        issuer.released.wait(60)
        issuer.answers += 1
        body = issuer.body if issuer.body is not None else json.dumps(issuer.jwks()).encode()
        self.send_response(issuer.status)
        if issuer.location:
            self.send_header("Location", issuer.location)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    issuer: Issuer


def bearer(token: str) -> dict[str, str]:
    """The header that an access token comes in."""
    return {"Authorization": f"Bearer {token}"}


class Issuer:
    """Keys by id; ``keys`` is what the key set publishes."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.issuer = self
        port = self._server.server_address[1]
        self.jwks_url = f"http://127.0.0.1:{port}/.well-known/jwks.json"
        self.url = "https://tenant.example.com/"
        self._initial = {
            "rsa": ("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
            "ec": ("ES256", ec.generate_private_key(ec.SECP256R1())),
        }
        self.reset()

    def reset(self) -> None:
        from session_manager import auth0

        auth0._verifiers.clear()
        self.keys: dict[str, tuple[str, Any]] = dict(self._initial)
        self.extra: list[Any] = []
        self.requests = 0
        self.answers = 0
        self.delay = 0.0
        #: Answers wait for this.
        self.released = threading.Event()
        self.released.set()
        self.status = 200
        self.body: bytes | None = None
        self.location: str | None = None

    def __enter__(self) -> Issuer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def jwk(self, kid: str) -> dict[str, Any]:
        algorithm, key = self.keys[kid]
        converter: Any = RSAAlgorithm if algorithm.startswith("RS") else ECAlgorithm
        public = json.loads(converter.to_jwk(key.public_key()))
        return {**public, "kid": kid, "use": "sig", "alg": algorithm}

    def jwks(self) -> dict[str, Any]:
        return {"keys": [*map(self.jwk, self.keys), *self.extra]}

    def claims(self, sub: str, /, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": [AUDIENCE, f"{self.url}userinfo"],
            "sub": sub,
            "iat": now,
            "exp": now + 3600,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, sub: str, kid: str = "rsa", /, **changes: Any) -> str:
        algorithm, key = self.keys[kid]
        return jwt.encode(
            self.claims(sub, **changes), key, algorithm=algorithm, headers={"kid": kid}
        )
