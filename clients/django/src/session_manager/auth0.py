"""Access tokens of Auth0, or of any OpenID provider: verification, and DRF authentication.

What is accepted: a JWT signed with RS256 or ES256 by a key of the issuer's key set, with the
issuer and audience of the settings, not expired, with a subject.  The algorithm must belong to the
type of the key; "none", HMAC, embedded keys and links to keys (jku, x5u) are never used.

Key sets are fetched over HTTPS and kept.  An unknown key id leads to a new fetch, at most once a
minute, so that rotation works and made-up ids cannot flood the issuer.  When the issuer cannot be
reached, keys that are not too old go on being used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from django.core.exceptions import ImproperlyConfigured
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from .api.errors import ServiceUnavailable
from .conf import Auth0Settings, settings
from .exceptions import StoreUnavailable
from .http.bearer import names_session
from .store.users import load_user

logger = logging.getLogger("session_manager")

ALGORITHMS = {"RS256": "RSA", "ES256": "EC"}
# Between two fetches for the sake of an unknown key id, and between two tries at an issuer that
# does not answer.
REFETCH_SECONDS = 60.0
RETRY_SECONDS = 5.0
MAX_TOKEN = 16384
MAX_KEY_SET = 1 << 20
MIN_RSA_BITS = 2048


class InvalidToken(AuthenticationFailed):
    """401: the access token is not accepted."""

    default_detail = "The access token is not valid."
    default_code = "invalid_token"


class IssuerUnavailable(Exception):
    """No usable key set, and the issuer cannot be asked for one."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key set is where the settings say, nowhere else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass(frozen=True)
class _Key:
    algorithm: str
    key: Any


def _usable(jwk: Any) -> tuple[str, _Key] | None:
    """The id and key of an entry of a key set, or None if it verifies no access token."""
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str):
        return None
    if jwk.get("use", "sig") != "sig":
        return None
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(jwk.get("kty")))
    if algorithm is None or jwk.get("alg", algorithm) != algorithm:
        return None
    public = {
        name: value for name, value in jwk.items() if name in ("kty", "n", "e", "crv", "x", "y")
    }
    try:
        key = jwt.PyJWK.from_dict(public, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key, RSAPublicKey):
        return (jwk["kid"], _Key(algorithm, key)) if key.key_size >= MIN_RSA_BITS else None
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return jwk["kid"], _Key(algorithm, key)
    return None


class KeySet:
    """The keys of one issuer, fetched when needed; for use by many threads.

    ttl: seconds after which the set is fetched again.  max_stale: seconds that it is used beyond
    that while fetching fails.  Only one thread fetches; the others use what there is.
    """

    def __init__(self, url: str, *, ttl: float, max_stale: float, timeout: float) -> None:
        self.url = url
        self.ttl = ttl
        self.max_stale = max_stale
        self.timeout = timeout
        self._keys: dict[str, _Key] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._lock = threading.Lock()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(), _NoRedirect())

    def key(self, kid: str) -> _Key | None:
        """The key with an id, or None if the issuer has none; raises IssuerUnavailable."""
        age = self._age()
        if age is None or age > self.ttl + self.max_stale:
            self._fetch(wait=True, pause=RETRY_SECONDS)
            age = self._age()
            if age is None or age > self.ttl + self.max_stale:
                raise IssuerUnavailable(self.url)
        elif kid not in self._keys:
            self._fetch(wait=True, pause=REFETCH_SECONDS)
        elif age > self.ttl:
            self._fetch(wait=False, pause=RETRY_SECONDS)
        return self._keys.get(kid)

    def _age(self) -> float | None:
        """Seconds since the keys were fetched."""
        return None if self._fetched_at is None else time.monotonic() - self._fetched_at

    def _fetch(self, *, wait: bool, pause: float) -> None:
        """Fetch, unless a fetch has begun within the last pause seconds.

        wait: if another thread is fetching, wait until it has done so.
        """
        if not self._lock.acquire(blocking=wait, timeout=2 * self.timeout if wait else -1):
            return
        try:
            now = time.monotonic()
            if self._tried_at is not None and now - self._tried_at < pause:
                return
            self._tried_at = now
            try:
                self._keys = self._download()
                self._fetched_at = time.monotonic()
            except (OSError, ValueError, RecursionError, HTTPException) as error:
                logger.warning("cannot fetch %s: %s", self.url, error)
        finally:
            self._lock.release()

    def _download(self) -> dict[str, _Key]:
        # TokenVerifier has checked the scheme.
        request = urllib.request.Request(  # noqa: S310
            self.url, headers={"Accept": "application/json"}
        )
        with self._opener.open(request, timeout=self.timeout) as response:
            body = response.read(MAX_KEY_SET + 1)
        if len(body) > MAX_KEY_SET:
            raise ValueError("the key set is too large")
        document = json.loads(body)
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise ValueError("not a key set")
        keys = dict(filter(None, map(_usable, entries)))
        if not keys:
            raise ValueError("the key set has no usable key")
        return keys


