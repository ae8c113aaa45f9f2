"""The ``user`` of the endpoints' answers.

The browser may send the profile that its sign-in library knows, when it signs in.  It is kept in
the session's data as ``profile`` and shown back; what the application itself knows goes before it.
Nothing may be decided by it: the browser can say what it likes.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from rest_framework.exceptions import ParseError

from ..types import JSON, Session

FIELDS = ("name", "nickname", "given_name", "family_name", "email", "picture", "locale")
MAX_LENGTH = 1024


def refuse_other_profile(profile: Any, user_id: str) -> None:
    """400 if a client sends the profile of somebody else."""
    if isinstance(profile, dict) and profile.get("sub", user_id) != user_id:
        raise ParseError("The profile belongs to another user than the session.", "user_mismatch")


def displayable_profile(user: Any) -> JSON:
    """The members of a profile that may be shown, whatever has been sent as one."""
    if not isinstance(user, dict):
        return {}
    return {
        name: value
        for name in FIELDS
        if isinstance(value := user.get(name), str) and 0 < len(value) <= MAX_LENGTH
    }


def describe_user(user: Any, session: Session) -> JSON:
    """The user of a session for the browser."""
    described = displayable_profile(session.data.get("profile"))
    if isinstance(user, AbstractBaseUser):
        described["username"] = user.get_username()
        email_field = user.get_email_field_name()
        if hasattr(user, email_field):
            # Also that there is none: access is often decided by it.
            described.pop("email", None)
            if email := getattr(user, email_field):
                described["email"] = email
        full_name = getattr(user, "get_full_name", str)()
        if full_name:
            described["name"] = full_name
    described["id"] = session.user_id
    return described
