"""An authentication class of the application's own in the place of AUTH0."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from session_manager.login_policy import LoginDecision
from session_manager.services import session_service

from .conftest import Browser
from .issuer import AUDIENCE, Issuer
from .test_api import CREATE, CURRENT, create
from .test_checks import static

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("backend")]

OWN = "tests.own_authentication."


@pytest.fixture
def issuer_of_theirs(issuer: Issuer, configure: Any, settings: Any) -> Issuer:
    """The application's settings for its own class; AUTH0 is not set."""
    issuer.reset()
    settings.OWN_ISSUER = {
        "ISSUER": issuer.url,
        "AUDIENCE": AUDIENCE,
        "JWKS_URL": issuer.jwks_url,
    }
    configure(
        AUTH0=None,
        USER_ID_FIELD="username",
        LOGIN_AUTHENTICATION=f"{OWN}Auth0JWTAuthentication",
    )
    return issuer


def on_login(request: Any, claims: dict[str, Any]) -> LoginDecision:
    seen = {"user": str(request.user), "sub": claims["sub"], "scope": claims.get("scope")}
    return LoginDecision(request.user.username, seen, "acme")


@pytest.mark.parametrize("name", ["Auth0JWTAuthentication", "WithRawToken", "WithPayload"])
@pytest.mark.parametrize("place", ["header", "body"])
def test_claims(
    issuer_of_theirs: Issuer, browser: Browser, user_id: str, configure: Any, name: str, place: str
) -> None:
    """Whatever form the class returns them in: for ON_LOGIN, the tenant and the proof."""
    configure(LOGIN_AUTHENTICATION=OWN + name)
    token = issuer_of_theirs.token(user_id, amr=["pwd", "otp"], org_id="org_1", scope="read")
    if place == "header":
        response = create(browser, token, {"user": {"sub": user_id, "name": "Ada"}})
    else:
        body = {"access_token": token, "user": {"sub": user_id, "name": "Ada"}}
        # What a proxy in front may ask for is not the application's.
        headers = {"Authorization": "Basic c3RhZ2luZzpzdGFnaW5n"}
        response = browser.unsafe("POST", CREATE, body, headers=headers)
    assert response.status_code == 201, response.content
    answer = response.json()
    assert answer["user"] == {"id": user_id, "username": user_id, "name": "Ada"}
    assert answer["session"]["tenant_id"] == "org_1"
    assert answer["session"]["auth"] == {"method": "access_token", "amr": ["pwd", "otp"]}
    assert browser.get("/protected/").json() == {"user": user_id}
    assert token not in response.content.decode()

    configure(ON_LOGIN="tests.test_login_authentication.on_login")
    answer = create(browser, token).json()["session"]
    assert answer["data"] == {"user": user_id, "sub": user_id, "scope": "read"}
    assert answer["tenant_id"] == "acme"


def test_another_s_profile(issuer_of_theirs: Issuer, browser: Browser, user_id: str) -> None:
    token = issuer_of_theirs.token(user_id)
    response = create(browser, token, {"user": {"sub": "auth0|somebody else"}})
    assert (response.status_code, response.json()["code"]) == (400, "user_mismatch")


def test_without_a_user_model(
    issuer_of_theirs: Issuer, browser: Browser, user_id: str, configure: Any
) -> None:
    configure(LOGIN_AUTHENTICATION=f"{OWN}WithoutUserModel", USER_ID_FIELD=None)
    response = create(browser, issuer_of_theirs.token(user_id))
    assert (response.status_code, response.json()["user"]) == (201, {"id": user_id})
    # Without authenticate_header DRF makes 403 of it, elsewhere.
    response = browser.unsafe("POST", CREATE)
    assert (response.status_code, response["WWW-Authenticate"]) == (401, 'Bearer realm="api"')


def test_the_primary_key(
    issuer_of_theirs: Issuer, browser: Browser, user_id: str, configure: Any
) -> None:
    """Without USER_ID_FIELD, as for log_in."""
    configure(USER_ID_FIELD=None)
    response = create(browser, issuer_of_theirs.token(user_id))
    user = get_user_model().objects.get(username=user_id)
    assert response.json()["user"]["id"] == str(user.pk)


