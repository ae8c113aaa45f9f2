"""The samples of docs/django.md, as they stand there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django import forms
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core import mail
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.shortcuts import get_object_or_404, redirect
from django.test import Client, RequestFactory
from django.urls import include, path
from django.views.decorators.http import require_POST

from session_manager.conf import settings
from session_manager.http.lookup import look_up
from session_manager.login import log_in
from session_manager.services import session_service
from session_manager.signals import new_device

from .pages import run, samples

pytestmark = pytest.mark.django_db(transaction=True)


def run_all(heading: str, **names: Any) -> dict[str, Any]:
    """What a section's samples define, one after the other."""
    for text in samples(heading):
        names = run(text, **names)
    return names


@pytest.fixture
def user(configure: Callable[..., None]) -> Any:
    configure(USER_ID_FIELD="username")
    return get_user_model().objects.create_user("ada")


def request_of(token: str | None = None, **data: Any) -> HttpRequest:
    request = RequestFactory().post("/", data)
    if token is not None:
        request.COOKIES[settings.cookie_name] = token
    request.user = look_up(request).user
    return request


class SignInForm(forms.Form):
    remember = forms.BooleanField(required=False)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert self.is_valid()


def test_remember_me(user: Any, configure: Callable[..., None], database_setting: Any) -> None:
    sample = run_all("Remember me", SignInForm=SignInForm, redirect=redirect, user=user)
    # As the page says that it must be.
    database_setting("max_lifetime", "30d")
    configure(**sample["SESSION_MANAGER"])
    for data, days, idle in (({"remember": "on"}, 30, 14 * 24 * 60), ({}, 0.5, 30)):
        assert sample["sign_in"](request_of(**data)).status_code == 302
        listed = session_service.list("ada")[0]
        assert listed.absolute_expires_at - listed.created_at == timedelta(days=days)
        assert listed.idle_timeout == timedelta(minutes=idle)
        assert (listed.auth, listed.remember) == ({"amr": ["pwd"]}, bool(data))

    sample["sign_in_with_key"](request_of(), user)
    listed = session_service.list("ada")[0]
    assert listed.absolute_expires_at - listed.created_at == timedelta(hours=12)
    assert listed.idle_timeout == timedelta(minutes=15)
    for level in ("AAL1", "AAL2", "AAL3"):
        log_in(request_of(), user, **sample[level])


def test_acting_as_another_user(user: Any) -> None:
    names = {
        "User": get_user_model(),
        "get_object_or_404": get_object_or_404,
        "redirect": redirect,
        "require_POST": require_POST,
    }
    sample = run_all("Acting as another user", **names)
    staff = get_user_model().objects.create_user("grace", is_staff=True)
    token = session_service.create("grace").token
    with pytest.raises(PermissionDenied):
        sample["act_as"](request_of(token), "ada")
    staff.user_permissions.add(
        Permission.objects.create(
            codename="act_as_user", content_type=_support(), name="Can act as a user"
        )
    )
    request = request_of(token)
    assert sample["act_as"](request, "ada").status_code == 302
    session = look_up(request).session
    assert session is not None
    assert (session.user_id, session.actor) == ("ada", "grace")
    request.COOKIES[settings.actor_cookie_name] = token
    assert sample["back"](request).status_code == 302
    session = look_up(request).session
    assert session is not None
    assert (session.user_id, session.actor) == ("grace", None)


def _support() -> ContentType:
    return ContentType.objects.create(app_label="support", model="support")


@pytest.fixture
def sample_of_new_devices() -> Iterator[dict[str, Any]]:
    sample = run_all("New devices", urlpatterns=[], path=path, include=include)
    yield sample
    new_device.disconnect(sample["warn"])


def test_new_devices(
    configure: Callable[..., None], user_id: str, sample_of_new_devices: dict[str, Any]
) -> None:
    # One of whom nothing is known.
    configure(USER_ID_FIELD="username")
    get_user_model().objects.create_user(user_id, "ada@example.com")
    assert len(sample_of_new_devices["urlpatterns"]) == 1
    firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    session_service.create(user_id, ip="203.0.113.7", user_agent="curl/8")
    created = session_service.create(user_id, ip="198.51.100.9", user_agent=firefox)
    (letter,) = mail.outbox
    assert letter.to == ["ada@example.com"]
    assert letter.subject == "New sign-in from Firefox on Linux"
    assert "address 198.51.100.9." in letter.body
    link = letter.body.split("https://app.example.com")[1].strip()
    assert Client().get(link).status_code == 200
    assert session_service.get(created.token)
    assert Client().post(link).status_code == 200
    assert session_service.get(created.token) is None
