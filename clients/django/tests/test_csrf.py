"""The matrix of where a request may come from, with and without Django's token."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from session_manager.conf import settings
from session_manager.services import session_service
from session_manager.types import CreatedSession

from .issuer import Issuer, bearer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("backend")]

CURRENT = "/api/sessions/current/"
SECRET = "b" * 32
OWN = "http://testserver"
TRUSTED = "https://app.example.com"

# Sec-Fetch-Site, Origin, whether it is let through with a good CSRF token.
MATRIX = [
    ("same-origin", None, True),
    ("same-origin", OWN, True),
    ("none", None, True),
    (None, None, True),
    (None, OWN, True),
    (None, TRUSTED, True),
    (None, "https://sub.partner.example", True),
    (None, "https://partner.example.evil.example", False),
    (None, "http://sub.partner.example", False),
    (None, "https://evil.example", False),
    (None, "null", False),
    (None, "http://testserver.evil.example", False),
    (None, "https://testserver", False),
    (None, "http://[", False),
    (None, "https://\u2100.example", False),
    ("none", "https://evil.example", False),
    ("same-site", None, False),
    ("same-site", "http://sub.testserver", False),
    ("same-site", TRUSTED, True),
    ("cross-site", None, False),
    ("cross-site", OWN, False),
    ("cross-site", "https://evil.example", False),
    ("cross-site", TRUSTED, True),
    ("nonsense", None, False),
]
UNSAFE = [
    ("PATCH", CURRENT),
    ("DELETE", CURRENT),
    ("POST", "/api/sessions/create/"),
    ("POST", "/api/sessions/refresh/"),
    ("POST", "/api/sessions/invalidate-all/"),
    ("POST", "/api/sessions/tenant/"),
    ("DELETE", "/api/sessions/01975a3e-9c00-7abc-9def-012345675ec4/"),
    ("POST", "/protected/"),
]


@pytest.fixture
def client(created: CreatedSession) -> Client:
    client = Client(enforce_csrf_checks=True)
    client.cookies[settings.cookie_name] = created.token
    client.cookies["csrftoken"] = SECRET
    return client


def send(client: Client, method: str, path: str, **headers: str | None) -> Any:
    given = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
    return client.generic(method, path, b"{}", content_type="application/json", headers=given)


@pytest.mark.parametrize(("site", "origin", "passes"), MATRIX)
def test_where_from(
    client: Client, settings: Any, site: str | None, origin: str | None, passes: bool
) -> None:
    settings.CSRF_TRUSTED_ORIGINS = [TRUSTED, "https://*.partner.example"]
    response = send(
        client, "PATCH", CURRENT, Sec_Fetch_Site=site, Origin=origin, X_CSRFToken=SECRET
    )
    assert response.status_code == (200 if passes else 403)
    if not passes:
        assert response.json()["code"] == "csrf_failed"


@pytest.mark.parametrize(("method", "path"), UNSAFE)
def test_every_unsafe_method_is_checked(
    client: Client, created: CreatedSession, method: str, path: str
) -> None:
    for headers in (
        {"Sec_Fetch_Site": "cross-site", "X_CSRFToken": SECRET},
        {"Origin": "https://evil.example", "X_CSRFToken": SECRET},
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "same-origin", "X_CSRFToken": "c" * 32},
    ):
        response = send(client, method, path, **headers)
        assert (response.status_code, response.json()["code"]) == (403, "csrf_failed")
        assert settings.cookie_name not in response.cookies
    assert session_service.get(created.token) is not None


def test_create_is_checked_with_a_token_in_hand(auth0: Issuer, user_id: str) -> None:
    """Signing somebody in as the attacker is an attack, too."""
    client = Client(enforce_csrf_checks=True)
    response = client.post(
        "/api/sessions/create/",
        {"access_token": auth0.token(user_id)},
        content_type="application/json",
        headers={"Sec-Fetch-Site": "cross-site"},
    )
    assert response.status_code == 403
    response = client.post(
        "/api/sessions/create/",
        f'{{"access_token": "{auth0.token(user_id)}"}}',
        content_type="text/plain",
        headers={"Origin": "https://evil.example"},
    )
    assert response.status_code == 403
    assert session_service.get_active_sessions_count(user_id=user_id) == 0


def test_forms_are_not_read(client: Client, auth0: Issuer, user_id: str) -> None:
    response = client.post(
        "/api/sessions/create/",
        {"access_token": auth0.token(user_id)},
        headers={"X-CSRFToken": SECRET, "Sec-Fetch-Site": "same-origin"},
    )
    assert response.status_code == 415
    assert session_service.get_active_sessions_count(user_id=user_id) == 1


def test_the_token_can_be_switched_off(client: Client, configure: Any) -> None:
    configure(CSRF_TOKEN=False)
    assert send(client, "PATCH", CURRENT, Sec_Fetch_Site="same-origin").status_code == 200
    assert send(client, "PATCH", CURRENT, Sec_Fetch_Site="cross-site").status_code == 403
    assert send(client, "PATCH", CURRENT, Origin="https://evil.example").status_code == 403


def test_the_browser_gets_the_token() -> None:
    client = Client(enforce_csrf_checks=True)
    response = client.get(CURRENT)
    assert response.status_code == 401
    assert client.cookies["csrftoken"].value
    assert response["X-CSRFToken"]
    response = send(
        client,
        "DELETE",
        CURRENT,
        Sec_Fetch_Site="same-origin",
        X_CSRFToken=response["X-CSRFToken"],
    )
    assert response.status_code == 204


def test_a_login_replaces_the_token(client: Client, auth0: Issuer, user_id: str) -> None:
    """What another site or an earlier user knows of it is worth nothing afterwards."""
    response = client.post(
        "/api/sessions/create/",
        {"access_token": auth0.token(user_id)},
        content_type="application/json",
        headers={"X-CSRFToken": SECRET, "Sec-Fetch-Site": "same-origin"},
    )
    assert response.status_code == 201
    assert client.cookies["csrftoken"].value != SECRET
    old = send(client, "PATCH", CURRENT, Sec_Fetch_Site="same-origin", X_CSRFToken=SECRET)
    assert old.status_code == 403
    for new in (response["X-CSRFToken"], client.cookies["csrftoken"].value):
        changed = send(client, "PATCH", CURRENT, Sec_Fetch_Site="same-origin", X_CSRFToken=new)
        assert changed.status_code == 200


def test_strict_referer_over_https(client: Client) -> None:
    """What a server on the browser's behalf sends: no Origin, a Referer of its own choosing."""
    headers = {"X-CSRFToken": SECRET, "Sec-Fetch-Site": "same-origin"}
    for referer, code in ((None, 403), ("https://testserver/", 200)):
        if referer:
            headers["Referer"] = referer
        response = client.generic(
            "PATCH", CURRENT, b"{}", content_type="application/json", secure=True, headers=headers
        )
        assert response.status_code == code


def test_a_bearer_token_needs_none(auth0: Issuer, user_id: str) -> None:
    client = Client(enforce_csrf_checks=True)
    response = client.post("/protected/", headers=bearer(auth0.token(user_id)))
    assert response.json() == {"user": user_id}
