"""A member of the staff acts as a user: two sessions, two cookies, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.test import RequestFactory

from session_manager.acting import acting_for
from session_manager.conf import settings
from session_manager.http.current import being_served
from session_manager.http.lookup import look_up
from session_manager.login import log_in, stop_impersonation
from session_manager.models import UserSession
from session_manager.services import session_service
from session_manager.types import REMEMBER

from .conftest import Browser

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("backend")]

API = "/api/sessions/"


@pytest.fixture(autouse=True)
def _people(configure: Callable[..., None], settings: Any) -> None:
    configure(USER_ID_FIELD="username")
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "session_manager.middleware.AuthenticationMiddleware",
    ]
    model = get_user_model()
    for name, rights in {
        "ada": {},
        "grace": {"is_staff": True},
        "joan": {"is_staff": True},
        "boss": {"is_staff": True, "is_superuser": True},
        "chief": {"is_staff": True, "is_superuser": True},
        "gone": {"is_active": False},
    }.items():
        model.objects.create_user(name, **rights)


@pytest.fixture
def grace(browser: Browser) -> Browser:
    """A browser of the staff's."""
    return browser.give(session_service.create("grace", auth={REMEMBER: False}).token)


def own_token(browser: Browser) -> str | None:
    morsel = browser.cookies.get(settings.actor_cookie_name)
    return morsel.value if morsel is not None and morsel.value else None


def who(browser: Browser) -> tuple[str, str | None] | None:
    """The user of the browser's session, and who acts as them."""
    response = browser.get(API + "current/")
    if response.status_code == 401:
        return None
    body = response.json()
    return body["user"]["id"], body["session"]["actor"]


def impersonate(browser: Browser, user: str = "ada") -> Any:
    return browser.get("/impersonate/", {"user": user})


def live(user_id: str) -> int:
    return len(session_service.list(user_id))


def test_there_and_back(grace: Browser) -> None:
    before = grace.token()
    response = impersonate(grace)
    assert response.json() == {"user": "ada", "actor": "grace"}
    assert who(grace) == ("ada", "grace")
    assert own_token(grace) == before != grace.token()
    for name in (settings.cookie_name, settings.actor_cookie_name):
        cookie = grace.cookies[name]
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"
        assert cookie["path"] == "/"
        # Neither outlives the browser: the one by default, the other as the staff member's own.
        assert not cookie["max-age"]

    disguise = grace.token()
    response = grace.unsafe("DELETE", API + "impersonation/")
    assert response.status_code == 200
    assert (response.json()["user"]["id"], response.json()["session"]["actor"]) == ("grace", None)
    assert who(grace) == ("grace", None)
    assert (grace.token(), own_token(grace)) == (before, None)
    assert session_service.get(disguise) is None
    assert session_service.end_reason(disguise) == "impersonation_ended"


def test_by_a_view_of_the_applications(grace: Browser) -> None:
    impersonate(grace)
    assert grace.get("/stop/").json() == {"user": "grace"}
    assert who(grace) == ("grace", None)
    # Nobody acts as anybody: the session is what it was.
    assert grace.get("/stop/").json() == {"user": "grace"}
    assert who(grace) == ("grace", None)


def test_the_list_and_the_history_name_the_actor(grace: Browser) -> None:
    impersonate(grace)
    (listed,) = session_service.list("ada")
    assert listed.actor == "grace"
    ada = Browser().give(session_service.create("ada").token)
    actors = [entry["actor"] for entry in ada.get(API).json()["results"]]
    assert actors == [None, "grace"]
    grace.unsafe("PATCH", API + "current/", {"client": {"a": 1}})
    grace.unsafe("DELETE", API + "impersonation/")
    events = session_service.history(session_id=listed.id)
    assert {event.event for event in events} >= {"created", "updated", "invalidated"}
    assert {(event.detail or {}).get("actor") for event in events} == {"grace"}


def test_an_actor_who_may_no_longer_sign_in(grace: Browser) -> None:
    """Also where no signal has told of it."""
    impersonate(grace)
    get_user_model().objects.filter(username="grace").update(is_active=False)
    assert who(grace) is None


def test_it_ends_with_the_actors_own_session(grace: Browser) -> None:
    impersonate(grace)
    session_service.invalidate_all("grace")
    assert who(grace) is None
    # There is no way back, and what is left in the browser is cleared.
    assert grace.unsafe("DELETE", API + "impersonation/").status_code == 401
    assert (grace.token(), own_token(grace)) == (None, None)


