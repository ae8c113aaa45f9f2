"""Fixtures: the database with the extension, an issuer of access tokens, clients."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.conf import settings as django_settings
from django.core.cache import cache
from django.db import connection, connections
from django.test import Client

from session_manager.conf import settings
from session_manager.cookies import token_from
from session_manager.services import session_service
from session_manager.types import CreatedSession

from .issuer import AUDIENCE, Issuer


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    with Issuer() as running:
        yield running


@pytest.fixture(autouse=True)
def _clean_cache() -> None:
    cache.clear()


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    """Override members of SESSION_MANAGER."""

    def override(**values: Any) -> None:
        settings.SESSION_MANAGER = {**settings.SESSION_MANAGER, **values}

    return override


@pytest.fixture
def auth0(issuer: Issuer, configure: Callable[..., None]) -> Issuer:
    """The settings name the running issuer."""
    issuer.reset()
    configure(AUTH0={"ISSUER": issuer.url, "AUDIENCE": AUDIENCE, "JWKS_URL": issuer.jwks_url})
    return issuer


@pytest.fixture
def user_id() -> str:
    """A user whom no other test has."""
    return f"auth0|{uuid.uuid4().hex}"


@pytest.fixture
def created(db: None, user_id: str) -> CreatedSession:
    return session_service.create(
        user_id, {"cart": [1]}, ip="127.0.0.1", user_agent="tests", tenant_id="acme"
    )


class Heard(list[dict[str, Any]]):
    def __call__(self, **kwargs: Any) -> None:
        kwargs.pop("signal")
        kwargs.pop("sender")
        self.append(kwargs)


@pytest.fixture
def heard(request: pytest.FixtureRequest) -> Any:
    receiver = Heard()
    request.param.connect(receiver)
    yield receiver
    request.param.disconnect(receiver)


@pytest.fixture
def superuser(transactional_db: None) -> Iterator[psycopg.Connection]:
    """A connection of the database's superuser, in autocommit mode."""
    config = django_settings.PG_SUPERUSER
    with psycopg.connect(
        host=config["HOST"],
        port=config["PORT"],
        user=config["USER"],
        dbname=connection.settings_dict["NAME"],
        autocommit=True,
    ) as superuser:
        yield superuser


@pytest.fixture
def database_setting(superuser: psycopg.Connection) -> Iterator[Callable[[str, str], None]]:
    """Set settings of the extension for the database; they hold for new connections."""
    name = connection.settings_dict["NAME"]
    # A setting is known once the library is loaded.
    superuser.execute("LOAD 'session_manager'")

    def change(setting: str, value: str) -> None:
        superuser.execute(f"ALTER DATABASE {name} SET session_manager.{setting} = '{value}'")
        connections.close_all()

    yield change
    superuser.execute(f"ALTER DATABASE {name} RESET ALL")
    connections.close_all()


class Browser(Client):
    """Django's client as a browser: CSRF is enforced, unsafe requests carry the token."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(enforce_csrf_checks=True, **kwargs)

    def token(self) -> str | None:
        morsel = self.cookies.get(settings.cookie_name)
        return morsel.value if morsel is not None and morsel.value else None

    def give(self, token: str) -> Browser:
        self.cookies[settings.cookie_name] = token
        return self

    def unsafe(self, method: str, path: str, data: Any = None, **extra: Any) -> Any:
        secret = "a" * 32
        self.cookies[django_settings.CSRF_COOKIE_NAME] = secret
        headers = {"X-CSRFToken": secret, "Sec-Fetch-Site": "same-origin"}
        headers.update(extra.pop("headers", {}))
        return self.generic(
            method,
            path,
            b"" if data is None else self._encode_json(data, "application/json"),
            content_type=extra.pop("content_type", "application/json"),
            headers={name: value for name, value in headers.items() if value is not None},
            **extra,
        )


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def signed_in(browser: Browser, created: CreatedSession) -> Browser:
    return browser.give(created.token)


__all__ = ["Browser", "token_from"]
