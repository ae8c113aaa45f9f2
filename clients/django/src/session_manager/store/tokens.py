"""Session tokens: their digest form, the session id in them, and a proof behind them.

Pure functions.  The format is in docs/reference.md, "Token".  The token itself is never sent to
PostgreSQL: what goes there is the digest form, which names the session but is no use as a cookie.

The token of a session that is bound to a device works only with a proof, ``sm1_….sp1_…``: what the
browser keeps in a second cookie.  No cookie ever holds both.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import uuid
from typing import TypeGuard

_TOKEN = re.compile(r"sm1_[A-Za-z0-9_-]{64}", re.ASCII)
_PROOF = re.compile(r"sp1_[A-Za-z0-9_-]{36}", re.ASCII)
# A dot with nothing behind it tells the extension that there is a reason for that.
_PROVED = re.compile(rf"{_TOKEN.pattern}\.({_PROOF.pattern})?", re.ASCII)
_CONTEXT = b"session_manager token v1"
#: Bytes of a token: the session id and the secret.  What comes behind them is a proof, as text.
TOKEN_SIZE = 48
# Characters of a token.
_LENGTH = 68
# Where the end is in the bytes of a proof, behind the id of a key.
_EXPIRY = slice(4, 11)


def is_token(value: str | None) -> TypeGuard[str]:
    """Whether a value is a token, with a proof behind it or not.

    A digest form is not: it would serve as a cookie.
    """
    return value is not None and (
        _TOKEN.fullmatch(value) is not None or _PROVED.fullmatch(value) is not None
    )


def is_bare_token(value: str | None) -> TypeGuard[str]:
    """Whether a cookie's value is a token."""
    return value is not None and _TOKEN.fullmatch(value) is not None


def with_proof(token: str, proof: str | None) -> str:
    """A token with what a browser presents as a proof, if that looks like one.

    In the place of one that it has.  The token of a session that is bound to no device works with
    any.
    """
    if proof is None or _PROOF.fullmatch(proof) is None:
        return token
    return f"{token[:_LENGTH]}.{proof}"


def excused(token: str) -> str:
    """A token without a proof, for a reason that is known."""
    return f"{token[:_LENGTH]}."


def without_proof(token: str) -> str:
    """A token as a cookie may hold it."""
    return token[:_LENGTH]


def token_bytes(token: str | None) -> bytes | None:
    """The session id (16 bytes), the secret (32 bytes) and the text of a proof, if there is one.

    A dot in the place of that for one that is excused.  None if the value is no token.
    """
    if token is None:
        return None
    if _TOKEN.fullmatch(token) is None:
        if _PROVED.fullmatch(token) is None:
            return None
        return _decoded(token[:_LENGTH]) + (token[_LENGTH + 1 :] or ".").encode("ascii")
    # base64.urlsafe_b64decode, which looks at what it is given once more, takes twice as long.
    return binascii.a2b_base64(token[4:].replace("-", "+").replace("_", "/"))


def _decoded(text: str) -> bytes:
    """The bytes in a token or a proof."""
    return binascii.a2b_base64(text[4:].replace("-", "+").replace("_", "/"))


def proof_expiry(raw: bytes) -> int | None:
    """Until when the proof in a token's bytes says that it holds, in microseconds since 1970.

    None without one.  Only the extension can tell whether it is right.
    """
    if len(raw) <= TOKEN_SIZE + 1:
        return None
    proof = _decoded(raw[TOKEN_SIZE:].decode("ascii"))
    return int.from_bytes(proof[_EXPIRY], "big")


def digest_form(token: str | None) -> str | None:
    """The digest form (``sd1_``) of a token, or None if the value is no token."""
    raw = token_bytes(token)
    return None if raw is None else digest_form_of(raw)


def digest_form_of(raw: bytes) -> str:
    """The digest form of a token's bytes, with the proof that is behind them."""
    if len(raw) == TOKEN_SIZE:
        digest = hashlib.sha256(_CONTEXT + raw).digest()
        return "sd1_" + base64.urlsafe_b64encode(raw[:16] + digest).decode("ascii")
    return f"{digest_form_of(raw[:TOKEN_SIZE])}.{raw[TOKEN_SIZE:].decode('ascii').lstrip('.')}"


def session_id_of(token: str) -> uuid.UUID:
    """The session id that a well-formed token carries; it proves nothing."""
    raw = token_bytes(token)
    if raw is None:
        raise ValueError("not a session token")
    return uuid.UUID(bytes=raw[:16])
