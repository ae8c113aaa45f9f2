"""The digest form, against the worked example of docs/reference.md and against PostgreSQL."""

from __future__ import annotations

import uuid

import pytest
from django.db import connection

from session_manager.services import session_service
from session_manager.store.tokens import digest_form, is_token, session_id_of

TOKEN = "sm1_AZdaPpwAeryd7wEjRWdexAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
DIGEST = "sd1_AZdaPpwAeryd7wEjRWdexEm0MNoZrDpGUzfZ-kH6S-RawhmeaNhtnGlPw_SUn65B"


def test_worked_example() -> None:
    assert digest_form(TOKEN) == DIGEST
    assert session_id_of(TOKEN) == uuid.UUID("01975a3e-9c00-7abc-9def-012345675ec4")


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "sm1_",
        DIGEST,
        TOKEN + "A",
        TOKEN[:-1],
        TOKEN + "\n",
        " " + TOKEN,
        TOKEN[:-1] + "é",
    ],
)
def test_what_is_no_token(value: str | None) -> None:
    assert not is_token(value)
    assert digest_form(value) is None


@pytest.mark.django_db
def test_agrees_with_the_server(user_id: str) -> None:
    token = session_service.create(user_id).token
    with connection.cursor() as cursor:
        cursor.execute("SELECT session_token_digest(%s)", [token])
        assert cursor.fetchone() == (digest_form(token),)
