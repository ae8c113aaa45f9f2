"""Session tokens: their digest form, and the session id in them.

Pure functions.  The format is in docs/reference.md, "Token".  The token itself is never sent to
PostgreSQL: what goes there is the digest form, which names the session but is no use as a cookie.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from typing import TypeGuard

_TOKEN = re.compile(r"sm1_[A-Za-z0-9_-]{64}", re.ASCII)
_CONTEXT = b"session_manager token v1"


def is_token(value: str | None) -> TypeGuard[str]:
    """Whether a cookie's value is a token.  A digest form is not: it would serve as a cookie."""
    return value is not None and _TOKEN.fullmatch(value) is not None


def token_bytes(token: str) -> bytes:
    """The session id (16 bytes) and the secret (32 bytes) of a well-formed token."""
    if not is_token(token):
        raise ValueError("not a session token")
    return base64.urlsafe_b64decode(token[4:])


def digest_form(token: str | None) -> str | None:
    """The digest form (``sd1_``) of a token, or None if the value is no token."""
    if token is None or not is_token(token):
        return None
    raw = token_bytes(token)
    digest = hashlib.sha256(_CONTEXT + raw).digest()
    return "sd1_" + base64.urlsafe_b64encode(raw[:16] + digest).decode("ascii")


def session_id_of(token: str) -> uuid.UUID:
    """The session id that a well-formed token carries; it proves nothing."""
    return uuid.UUID(bytes=token_bytes(token)[:16])
