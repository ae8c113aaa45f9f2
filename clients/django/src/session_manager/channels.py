"""WebSockets with the session of their handshake: for Channels, and any other ASGI application.

    application = ProtocolTypeRouter({
        "http": django_application,
        "websocket": SessionWebSocketMiddleware(URLRouter(websocket_urlpatterns)),
    })

``scope["session_info"]`` is the Session, ``scope["user"]`` its user.  When the session ends, by a
sign-out or of itself, the socket is closed with the code 4401, and the application is told as if
the client had gone.

Messages do not count as use of the session.  Nothing of Channels is imported.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import SuspiciousOperation
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpRequest

from .acting import SessionEnded, acting_for, may_still_act
from .conf import settings
from .exceptions import SessionError
from .http.addresses import client_ip, user_agent
from .http.bearer import challenge, token_of_header
from .http.cookies import token_from
from .http.csrf import foreign_reason
from .http.device import is_overdue
from .services import session_service
from .store.revocations import revocations_of
from .store.users import load_user
from .types import NoSession, Session

logger = logging.getLogger("session_manager")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

#: Close code: the session has ended.
ENDED = 4401
#: Seconds between two looks at a session, should nobody be told that it has ended.
RECHECK = 60.0
#: Seconds between two looks at least, and to the next one when PostgreSQL does not answer.
PAUSE = 1.0
#: Seconds for telling a client that its session has ended.
PATIENCE = 5.0


def _request_of(scope: Message) -> HttpRequest:
    """The handshake, which is a GET, as a request of Django's."""
    scheme = "https" if scope.get("scheme") in ("wss", "https") else "http"
    as_http = {**scope, "type": "http", "method": "GET", "scheme": scheme}
    return ASGIRequest(as_http, io.BytesIO())


def _find(request: HttpRequest) -> tuple[Session | None, Any]:
    """The session of a handshake, and its user."""
    close_old_connections()
    try:
        session = session_service.get(
            token_from(request), ip=client_ip(request), user_agent=user_agent(request)
        )
        if session is None or is_overdue(session):
            return None, None
        user = load_user(session.user_id, session)
        if user is None or not may_still_act(session.actor, user):
            return None, None
        return session, user
    finally:
        close_old_connections()


def _ends_at(session: Session) -> datetime:
    """When the session ends unless it is used; raises SessionEnded if it has."""
    close_old_connections()
    try:
        with acting_for(session.id, session.user_id) as acting:
            return acting.session.ends_at
    finally:
        close_old_connections()


async def _deny(
    scope: Message, receive: Receive, send: Send, status: int, headers: dict[str, str]
) -> None:
    """Refuse the handshake; a server that cannot say why says 403."""
    await receive()
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": ENDED})
        return
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "websocket.http.response.start", "status": status, "headers": pairs})
    await send({"type": "websocket.http.response.body", "body": b""})


class SessionWebSocketMiddleware:
    """Find the session at the handshake; close the socket when it ends.

    A handshake that a page of another site makes is refused (403), as its cookie would come along;
    CSRF_TRUSTED_ORIGINS holds here, too.  Without a live session it is refused (401), or with
    required=False goes on with nobody's.
    """

    def __init__(self, app: Application, *, required: bool = True) -> None:
        self.app = app
        self.required = required

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        from django.contrib.auth.models import AnonymousUser

        request = _request_of(scope)
        deny = partial(_deny, scope, receive, send)
        try:
            # What a client without cookies sends in the header no browser sends on its own.
            if token_of_header(request) is None and foreign_reason(request) is not None:
                await deny(403, {})
                return
            session, user = await sync_to_async(_find)(request)
        except SuspiciousOperation:
            await deny(403, {})
            return
        except SessionError:
            await deny(503, {"Retry-After": str(settings.RETRY_AFTER)})
            return
        if session is None and self.required:
            await deny(401, {"WWW-Authenticate": challenge(request)})
            return
        scope = {**scope, "session_info": session or NoSession(), "user": user or AnonymousUser()}
        if session is None:
            await self.app(scope, receive, send)
        else:
            await _Socket(session, receive, send).run(self.app, scope)


class _Socket:
    """A socket that lives no longer than its session."""

    def __init__(self, session: Session, receive: Receive, send: Send) -> None:
        self._session = session
        self._receive = receive
        self._send = send
        self._sending = asyncio.Lock()
        self._ended = asyncio.Event()
        self._closed = False

    async def run(self, app: Application, scope: Message) -> None:
        wake = asyncio.Event()
        call_back = partial(asyncio.get_running_loop().call_soon_threadsafe, wake.set)
        with revocations_of(self._session.id).watching(self._session.id, call_back):
            watcher = asyncio.create_task(self._watch(wake))
            try:
                await app(scope, self.receive, self.send)
            finally:
                if self._ended.is_set():
                    # It is saying so to the client.
                    await asyncio.wait((watcher,), timeout=PATIENCE)
                watcher.cancel()
                with suppress(asyncio.CancelledError):
                    await watcher

    async def _watch(self, wake: asyncio.Event) -> None:
        """Hang up when the session has ended."""
        while True:
            wake.clear()
            try:
                ends_at = await sync_to_async(_ends_at)(self._session)
            except SessionEnded:
                await self._hang_up()
                return
            except SessionError:
                # An outage hangs nobody up.
                seconds = PAUSE
            except Exception:
                # A loader of users, for example: the next look may find that the session has ended.
                logger.exception("The session of a WebSocket could not be looked at.")
                seconds = PAUSE
            else:
                left = (ends_at - datetime.now(timezone.utc)).total_seconds()
                # The two clocks may differ.
                seconds = min(left + 0.01 if left > 0 else PAUSE, RECHECK)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(wake.wait(), seconds)

    async def _hang_up(self) -> None:
        """Whether or not the client reads, the application hears nothing more from it."""
        self._ended.set()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._close(), PATIENCE)

    async def _close(self) -> None:
        async with self._sending:
            if not self._closed:
                # The client may have gone meanwhile.
                with suppress(OSError, RuntimeError):
                    await self._send(
                        {"type": "websocket.close", "code": ENDED, "reason": "session ended"}
                    )

    async def receive(self) -> Message:
        """What the client sends; once the session has ended, that it has gone."""
        arriving = asyncio.ensure_future(self._receive())
        ending = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((arriving, ending), return_when=asyncio.FIRST_COMPLETED)
            if not self._ended.is_set():
                return arriving.result()
        finally:
            for task in (arriving, ending):
                task.cancel()
        return {"type": "websocket.disconnect", "code": ENDED, "reason": "session ended"}

    async def send(self, message: Message) -> None:
        """What the application sends, for as long as there is a session."""
        async with self._sending:
            if self._ended.is_set():
                return
            self._closed = self._closed or message["type"] == "websocket.close"
            await self._send(message)