def test_the_way_back_is_open_when_it_has_ended(grace: Browser) -> None:
    impersonate(grace)
    session_service.invalidate_all("ada")
    assert who(grace) is None
    assert grace.unsafe("DELETE", API + "impersonation/").status_code == 200
    assert who(grace) == ("grace", None)


@pytest.mark.parametrize("by", ["view", "endpoint", "everywhere", "from the list"])
def test_a_sign_out_ends_both(grace: Browser, by: str) -> None:
    impersonate(grace)
    if by == "view":
        grace.get("/logout/")
    elif by == "everywhere":
        assert grace.unsafe("POST", API + "invalidate-all/").status_code == 200
    elif by == "from the list":
        (session,) = session_service.list("ada")
        assert grace.unsafe("DELETE", f"{API}{session.id}/").status_code == 204
    else:
        assert grace.unsafe("DELETE", API + "current/").status_code == 204
    assert (live("ada"), live("grace")) == (0, 0)
    assert (grace.token(), own_token(grace)) == (None, None)


def test_a_login_ends_both(grace: Browser) -> None:
    impersonate(grace)
    grace.get("/login/", {"user": "joan"})
    assert (live("ada"), live("grace"), live("joan")) == (0, 0, 1)
    assert who(grace) == ("joan", None)
    assert own_token(grace) is None


def test_refresh_and_step_up_keep_both(grace: Browser) -> None:
    impersonate(grace)
    own = own_token(grace)
    for path in (API + "refresh/", "/step-up/"):
        before = grace.token()
        assert grace.unsafe("POST", path).status_code == 200
        assert grace.token() != before
        assert who(grace) == ("ada", "grace")
        assert own_token(grace) == own
    grace.unsafe("DELETE", API + "impersonation/")
    assert who(grace) == ("grace", None)


@pytest.mark.parametrize(
    ("actor", "user", "allowed"),
    [
        ("grace", "ada", True),
        ("chief", "ada", True),
        ("chief", "grace", True),
        ("grace", "joan", False),
        ("grace", "boss", False),
        ("chief", "boss", False),
        ("ada", "grace", False),
        ("ada", "gone", False),
        ("grace", "gone", False),
        ("grace", "grace", False),
    ],
)
def test_who_may_act_as_whom(browser: Browser, actor: str, user: str, allowed: bool) -> None:
    token = session_service.create(actor).token
    assert impersonate(browser.give(token), user).status_code == (200 if allowed else 403)
    assert who(browser) == ((user, actor) if allowed else (actor, None))
    assert (browser.token() == token) is not allowed


def test_the_application_decides(grace: Browser, configure: Callable[..., None]) -> None:
    configure(MAY_IMPERSONATE="tests.hooks.may_impersonate")
    assert impersonate(grace, "ada").status_code == 403
    assert impersonate(grace, "boss").status_code == 200


def test_nobody_acts_through_somebody_else(grace: Browser, configure: Callable[..., None]) -> None:
    configure(MAY_IMPERSONATE="tests.hooks.may_impersonate")
    impersonate(grace, "boss")
    get_user_model().objects.create_user("bob")
    assert impersonate(grace, "bob").status_code == 403
    assert who(grace) == ("boss", "grace")


@pytest.mark.parametrize(
    ("who_changes", "rights"),
    [
        ("ada", {"is_staff": True}),
        ("ada", {"is_superuser": True}),
        ("grace", {"is_staff": False}),
    ],
)
def test_rights_that_change_meanwhile(
    grace: Browser, who_changes: str, rights: dict[str, bool]
) -> None:
    """Nobody gains rights of staff by acting as somebody who is given them."""
    impersonate(grace)
    (disguise,) = session_service.list("ada")
    reference = {"session_id": str(disguise.id), "user_id": "ada"}
    with acting_for(**reference) as acting:
        assert acting.still_live()
        get_user_model().objects.filter(username=who_changes).update(**rights)
        assert who(grace) is None
        assert not acting.still_live()
    # The way back is open.
    assert grace.unsafe("DELETE", API + "impersonation/").status_code == 200
    assert who(grace) == ("grace", None)


def test_the_actor_is_the_requests_own_user(grace: Browser) -> None:
    model = get_user_model()
    request = RequestFactory().get("/")
    request.COOKIES[settings.cookie_name] = grace.token()
    for actor in (model.objects.get(username="chief"), "chief"):
        with pytest.raises(PermissionDenied):
            log_in(request, "ada", actor=actor)
    nobody = RequestFactory().get("/")
    with pytest.raises(PermissionDenied):
        log_in(nobody, "ada", actor="grace")
    assert live("ada") == 0


