"""The OpenAPI schema by itself.

test_statuses and test_schemathesis compare it with what the endpoints do.
"""

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


def test_valid(schema: Any) -> None:
    validate_schema(schema)


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
