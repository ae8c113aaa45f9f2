"""The served OpenAPI schema against the served endpoints, by Schemathesis.

Every operation, over HTTPS, with good, bad and absent arguments: as a browser with a session, as
one with an access token, as one with neither, and as a program that sends nothing of a browser's.
No answer may be one that the schema does not have.  The examples are the same each time.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from django.db import connection
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from session_manager.conf import settings
from session_manager.services import session_service

from .issuer import AUDIENCE, Issuer
from .serving import Served

pytestmark = pytest.mark.django_db(transaction=True)

EXAMPLES = 12
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.unsupported_method,
]
# Those that are to take what the schema allows, and nothing else.
BODY_CHECKS = [
    openapi_checks.negative_data_rejection,
    openapi_checks.positive_data_acceptance,
]
SECRET = "a" * 32


class Program:
    """Sends what Schemathesis makes up, and nothing else."""

    def __init__(self, served: Served, issuer: Issuer) -> None:
        self.served = served
        self.issuer = issuer
        self.http = requests.Session()

    def cookies(self) -> dict[str, str]:
        return {}

    def headers(self) -> dict[str, str]:
        return {}

    def call(self, case: schemathesis.Case) -> Any:
        self.http.cookies.clear()
        return case.call(
            base_url=self.served.url,
            session=self.http,
            headers=self.headers(),
            cookies=self.cookies(),
            verify=str(self.served.certificate),
        )


class Stranger(Program):
    """A browser at the application's own page, not signed in."""

    def cookies(self) -> dict[str, str]:
        return {"csrftoken": SECRET}

    def headers(self) -> dict[str, str]:
        return {
            "Origin": self.served.url,
            "Sec-Fetch-Site": "same-origin",
            "X-CSRFToken": SECRET,
        }


class Holder(Stranger):
    """A browser with an access token, of somebody else each time."""

    def headers(self) -> dict[str, str]:
        token = self.issuer.token(f"auth0|{uuid.uuid4().hex}")
        return {**super().headers(), "Authorization": f"Bearer {token}"}


class SignedIn(Stranger):
    """A browser with a session, of somebody else each time."""

    def cookies(self) -> dict[str, str]:
        token = session_service.create(f"auth0|{uuid.uuid4().hex}", {"theme": "dark"}).token
        return {**super().cookies(), settings.cookie_name: token}


@pytest.fixture(scope="module")
def served(
    django_db_setup: None, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    issuer.reset()
    values = {
        "AUTH0": {"ISSUER": issuer.url, "AUDIENCE": AUDIENCE, "JWKS_URL": issuer.jwks_url},
        "ON_SWITCH_TENANT": "tests.hooks.on_switch_tenant",
    }
    directory = tmp_path_factory.mktemp("served")
    with Served(directory, connection.settings_dict["NAME"], values) as running:
        yield running


DOCUMENT = json.loads(
    OpenApiJsonRenderer().render(SchemaGenerator().get_schema(request=None, public=True))
)
schema = schemathesis.openapi.from_dict(
    DOCUMENT,
    config=schemathesis.Config.from_dict(
        {
            "generation": {
                "deterministic": True,
                "max-examples": EXAMPLES,
                "with-security-parameters": False,
            }
        }
    ),
).include(path_regex="^/api/sessions/")


def test_this_schema_is_served(served: Served) -> None:
    answer = requests.get(
        f"{served.url}/api/schema/?format=json", verify=str(served.certificate), timeout=30
    )
    assert answer.json() == DOCUMENT


examples = hypothesis_settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


API = "/api/sessions/"
#: What the examples reach: what they are about, and not all are turned away at the door.
REACHED: dict[type[Program], dict[tuple[str, str], set[int]]] = {
    SignedIn: {
        ("GET", f"{API}current/"): {200},
        ("PATCH", f"{API}current/"): {200, 400},
        ("DELETE", f"{API}current/"): {204},
        ("POST", f"{API}refresh/"): {200, 400},
        ("GET", API): {200, 400},
        ("DELETE", f"{API}{{session_id}}/"): {404},
        ("POST", f"{API}invalidate-all/"): {200, 400},
        ("POST", f"{API}tenant/"): {403, 400},
    },
    Holder: {
        ("POST", f"{API}create/"): {201, 400},
        ("GET", f"{API}current/"): {401},
    },
    Stranger: {
        ("POST", f"{API}create/"): {400, 401},
        ("PATCH", f"{API}current/"): {401},
    },
    Program: {
        ("POST", f"{API}create/"): {403},
        ("GET", API): {401},
    },
}


def test_what_is_reached_is_in_the_schema() -> None:
    operations = {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    assert operations >= {operation for reached in REACHED.values() for operation in reached}


@pytest.fixture
def reached(caller: type[Program]) -> Iterator[dict[tuple[str, str], set[int]]]:
    """The statuses of an operation's examples, all of which have come in the end."""
    statuses: dict[tuple[str, str], set[int]] = {}
    yield statuses
    assert statuses
    for operation, found in statuses.items():
        assert found >= REACHED[caller].get(operation, set()), operation


@pytest.mark.parametrize("caller", [SignedIn, Holder, Stranger, Program])
@schema.parametrize()
@examples
def test_conforms(
    case: schemathesis.Case,
    caller: type[Program],
    served: Served,
    issuer: Issuer,
    reached: dict[tuple[str, str], set[int]],
) -> None:
    response = caller(served, issuer).call(case)
    given = CHECKS
    # A string with U+0000 is JSON, but no jsonb: 400.
    if case.operation.method.upper() == "POST" and "\\u0000" not in json.dumps(
        case.body, default=str
    ):
        given = CHECKS + BODY_CHECKS
    case.validate_response(response, checks=given)
    statuses = reached.setdefault((case.method, case.operation.path), set())
    statuses.add(response.status_code)
