"""Times as people read them."""

from __future__ import annotations

from datetime import datetime

from django.utils.timezone import is_aware, localtime


def local_time(value: datetime) -> datetime:
    """In the current time zone, where a model's time is already without USE_TZ, and a service's is
    not.
    """
    return localtime(value) if is_aware(value) else value