def test_the_class_has_the_last_word(
    issuer_of_theirs: Issuer, browser: Browser, user_id: str, configure: Any
) -> None:
    configure(LOGIN_AUTHENTICATION=f"{OWN}Impersonating")
    token = issuer_of_theirs.token(user_id, on_behalf_of=f"{user_id}'s customer")
    assert create(browser, token).json()["user"]["id"] == f"{user_id}'s customer"
    token = issuer_of_theirs.token(user_id, on_behalf_of="")
    response = create(browser, token)
    assert (response.status_code, response.json()["code"]) == (403, "user_not_found")


def test_an_opaque_token(
    issuer_of_theirs: Issuer, browser: Browser, user_id: str, configure: Any
) -> None:
    configure(LOGIN_AUTHENTICATION=f"{OWN}Opaque")
    get_user_model().objects.create_user(f"owner of {user_id}")
    response = browser.unsafe("POST", CREATE, {"access_token": user_id})
    assert (response.status_code, response.json()["user"]["id"]) == (201, f"owner of {user_id}")
    assert response.json()["session"]["auth"] == {"method": "access_token"}
    response = browser.unsafe("POST", CREATE, headers={"Authorization": "Token nonsense"})
    assert response.json() == {"detail": "Invalid token.", "code": "invalid_token"}
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Token")


@pytest.mark.parametrize(
    ("name", "changes", "body"),
    [
        (
            "Auth0JWTAuthentication",
            {"exp": int(time.time()) - 3600},
            {"detail": "Token expired", "code": "token_expired"},
        ),
        (
            "Auth0JWTAuthentication",
            {"aud": "https://elsewhere.example.com"},
            {"detail": "Token rejected: Audience doesn't match", "code": "invalid_token"},
        ),
        (
            "WithPayload",
            {"exp": int(time.time()) - 3600},
            {"detail": "Given token not valid", "code": "token_not_valid"},
        ),
    ],
)
def test_refusals(
    issuer_of_theirs: Issuer,
    browser: Browser,
    user_id: str,
    configure: Any,
    name: str,
    changes: Any,
    body: Any,
) -> None:
    configure(LOGIN_AUTHENTICATION=OWN + name)
    token = issuer_of_theirs.token(user_id, **changes)
    for response in (
        create(browser, token),
        browser.unsafe("POST", CREATE, {"access_token": token}),
    ):
        assert (response.status_code, response.json()) == (401, body)
        assert response["WWW-Authenticate"] == 'Bearer realm="acme"'
        assert response["Cache-Control"] == "private, no-store"
    assert session_service.get_active_sessions_count(user_id=user_id) == 0


def test_what_no_header_can_hold(
    issuer_of_theirs: Issuer, browser: Browser, configure: Any
) -> None:
    configure(LOGIN_AUTHENTICATION="rest_framework.authentication.TokenAuthentication")
    response = browser.unsafe("POST", CREATE, {"access_token": "\u65e5"})
    assert response.status_code == 401
    assert response.json()["code"] == "invalid_token"


def test_no_token(issuer_of_theirs: Issuer, browser: Browser) -> None:
    response = browser.unsafe("POST", CREATE)
    assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")
    assert response["WWW-Authenticate"] == 'Bearer realm="acme"'


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("Inactive", 403, "user_not_found"), ("Anonymous", 401, "not_authenticated")],
)
@pytest.mark.parametrize("field", ["username", None])
def test_no_user(
    issuer_of_theirs: Issuer,
    browser: Browser,
    user_id: str,
    configure: Any,
    name: str,
    status: int,
    code: str,
    field: str | None,
) -> None:
    configure(LOGIN_AUTHENTICATION=OWN + name, USER_ID_FIELD=field)
    response = create(browser, issuer_of_theirs.token(user_id))
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert browser.get(CURRENT).status_code == 401


def test_csrf(issuer_of_theirs: Issuer, browser: Browser, user_id: str) -> None:
    token = issuer_of_theirs.token(user_id)
    response = create(browser, token, **{"Sec-Fetch-Site": "cross-site"})
    assert (response.status_code, response.json()["code"]) == (403, "csrf_failed")


def test_checks(issuer_of_theirs: Issuer) -> None:
    """Neither AUTH0 nor ON_LOGIN is missed."""
    assert static() == set()
