"""Signals.  They are sent after the transaction has committed; a receiver that fails is logged.

``session_created``      session_id, user_id, tenant_id, ip, user_agent
``session_invalidated``  session_id (None when several ended), user_id, tenant_id, reason, count
``new_device``           session_id, user_id, tenant_id, ip, user_agent, created_at: a login from a
                         device and a network that the user has not been seen with
``client_changed``       session_id, user_id, previous_ip, ip, previous_user_agent, user_agent
``token_reused``         session_id, user_id, ip, user_agent: a replay; the session has ended

Sender is the class SessionService.  None of them carries a token.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from django.dispatch import Signal

from .store.shards import Bucket
from .store.transactions import when_committed

logger = logging.getLogger("session_manager")

session_created = Signal()
session_invalidated = Signal()
new_device = Signal()
client_changed = Signal()
token_reused = Signal()


def _send(signal: Signal, sender: type, values: dict[str, Any]) -> None:
    for receiver, result in signal.send_robust(sender, **values):
        if isinstance(result, Exception):
            logger.error("receiver %r failed", receiver, exc_info=result)


def send(signal: Signal, sender: type, bucket: Bucket, **values: Any) -> None:
    """Send a signal once the transaction that is open on a bucket's database has committed."""
    when_committed(partial(_send, signal, sender, values), bucket)
