"""What the settings of all peers have: the server of scripts/check-peers.sh, and the engine."""

from __future__ import annotations

import os
from typing import Any

#: Another one where the peers' tests themselves are in doubt.
ENGINE = os.environ.get("SM_PEERS_ENGINE", "session_manager.backends.sessions")


def database(name: str) -> dict[str, Any]:
    """An entry of DATABASES, of a role that is no superuser: its test database is a copy."""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["SM_TEST_PGHOST"],
        "USER": "webapp",
        "NAME": name,
        "TEST": {"TEMPLATE": "template_session_manager"},
    }
