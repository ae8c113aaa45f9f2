"""The digest form, against the worked example of docs/reference.md and against PostgreSQL."""

from __future__ import annotations

import uuid

import pytest
from django.db import connection

from session_manager.services import session_service
from session_manager.store.tokens import (
    digest_form,
    excused,
    is_bare_token,
    is_token,
    proof_expiry,
    session_id_of,
    token_bytes,
    with_proof,
    without_proof,
)

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


PROOF = "sp1_AAAAAQZhdQycMksAAQIDBAUGBwgJCgsMDQ4P"


def test_a_token_with_a_proof() -> None:
    both = f"{TOKEN}.{PROOF}"
    assert with_proof(TOKEN, PROOF) == with_proof(both, PROOF) == both
    assert is_token(both)
    assert not is_bare_token(both)
    assert is_bare_token(TOKEN)
    assert without_proof(both) == without_proof(TOKEN) == TOKEN
    assert digest_form(both) == f"{DIGEST}.{PROOF}"
    assert session_id_of(both) == session_id_of(TOKEN)
    bare, raw = token_bytes(TOKEN), token_bytes(both)
    assert bare is not None
    assert raw == bare + PROOF.encode()
    assert proof_expiry(raw) == 0x00066175_0C9C324B
    assert proof_expiry(bare) is None


def test_an_excused_token() -> None:
    """There is no proof, for a reason that is known: a dot says so."""
    token = excused(f"{TOKEN}.{PROOF}")
    assert token == excused(TOKEN) == f"{TOKEN}."
    assert is_token(token)
    assert digest_form(token) == f"{DIGEST}."
    raw = token_bytes(token)
    assert raw is not None
    assert proof_expiry(raw) is None
    assert with_proof(token, PROOF) == f"{TOKEN}.{PROOF}"
    assert without_proof(token) == TOKEN


@pytest.mark.parametrize(
    "proof", [None, "sp1_", PROOF[:-1], f"{PROOF}A", f"{PROOF}\n", PROOF.replace("sp1", "sc1")]
)
def test_what_is_no_proof(proof: str | None) -> None:
    assert with_proof(TOKEN, proof) == TOKEN
    assert not is_token(f"{TOKEN}.{proof}")
    assert token_bytes(f"{TOKEN}.{proof}") is None
    assert not is_token(f"{DIGEST}.{PROOF}")


@pytest.mark.django_db
def test_agrees_with_the_server(user_id: str) -> None:
    token = session_service.create(user_id).token
    with connection.cursor() as cursor:
        cursor.execute("SELECT session_token_digest(%s)", [token])
        assert cursor.fetchone() == (digest_form(token),)
        cursor.execute("SELECT session_token_digest(%s)", [with_proof(token, PROOF)])
        assert cursor.fetchone() == (digest_form(with_proof(token, PROOF)),)
