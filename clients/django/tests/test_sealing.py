"""The cache's values against test/vectors/cache.json, which every reader is checked against."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from session_manager.store import sealing
from session_manager.store.cache import session_of
from session_manager.store.tokens import digest_form, token_bytes
from session_manager.types import Session

VECTORS = json.loads(
    next(
        parent / "test/vectors/cache.json"
        for parent in Path(__file__).resolve().parents
        if (parent / "test/vectors/cache.json").exists()
    ).read_text(encoding="utf-8")
)


def read(vector: dict[str, Any]) -> sealing.Opened | None:
    opened = sealing.unseal(
        bytes.fromhex(vector["application_key"]),
        token_bytes(vector["token"]),
        (vector["epoch"] or "").encode(),
        bytes.fromhex(vector["value"]),
    )
    if opened is None or not sealing.usable(opened, vector["now"], vector["max_age"]):
        return None
    return opened


def test_there_are_vectors() -> None:
    assert len(VECTORS["accepted"]) >= 3
    assert len(VECTORS["refused"]) >= 10
    assert VECTORS["bound"]
    assert VECTORS["bound_refused"]


@pytest.mark.parametrize(
    "vector",
    [*VECTORS["accepted"], *VECTORS["bound"]],
    ids=lambda vector: vector["name"],
)
def test_accepted(vector: dict[str, Any]) -> None:
    token = token_bytes(vector["token"])
    key = bytes.fromhex(vector["application_key"])
    epoch = vector["epoch"].encode()
    assert digest_form(vector["token"]) == vector["digest_form"]
    assert sealing.sealing_key(key, token).hex() == vector["sealing_key"]
    assert sealing.associated_data(token[:16], epoch).hex() == vector["associated_data"]
    opened = read(vector)
    assert opened is not None
    assert (opened.cached_at, opened.not_after) == (vector["cached_at"], vector["not_after"])
    row = json.loads(vector["row"])
    assert json.loads(opened.row) == row
    session = session_of(json.loads(opened.row))
    assert (session.user_id, session.data) == (row["user_id"], row["data"])
    # Every member is there, if not before it is read.
    assert all(hasattr(session, field.name) for field in fields(Session))
    assert vars(session).keys() >= {field.name for field in fields(Session)}
    assert str(session.id) == row["session_id"]
    sealed = sealing.seal(
        key,
        token,
        epoch,
        sealing.Opened(vector["cached_at"], vector["not_after"], vector["row"].encode()),
        bytes.fromhex(vector["nonce"]),
    )
    assert sealed.hex() == vector["value"]


@pytest.mark.parametrize(
    "vector",
    [*VECTORS["refused"], *VECTORS["bound_refused"]],
    ids=lambda vector: vector["name"],
)
def test_refused(vector: dict[str, Any]) -> None:
    assert read(vector) is None


def test_a_nonce_is_never_used_twice() -> None:
    arguments: Any = (b"k" * 32, b"t" * 48, b"e" * 32, sealing.Opened(1, 2, b"{}"))
    assert sealing.seal(*arguments) != sealing.seal(*arguments)
