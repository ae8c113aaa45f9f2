"""Settings are read once, and again when they change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from session_manager import conf
from session_manager.conf import settings


def test_a_change_while_another_thread_reads(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = conf.load_settings

    def overtaken() -> Any:
        loaded = load()
        monkeypatch.undo()
        configure(RETRY_AFTER=7)
        return loaded

    configure(RETRY_AFTER=6)
    monkeypatch.setattr(conf, "load_settings", overtaken)
    assert settings.RETRY_AFTER == 6
    assert settings.RETRY_AFTER == 7


def test_no_rates(configure: Callable[..., None]) -> None:
    configure(THROTTLE_RATES=None)
    assert set(settings.THROTTLE_RATES.values()) == {None}


NULLABLE = {f.name for f in fields(conf.Settings) if str(f.type).endswith("| None")}


@pytest.mark.parametrize(
    "name", sorted({f.name for f in fields(conf.Settings)} - {"DEBUG", "IS_ENGINE"})
)
def test_none_works_or_is_refused(configure: Callable[..., None], name: str) -> None:
    """With None a setting is off, or the message names it: no odd error at the first request."""
    configure(**{name: None})
    if name in NULLABLE | {"THROTTLE_RATES"}:
        assert settings.cookie_name
    else:
        with pytest.raises(ImproperlyConfigured, match=rf'"{name}".* must not be None'):
            settings.cookie_name  # noqa: B018


def test_what_is_gone(configure: Callable[..., None]) -> None:
    """It named what a browser may not write: read as its opposite, it would open the rest."""
    configure(PROTECTED_DATA=("plan",))
    with pytest.raises(ImproperlyConfigured, match=r'"PROTECTED_DATA".* "CLIENT_DATA" names what'):
        settings.cookie_name  # noqa: B018


@pytest.mark.parametrize("value", ["client", [1], {"client": 1, 2: 3}])
def test_names_that_a_browser_may_write(configure: Callable[..., None], value: Any) -> None:
    configure(CLIENT_DATA=value)
    with pytest.raises(ImproperlyConfigured, match=r'"CLIENT_DATA".* list of names'):
        settings.cookie_name  # noqa: B018


@pytest.mark.parametrize("value", [None, [], "x"])
def test_not_a_dictionary(settings: Any, value: Any) -> None:
    settings.SESSION_MANAGER = value
    with pytest.raises(ImproperlyConfigured, match="dictionary"):
        conf.load_settings()


def test_none_of_the_issuer(configure: Callable[..., None]) -> None:
    issuer = {"ISSUER": "https://issuer.invalid/", "AUDIENCE": "a"}
    configure(AUTH0={**issuer, "JWKS_URL": None, "TENANT_CLAIM": None})
    assert settings.AUTH0 is not None
    assert settings.AUTH0.JWKS_URL == "https://issuer.invalid/.well-known/jwks.json"
    configure(AUTH0={**issuer, "LEEWAY": None})
    with pytest.raises(ImproperlyConfigured, match=r'"LEEWAY".* must not be None'):
        settings.cookie_name  # noqa: B018
