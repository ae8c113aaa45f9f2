"""Which Django sessions may still be taken over (IMPORT_DJANGO_SESSIONS)."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from django.apps import apps
from django.db import transaction

from ..conf import settings

#: When a session was taken over that never is: long ago.
NEVER = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _imported() -> Any:
    return apps.get_model("session_manager", "ImportedSession").objects.using(settings.DATABASE)


def use_up(key_hash: bytes) -> Any:
    """Have a Django session never taken over; what was known of it, or None.

    It stays known, so that the command does not record it again.
    """
    with transaction.atomic(using=settings.DATABASE):
        # A request that is taking it over is waited for, so that what it has become is known.
        found = _imported().select_for_update().filter(key_hash=key_hash).first()
        if found is not None:
            _imported().filter(key_hash=key_hash).update(adopted_at=NEVER, session_id=None)
    return found


def use_up_all(user_id: str) -> None:
    """The same for those of a user that have not been taken over yet."""
    _imported().filter(user_id=user_id, adopted_at=None).update(adopted_at=NEVER)
