"""For the tests of an application.

    from session_manager.testing import Client, force_session

    class PageTest(TestCase):
        client_class = Client

        def test_page(self):
            self.client.force_session(user, {"plan": "free"})

The sessions are real ones, of the test database; with SESSION_MANAGER["IN_MEMORY"] they are in the
memory of the process, and no extension is needed.  pytest_plugin has fixtures of the same.
"""

from __future__ import annotations

from ..management.test_databases import flush_sessions
from .clients import (
    APIClient,
    AsyncClient,
    Client,
    SessionClientMixin,
    aforce_session,
    force_session,
)

__all__ = [
    "APIClient",
    "AsyncClient",
    "Client",
    "SessionClientMixin",
    "aforce_session",
    "flush_sessions",
    "force_session",
]