def test_a_user_by_the_id(grace: Browser) -> None:
    request = RequestFactory().get("/")
    request.COOKIES[settings.cookie_name] = grace.token()
    with pytest.raises(PermissionDenied):
        log_in(request, "nobody", actor="grace")
    with pytest.raises(PermissionDenied):
        log_in(request, "boss", actor="grace")
    log_in(request, "ada", actor="grace")
    session = look_up(request).session
    assert session is not None
    assert (session.user_id, session.actor) == ("ada", "grace")
    # Within the same request.
    request.COOKIES[settings.actor_cookie_name] = grace.token()
    back = stop_impersonation(request)
    assert back is not None
    assert back.user_id == "grace"
    assert look_up(request).session == back


def test_a_planted_cookie_is_nobodys_way_back(grace: Browser) -> None:
    impersonate(grace)
    grace.cookies[settings.actor_cookie_name] = session_service.create("joan").token
    assert grace.unsafe("DELETE", API + "impersonation/").status_code == 401
    assert who(grace) is None
    assert live("ada") == 0


@pytest.mark.parametrize("beside", ["nothing", "ended", "unknown"])
def test_a_planted_cookie_signs_nobody_in(browser: Browser, beside: str) -> None:
    """Without a session of an impersonation by its user, ended or not, it opens nothing."""
    if beside == "ended":
        browser.give(session_service.create("ada").token)
        session_service.invalidate(browser.token())
    elif beside == "unknown":
        browser.give("sm1_" + "A" * 64)
    browser.cookies[settings.actor_cookie_name] = session_service.create("joan").token
    assert browser.unsafe("DELETE", API + "impersonation/").status_code == 401
    assert who(browser) is None
    assert own_token(browser) is None


def test_a_planted_cookie_beside_an_ended_impersonation(grace: Browser) -> None:
    impersonate(grace)
    session_service.invalidate_all("ada")
    grace.cookies[settings.actor_cookie_name] = session_service.create("joan").token
    assert grace.unsafe("DELETE", API + "impersonation/").status_code == 401
    assert who(grace) is None


@pytest.mark.parametrize("value", ["", "x", "sm1_" + "A" * 64])
def test_a_cookie_that_is_no_session(grace: Browser, value: str) -> None:
    grace.cookies[settings.actor_cookie_name] = value
    assert who(grace) == ("grace", None)
    assert grace.unsafe("DELETE", API + "impersonation/").status_code == 200
    assert who(grace) == ("grace", None)
    assert grace.unsafe("DELETE", API + "current/").status_code == 204


def test_the_endpoint_needs_a_request_of_the_sites_own(grace: Browser) -> None:
    impersonate(grace)
    headers = {"Sec-Fetch-Site": "cross-site"}
    response = grace.unsafe("DELETE", API + "impersonation/", headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "csrf_failed")
    assert who(grace) == ("ada", "grace")
    assert Browser().unsafe("DELETE", API + "impersonation/").status_code == 401


def test_what_is_rolled_back(grace: Browser) -> None:
    """Neither cookie is written."""
    token = grace.token()
    request = RequestFactory().get("/")
    request.COOKIES[settings.cookie_name] = token
    with transaction.atomic():
        log_in(request, "ada", actor="grace")
        transaction.set_rollback(True)
    session = look_up(request).session
    assert session is not None
    assert session.user_id == "grace"
    assert live("ada") == 0


def test_its_use_is_one_of_the_actors_own_session(
    grace: Browser, database_setting: Callable[[str, str], None]
) -> None:
    """Which would come to its idle timeout while they work."""
    database_setting("touch_interval", "0")
    impersonate(grace)
    before = session_service.list("grace")[0].last_seen_at
    assert who(grace) == ("ada", "grace")
    assert session_service.list("grace")[0].last_seen_at > before


@pytest.mark.server_only("the models read the tables")
def test_the_models_know_what_is_live(grace: Browser) -> None:
    impersonate(grace)
    (session,) = UserSession.objects.active().for_user("ada")
    assert session.actor_id == "grace"
    session_service.invalidate_all("grace")
    assert not UserSession.objects.active().for_user("ada").exists()


def test_a_new_password_of_the_user_ends_it() -> None:
    """The session in which a password changes is spared only if it is the user's own."""
    actor = session_service.create("grace").token
    acting = session_service.create("ada", actor_token=actor).token
    request = RequestFactory().get("/")
    request.COOKIES[settings.cookie_name] = acting
    with being_served(request):
        ada = get_user_model().objects.get(username="ada")
        ada.set_password("new")
        ada.save()
    assert (live("ada"), live("grace")) == (0, 1)
