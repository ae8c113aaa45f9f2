"""Session tokens: their digest form, and the session id in them.

Pure functions.  The format is in docs/reference.md, "Token".  The token itself is never sent to
PostgreSQL: what goes there is the digest form, which names the session but is no use as a cookie.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import uuid
from typing import TypeGuard

_TOKEN = re.compile(r"sm1_[A-Za-z0-9_-]{64}", re.ASCII)
_CONTEXT = b"session_manager token v1"


def is_token(value: str | None) -> TypeGuard[str]:
    """Whether a cookie's value is a token.  A digest form is not: it would serve as a cookie."""
    return value is not None and _TOKEN.fullmatch(value) is not None


def token_bytes(token: str | None) -> bytes | None:
    """The session id (16 bytes) and the secret (32 bytes), or None if the value is no token."""
    if token is None or _TOKEN.fullmatch(token) is None:
        return None
    # base64.urlsafe_b64decode, which looks at what it is given once more, takes twice as long.
    return binascii.a2b_base64(token[4:].replace("-", "+").replace("_", "/"))


def digest_form(token: str | None) -> str | None:
    """The digest form (``sd1_``) of a token, or None if the value is no token."""
    raw = token_bytes(token)
    return None if raw is None else digest_form_of(raw)


def digest_form_of(raw: bytes) -> str:
    """The digest form of a token's 48 bytes."""
    digest = hashlib.sha256(_CONTEXT + raw).digest()
    return "sd1_" + base64.urlsafe_b64encode(raw[:16] + digest).decode("ascii")


def session_id_of(token: str) -> uuid.UUID:
    """The session id that a well-formed token carries; it proves nothing."""
    raw = token_bytes(token)
    if raw is None:
        raise ValueError("not a session token")
    return uuid.UUID(bytes=raw[:16])