class TokenVerifier:
    """Verifies the access tokens of one issuer."""

    def __init__(self, config: Auth0Settings) -> None:
        parsed = urlsplit(config.JWKS_URL)
        local = parsed.hostname in ("localhost", "127.0.0.1", "::1")
        if parsed.scheme != "https" and not (parsed.scheme == "http" and (local or settings.DEBUG)):
            raise ImproperlyConfigured("The key set must be fetched over https.")
        self.config = config
        self.keys = KeySet(
            config.JWKS_URL,
            ttl=config.JWKS_TTL,
            max_stale=config.JWKS_MAX_STALE,
            timeout=config.TIMEOUT,
        )

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token; InvalidToken, or ServiceUnavailable without the issuer's keys."""
        if len(token) > MAX_TOKEN:
            raise InvalidToken
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise InvalidToken from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or not isinstance(kid, str) or "crit" in header:
            raise InvalidToken
        if algorithm not in ALGORITHMS:
            raise InvalidToken
        try:
            key = self.keys.key(kid)
        except IssuerUnavailable as error:
            raise ServiceUnavailable(
                detail="The issuer of access tokens cannot be reached.", code="issuer_unavailable"
            ) from error
        # The algorithm is the key's, whatever the token says.
        if key is None or key.algorithm != algorithm:
            raise InvalidToken
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=list(self.config.AUDIENCE),
                issuer=self.config.ISSUER,
                leeway=self.config.LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise InvalidToken("The access token has expired.", "token_expired") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise InvalidToken from None
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject:
            raise InvalidToken
        parties = self.config.AUTHORIZED_PARTIES
        if parties is not None and claims.get("azp") not in parties:
            raise InvalidToken
        return claims


_verifiers: dict[str, TokenVerifier] = {}
_verifiers_lock = threading.Lock()


def verifier() -> TokenVerifier:
    """The verifier of the settings; it lives as long as they do not change."""
    config = settings.AUTH0
    if config is None:
        raise ImproperlyConfigured('SESSION_MANAGER["AUTH0"] is not set.')
    name = hashlib.sha256(repr(config).encode()).hexdigest()
    with _verifiers_lock:
        if name not in _verifiers:
            _verifiers[name] = TokenVerifier(config)
        return _verifiers[name]


def bearer_token(request: Request) -> str | None:
    """The Bearer token of the Authorization header, or None; InvalidToken if it is malformed."""
    parts = get_authorization_header(request).split()
    if not parts or parts[0].lower() != b"bearer":
        return None
    if len(parts) != 2:
        raise InvalidToken
    try:
        return parts[1].decode("ascii")
    except UnicodeDecodeError:
        raise InvalidToken from None


class Auth0Authentication(BaseAuthentication):
    """``request.user`` from an access token, ``request.auth`` its claims.

    Beside SessionAuthentication, after it.  A header cannot be sent by another site's form, so no
    CSRF check is needed.
    """

    www_authenticate_realm = "api"

    def authenticate(self, request: Request) -> tuple[Any, dict[str, Any]] | None:
        token = bearer_token(request)
        if token is None or names_session(token):
            return None
        claims = verifier().verify(token)
        try:
            user = load_user(claims["sub"])
        except StoreUnavailable as error:
            raise ServiceUnavailable from error
        if user is None:
            raise AuthenticationFailed("The user does not exist.", "user_not_found")
        return user, claims

    def authenticate_header(self, request: Request) -> str:
        return f'Bearer realm="{self.www_authenticate_realm}"'
