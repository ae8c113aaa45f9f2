"""Links that end one session, for mails about a sign-in from a new device.

    urlpatterns += [path("sessions/", include("session_manager.links"))]

    link = "https://app.example.com" + end_session_path(session_id)

The link is signed with SECRET_KEY, works for END_LINK_AGE and can do nothing else.  Opening it
shows a page that asks: programs that look at links in mails end nothing.  Whoever has the link
needs no session, and no cookie is used.
"""

from __future__ import annotations

import uuid

from django.core.signing import BadSignature, SignatureExpired, TimestampSigner
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path, reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from .conf import settings
from .http.cache_control import forbid_caching
from .local_time import local_time
from .services import session_service
from .user_agents import describe_user_agent

app_name = "session_manager_links"

#: Of the audit trail and of the 401 that the device gets.
REASON = "not_recognised"
# Each tenant that the session has been switched to since is another session.  Whoever holds it can
# switch, and leave events by wrong tokens, but not so often that nobody finds where it went.
_MOST_SWITCHES = 100
_MOST_EVENTS = 10_000


def _signer() -> TimestampSigner:
    return TimestampSigner(sep=".", salt="session_manager.links.end_session")


def end_session_path(session_id: uuid.UUID | str) -> str:
    """The path of a link that ends a session."""
    signed = _signer().sign(uuid.UUID(str(session_id)).hex)
    return reverse("session_manager_links:end", args=[signed])


# The signature says that the request is meant; a browser that opens a mail's link may send no
# cookie that a CSRF token could be compared with.
@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def end_session(request: HttpRequest, signed: str) -> HttpResponse:
    """GET asks whether to end the session, POST ends it."""
    try:
        text = _signer().unsign(signed, max_age=settings.END_LINK_AGE)
    except SignatureExpired:
        return _page(request, 410, state="expired")
    except BadSignature:
        return _page(request, 404, state="unknown")
    session_id = uuid.UUID(text)
    if request.method == "POST":
        return _page(request, 200, state=_end(session_id))
    events = session_service.history(session_id=session_id, max_rows=_MOST_EVENTS)
    created = next((event for event in events if event.event == "created"), None)
    return _page(
        request,
        200,
        state="ask",
        created=created,
        at=local_time(created.at) if created else None,
        device=describe_user_agent(created.user_agent) if created else None,
    )


def _end(session_id: uuid.UUID) -> str:
    """End a session, or what goes on in its place; what the page is to say.

    Where nobody can tell what that is, all sessions of the user end: it was somebody else who took
    such pains to hide it.
    """
    owner = None
    for _ in range(_MOST_SWITCHES):
        if session_service.invalidate_id(session_id, reason=REASON):
            return "ended"
        events = session_service.history(session_id=session_id, max_rows=_MOST_EVENTS)
        owner = next((event.user_id for event in events if event.user_id), owner)
        successors = (e.detail["successor"] for e in events if e.detail and "successor" in e.detail)
        successor = next(successors, None)
        if successor is not None:
            session_id = uuid.UUID(successor)
        elif len(events) < _MOST_EVENTS:
            return "over"
        else:
            break
    if owner is not None:
        session_service.invalidate_all(owner, reason=REASON)
    return "all"


def _page(request: HttpRequest, status: int, **context: object) -> HttpResponse:
    response = render(request, "session_manager/end_session.html", context, status=status)
    forbid_caching(response)
    # The address is the secret.
    response["Referrer-Policy"] = "no-referrer"
    response["X-Robots-Tag"] = "noindex"
    return response


urlpatterns = [path("end/<str:signed>/", end_session, name="end")]
