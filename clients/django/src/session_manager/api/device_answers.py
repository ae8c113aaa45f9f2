"""What a device signs: the JSON Web Token in Secure-Session-Response.

Its header has the type ``dbsc+jwt``, the algorithm and, at the registration, the public key; its
payload has the challenge as ``jti``.  Other members say nothing here: when it was signed, and for
whom, the challenge tells.

The algorithm has to be the one of the key's type, and a key has to be one that signs: never a
secret of HMAC, so that nobody signs with a public key, and never "none".
"""

from __future__ import annotations

import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ..types import JSON

TYPE = "dbsc+jwt"
#: By the type of the key.
ALGORITHMS = {"EC": "ES256", "RSA": "RS256"}
#: Characters of the header field; one with the largest key has some 2,500.
MAX_ANSWER = 8192
RSA_BITS = range(2048, 4097)

_FORM = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+", re.ASCII)
_CHALLENGE = re.compile(r"sc1_[A-Za-z0-9_-]{36}", re.ASCII)
_PUBLIC = ("kty", "crv", "x", "y", "n", "e")
# What no public key has.
_PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


class MalformedAnswerError(ValueError):
    """It is no answer of a device's, whoever has signed it."""


class WrongSignatureError(ValueError):
    """The device has not signed it."""


@dataclass(frozen=True)
class Answer:
    """What a device has signed."""

    challenge: str
    #: The key by which the signature has been verified, without members that say nothing.
    key: JSON


def text_of_item(value: str) -> str:
    """The text of a header field: a string of RFC 8941, or bare, without parameters."""
    value = value.strip()
    if value.startswith('"'):
        text, _, _ = value[1:].partition('"')
        return text
    return value.partition(";")[0].strip()


def registration(value: str) -> Answer:
    """The answer to a registration, signed by the key that it names.

    Raises MalformedAnswerError or WrongSignatureError.
    """
    token, header, payload = _parts(value)
    return _verified(token, header, payload, header.get("jwk"))


def renewal(value: str, key: JSON) -> Answer:
    """The answer of a device that is bound: its own key counts, whatever the header names."""
    token, header, payload = _parts(value)
    return _verified(token, header, payload, key)


def _parts(value: str) -> tuple[str, JSON, JSON]:
    """The token, its header and its payload."""
    if len(value) > MAX_ANSWER:
        raise MalformedAnswerError("too long")
    token = text_of_item(value)
    match = _FORM.fullmatch(token)
    if match is None:
        raise MalformedAnswerError("not a JSON Web Token")
    header, payload = map(_object, match.groups())
    if header.get("typ") != TYPE:
        raise MalformedAnswerError(f"not of the type {TYPE}")
    if "crit" in header or "b64" in header:
        raise MalformedAnswerError("with extensions")
    return token, header, payload


def _object(text: str) -> JSON:
    try:
        raw = binascii.a2b_base64(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswerError("not JSON") from error
    if not isinstance(value, dict):
        raise MalformedAnswerError("not an object")
    return value


def _verified(token: str, header: JSON, payload: JSON, jwk: Any) -> Answer:
    if not isinstance(jwk, dict) or _PRIVATE & jwk.keys():
        raise MalformedAnswerError("without a public key")
    algorithm = ALGORITHMS.get(str(jwk.get("kty")))
    if algorithm is None or header.get("alg") != algorithm:
        raise MalformedAnswerError("the algorithm is not that of the key")
    challenge = payload.get("jti")
    if not isinstance(challenge, str) or _CHALLENGE.fullmatch(challenge) is None:
        raise MalformedAnswerError("without a challenge")
    public = {name: jwk[name] for name in _PUBLIC if name in jwk}
    try:
        jwt.api_jws.decode(token, _usable(public, algorithm), algorithms=[algorithm])
    except jwt.InvalidSignatureError as error:
        raise WrongSignatureError("the signature does not hold") from error
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        # What else a token, or a key, may be that these do not know.
        raise MalformedAnswerError("not signed as it should be") from error
    return Answer(challenge, public)


def _usable(public: JSON, algorithm: str) -> Any:
    """The key, if it is one that devices have."""
    if not all(isinstance(value, str) for value in public.values()):
        raise ValueError("not a key")
    key = jwt.PyJWK.from_dict(public, algorithm=algorithm).key
    if isinstance(key, RSAPublicKey):
        if key.key_size in RSA_BITS:
            return key
    elif isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return key
    raise ValueError("not a key of a device")
