"""Fixtures for pytest, with pytest-django.

``session_client``, ``async_session_client`` and ``session_api_client`` have ``force_session``;
``force_session(client, user, data)`` is for any other client.  pytest loads this module before
there are settings, so it imports the rest when a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .testing import APIClient, AsyncClient, Client
    from .types import CreatedSession


@pytest.fixture
def session_client(db: None) -> Client:
    """Django's test client, with force_session."""
    from .testing import Client

    return Client()


@pytest.fixture
def async_session_client(db: None) -> AsyncClient:
    """Django's asynchronous test client, with aforce_session."""
    from .testing import AsyncClient

    return AsyncClient()


@pytest.fixture
def session_api_client(db: None) -> APIClient:
    """DRF's test client, with force_session."""
    from .testing import APIClient

    return APIClient()


@pytest.fixture
def force_session(db: None) -> Callable[..., CreatedSession]:
    """Signs a client in: ``force_session(client, user, data)``."""
    from .testing import force_session

    return force_session
