"""Test clients that are signed in: a session is made, and its cookie is put into the client's jar.

No view, no access token and no password takes part.  For requests it is as if the user had signed
in; the signal session_created is sent.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from asgiref.sync import sync_to_async
from django import test
from django.http import SimpleCookie
from rest_framework.test import APIClient as PlainAPIClient

from ..conf import settings
from ..services import session_service
from ..store.users import user_id_of
from ..types import JSON, CreatedSession

#: The address of Django's test clients.
ADDRESS = "127.0.0.1"


class HasCookies(Protocol):
    """A test client: Django's, the asynchronous one, DRF's."""

    cookies: SimpleCookie


def force_session(
    client: HasCookies,
    user: Any,
    data: JSON | None = None,
    *,
    tenant_id: str | None = None,
    auth: JSON | None = None,
    ip: str | None = ADDRESS,
    user_agent: str | None = None,
    ttl: timedelta | None = None,
    max_lifetime: timedelta | None = None,
    idle_timeout: timedelta | None = None,
    actor_token: str | None = None,
) -> CreatedSession:
    """Sign a test client in, and return the session with its token.

    user: a user of the application's, or the id that its sessions have.  data, tenant_id, auth: of
    the session.  ip, user_agent: of the device that signed in.
    """
    created = session_service.create(
        user_id_of(user),
        data,
        ttl=ttl,
        ip=ip,
        user_agent=user_agent,
        tenant_id=tenant_id,
        auth=auth,
        max_lifetime=max_lifetime,
        idle_timeout=idle_timeout,
        actor_token=actor_token,
    )
    name = settings.cookie_name
    remaining = created.absolute_expires_at - datetime.now(timezone.utc)
    client.cookies[name] = created.token
    attributes: dict[str, Any] = {
        "path": "/",
        "domain": settings.COOKIE_DOMAIN or "",
        "httponly": True,
        "secure": settings.cookie_secure or "",
        "samesite": settings.COOKIE_SAMESITE,
        "max-age": int(remaining.total_seconds()),
    }
    client.cookies[name].update(attributes)
    return created


aforce_session = sync_to_async(force_session)


class SessionClientMixin:
    """``client.force_session(user, data)`` for a test client of your own."""

    cookies: SimpleCookie

    def force_session(self, user: Any, data: JSON | None = None, **options: Any) -> CreatedSession:
        """Sign in; see the function force_session for the options."""
        return force_session(self, user, data, **options)

    async def aforce_session(
        self, user: Any, data: JSON | None = None, **options: Any
    ) -> CreatedSession:
        """The same in an asynchronous test."""
        return await aforce_session(self, user, data, **options)


class Client(SessionClientMixin, test.Client):
    """Django's test client."""


class AsyncClient(SessionClientMixin, test.AsyncClient):
    """Django's asynchronous test client."""


class APIClient(SessionClientMixin, PlainAPIClient):
    """DRF's test client."""
