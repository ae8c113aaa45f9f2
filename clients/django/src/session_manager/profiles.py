"""The ``user`` of the endpoints' answers.

The browser may send the profile that its sign-in library knows.  It is kept in the session's data
as ``profile`` and shown back; what the application itself knows goes before it.  Nothing may be
decided by it: the browser can say what it likes.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from rest_framework.exceptions import ParseError

from .types import JSON, Session

FIELDS = ("name", "nickname", "given_name", "family_name", "email", "picture", "locale")
MAX_LENGTH = 1024


def profile_from(user: Any, subject: str) -> JSON:
    """The members of a profile that may be shown; ParseError if it is somebody else's."""
    if not isinstance(user, dict):
        return {}
    if user.get("sub", subject) != subject:
        raise ParseError("The user is not the one of the access token.", "user_mismatch")
    return {
        name: value
        for name in FIELDS
        if isinstance(value := user.get(name), str) and 0 < len(value) <= MAX_LENGTH
    }


def describe_user(user: Any, session: Session) -> JSON:
    """The user of a session for the browser."""
    profile = session.data.get("profile")
    described = dict(profile_from(profile, session.user_id)) if isinstance(profile, dict) else {}
    if isinstance(user, AbstractBaseUser):
        described["username"] = user.get_username()
        email = getattr(user, user.get_email_field_name(), "")
        if email:
            described["email"] = email
        full_name = getattr(user, "get_full_name", str)()
        if full_name:
            described["name"] = full_name
    described["id"] = session.user_id
    return described
