"""The OpenAPI schema: valid, complete, and what the endpoints do."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema


@pytest.fixture(scope="module")
def schema() -> Any:
    return SchemaGenerator().get_schema(request=None, public=True)


OPERATIONS = {
    ("post", "create/"): {201, 400, 401, 403, 409, 413, 429, 503},
    ("get", "current/"): {200, 401, 429, 503},
    ("patch", "current/"): {200, 400, 401, 403, 412, 413, 429, 503},
    ("delete", "current/"): {204, 403, 429, 503},
    ("post", "refresh/"): {200, 400, 401, 403, 429, 503},
    ("get", ""): {200, 400, 401, 429, 503},
    ("delete", "{session_id}/"): {204, 401, 403, 404, 429, 503},
    ("post", "invalidate-all/"): {200, 400, 401, 403, 429, 503},
    ("post", "tenant/"): {200, 400, 401, 403, 409, 413, 429, 503},
}


def test_valid(schema: Any) -> None:
    validate_schema(schema)


def test_complete(schema: Any) -> None:
    found = {
        (method, path.removeprefix("/api/sessions/")): {int(code) for code in spec["responses"]}
        for path, methods in schema["paths"].items()
        if path.startswith("/api/sessions/")
        for method, spec in methods.items()
    }
    assert found == OPERATIONS


def test_security(schema: Any) -> None:
    schemes = schema["components"]["securitySchemes"]
    assert schemes["session"] == {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-session_token",
    }
    assert schemes["accessToken"]["scheme"] == "bearer"
    current = schema["paths"]["/api/sessions/current/"]["get"]
    assert {"session": []} in current["security"]
    create = schema["paths"]["/api/sessions/create/"]["post"]
    assert create["security"] == [{"accessToken": []}]


def test_components(schema: Any) -> None:
    components = schema["components"]["schemas"]
    assert set(components["Session"]["properties"]) >= {"id", "expires_at", "data", "version"}
    assert set(components["Current"]["required"]) == {"session", "user", "server_time"}
    assert set(components["Error"]["properties"]) == {"detail", "code"}


def test_no_warning_of_ours() -> None:
    err = StringIO()
    call_command("spectacular", stdout=StringIO(), stderr=err, validate=True)
    assert "session_manager/" not in err.getvalue()
