"""A request and the device that its session is bound to, or is to be.

The browser's part is Device Bound Session Credentials (docs/device-bound.md): a response that gives
a session a token asks the browser to make a key and to register it, and from then on the browser
keeps a proof in a second cookie, which api/device_views.py renews.  A browser that does not know of
this ignores the headers.
"""

from __future__ import annotations

import logging
import re
import uuid
from datetime import datetime, timedelta, timezone

from django.core.cache import cache
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from ..conf import checked_device_mode, settings
from ..exceptions import SessionError
from ..services import session_service
from ..store.database import translating_errors
from ..store.tokens import session_id_of
from ..store.users import is_guest
from ..types import DevicePolicy, Session
from .addresses import client_ip, user_agent
from .bearer import keeps_token
from .cookie_decision import (
    CHALLENGE_HEADER,
    REGISTRATION_HEADER,
    clear_proof,
    head,
    head_on_commit,
)
from .cookies import SKIPPED

logger = logging.getLogger("session_manager")

# On a request: its response offers to bind the session.
_OFFERED = "_session_manager_binding_offered"
ALGORITHMS = ("ES256", "RS256")
_REASON = re.compile(r"\s*([A-Za-z_]+)", re.ASCII)
#: Those that are recorded by their names.  Browsers may come to have others.
REASONS = ("quota_exceeded", "server_error", "signing_failed", "unreachable")
#: A reason of a session's is recorded once in so many seconds.
SKIPPED_SECONDS = 60


def policy_of_login(
    request: HttpRequest, user_id: str, mode: str | None = None
) -> DevicePolicy | None:
    """What is to be kept with a new session of a user; None if the settings tell at any time.

    mode: what has been decided for this login.
    """
    if settings.DEVICE_BOUND == "off":
        return None
    given = mode is not None
    if mode is None:
        with translating_errors():
            mode = settings.device_mode(request, user_id)
    if not given and mode != "require":
        return None
    return DevicePolicy(checked_device_mode(mode), datetime.now(timezone.utc))


def is_overdue(session: Session) -> bool:
    """Whether a session had to be bound by now, and is not."""
    policy = session.device_policy
    if policy is None or policy.mode != "require" or session.device_bound:
        return False
    if settings.DEVICE_BOUND == "off" or session.actor is not None:
        return False
    patience = timedelta(seconds=settings.DEVICE_REGISTRATION_SECONDS)
    return datetime.now(timezone.utc) >= policy.since + patience


def may_bind(request: HttpRequest, session: Session) -> bool:
    """Whether a session may be bound to the browser's device.

    Not that of somebody who acts as the user: the browser's own binding is that of the session to
    which they return.
    """
    if settings.DEVICE_BOUND == "off" or session.device_bound or session.actor is not None:
        return False
    if is_guest(session.user_id):
        return False
    policy = session.device_policy
    if policy is not None:
        return policy.mode != "off"
    with translating_errors():
        return settings.device_mode(request, session.user_id) != "off"


def offer_binding(request: HttpRequest, token: str, session: Session) -> None:
    """Ask the browser that gets a token to bind the session, once the transaction commits.

    A client that keeps its token itself has no cookie for a proof.
    """
    if settings.DEVICE_BOUND == "off" or keeps_token(request):
        return
    try:
        if not may_bind(request, session):
            return
        path = reverse("session_manager:device-register")
        challenge = session_service.device_challenge(token)
    except NoReverseMatch:
        # The check E091 says so.
        return
    except SessionError as error:
        # Signing in matters more, and the next token comes with another offer.
        logger.warning("a session is not offered to be bound to a device: %s", error)
        return
    if challenge is not None:
        setattr(request, _OFFERED, True)
        value = f'({" ".join(ALGORITHMS)});path="{path}";challenge="{challenge}"'
        head_on_commit(request, REGISTRATION_HEADER, value, token)


def offer_nothing(request: HttpRequest) -> None:
    """For what answers an offer: another one would have the browser begin again."""
    setattr(request, _OFFERED, True)


def is_young(session: Session) -> bool:
    """Whether a browser that can bind the session may not have come to it yet."""
    patience = timedelta(seconds=settings.DEVICE_REGISTRATION_SECONDS)
    return datetime.now(timezone.utc) < session.created_at + patience


def offer_again(request: HttpRequest, token: str | None, session: Session | None) -> None:
    """Repeat the offer while the session is young.

    A browser that was sent to the sign-in from another site registers without its cookies, in vain.
    """
    if settings.DEVICE_BOUND == "off" or token is None or session is None:
        return
    if not session.device_bound and is_young(session) and not hasattr(request, _OFFERED):
        offer_binding(request, token, session)


def hand_out_challenge(request: HttpRequest, token: str, binding_id: uuid.UUID) -> None:
    """Tell the browser what its device is to sign next, whatever becomes of the transaction."""
    challenge = session_service.device_challenge(token)
    if challenge is not None:
        head(request, CHALLENGE_HEADER, f'"{challenge}";id="{binding_id}"')


def ask_for_proof(request: HttpRequest, token: str) -> None:
    """Let the browser prove its device before its next request, by a challenge of now."""
    device = session_service.device(token)
    if device is not None:
        hand_out_challenge(request, token, device.binding_id)
        clear_proof(request)


def note_skipped(request: HttpRequest, token: str, session: Session | None) -> None:
    """Record why the browser says that it has not renewed its proof, if it does.

    What it says is only a hint: whether a proof holds is not up to it.  Who has no right token gets
    nothing recorded.
    """
    given = request.META.get(SKIPPED)
    if given is None or settings.DEVICE_BOUND == "off":
        return
    if not (session_service.device(token) if session is None else session.device_bound):
        return
    found = _REASON.match(given)
    cause = found.group(1).lower() if found else ""
    # The header is anybody's, and what is recorded is limited for each cause.
    cause = cause if cause in REASONS else "other"
    session_id = session_id_of(token)
    if not is_news(f"session_manager.skipped.{session_id}.{cause}"):
        return
    logger.warning("the browser of session %s has not proved its device: %s", session_id, cause)
    try:
        session_service.report_device(
            token, True, cause, ip=client_ip(request), user_agent=user_agent(request)
        )
    except SessionError as error:
        # A standby, or a database that takes no writes: the log has it.
        logger.warning("it is not in the audit trail: %s", error)


def is_news(key: str) -> bool:
    """Whether this is the first time in SKIPPED_SECONDS."""
    try:
        return bool(cache.add(key, True, SKIPPED_SECONDS))
    except Exception:
        # Any backend's.  Without a count nothing is recorded, or any browser could fill the table.
        logger.warning("Django's cache cannot be written: nothing is recorded.", exc_info=True)
        return False
