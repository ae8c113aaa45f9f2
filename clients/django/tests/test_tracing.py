"""Spans of the service's calls, by the real SDK of OpenTelemetry: what they tell, and what not."""

from __future__ import annotations

import base64
import inspect
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from session_manager.exceptions import (
    InvalidArgument,
    LimitReached,
    StoreUnavailable,
    VersionConflict,
)
from session_manager.services import SessionService, session_service
from session_manager.store.tokens import digest_form, session_id_of

from .conftest import RedisServer

pytestmark = pytest.mark.django_db(transaction=True)

IP, USER_AGENT = "203.0.113.77", "Netscape/4.04"
#: What calls are given, and no span may have.
SECRET = "a secret of the session's data"


@pytest.fixture(scope="module")
def _exporter() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    assert trace.get_tracer_provider() is provider
    return exporter


@pytest.fixture
def exporter(_exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    _exporter.clear()
    yield _exporter
    _exporter.clear()


def last(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, dict[str, Any]]:
    span = exporter.get_finished_spans()[-1]
    return span, dict(span.attributes or {})


def outcome(exporter: InMemorySpanExporter) -> Any:
    return last(exporter)[1]["session_service.outcome"]


def test_a_call(exporter: InMemorySpanExporter, user_id: str) -> None:
    session_service.create(user_id)
    span, attributes = last(exporter)
    assert (span.name, span.kind) == ("session.create", SpanKind.CLIENT)
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "session_manager"
    assert span.status.status_code is StatusCode.UNSET
    assert attributes == {
        "db.system.name": "postgresql",
        "db.operation.name": "create",
        "db.namespace": connection.settings_dict["NAME"],
        "session_service.outcome": "done",
    }


def test_outcomes(exporter: InMemorySpanExporter, user_id: str) -> None:
    token = session_service.create(user_id).token
    session_service.get(token)
    assert outcome(exporter) == "done"
    session_service.get("nonsense")
    assert outcome(exporter) == "none"
    session_service.get_id(uuid.uuid4(), user_id)
    assert outcome(exporter) == "none"
    refreshed = session_service.refresh(token, rotate=True)
    assert outcome(exporter) == refreshed.status == "rotated"
    session_service.refresh(token, rotate=True)
    assert outcome(exporter) == "already_rotated"
    session_service.list(user_id)
    assert last(exporter)[1]["session_service.count"] == 1
    session_service.invalidate(refreshed.token)
    assert outcome(exporter) == "done"
    session_service.invalidate(refreshed.token)
    assert outcome(exporter) == "none"
    session_service.refresh(refreshed.token)
    assert outcome(exporter) == "ended"
    session_service.invalidate_all(user_id)
    assert last(exporter)[1]["session_service.count"] == 0


def test_refusals_are_no_errors(
    exporter: InMemorySpanExporter, user_id: str, database_setting: Any
) -> None:
    database_setting("max_sessions_per_user", "1")
    database_setting("on_limit", "deny")
    token = session_service.create(user_id).token
    with pytest.raises(VersionConflict):
        session_service.update(token, {"a": SECRET}, expected_version=7)
    span, attributes = last(exporter)
    assert attributes["session_service.outcome"] == "version_conflict"
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())
    assert "error.type" not in attributes
    with pytest.raises(LimitReached):
        session_service.create(user_id)
    assert outcome(exporter) == "limit_reached"
    # The sessions that it names have been asked for within it.
    inner, outer = exporter.get_finished_spans()[-2:]
    assert inner.name == "session.list"
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id
    with pytest.raises(InvalidArgument):
        session_service.create(user_id, ip=f"{IP}-{SECRET}")
    assert outcome(exporter) == "invalid_argument"
    assert SECRET not in exported(exporter)


def test_an_error_without_its_words(
    exporter: InMemorySpanExporter, configure: Any, user_id: str
) -> None:
    configure(SCHEMA=SECRET)
    with pytest.raises(StoreUnavailable) as raised:
        session_service.create(user_id, {"a": SECRET}, ip=IP)
    # The words of the server's have it.
    assert SECRET in str(raised.value.__cause__)
    span, attributes = last(exporter)
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert attributes["session_service.outcome"] == "error"
    assert attributes["error.type"] == "StoreUnavailable"
    assert attributes["db.response.status_code"] == "3F000"
    (event,) = span.events
    assert (event.name, dict(event.attributes or {})) == (
        "exception",
        {"exception.type": "StoreUnavailable"},
    )
    assert SECRET not in exported(exporter)


async def test_asynchronous_calls(exporter: InMemorySpanExporter, user_id: str) -> None:
    with trace.get_tracer("tests").start_as_current_span("request") as request:
        created = await session_service.acreate(user_id)
        assert await session_service.aget(created.token) is not None
        with pytest.raises(VersionConflict):
            await session_service.aupdate(created.token, {}, expected_version=7)
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == [
        "session.create",
        "session.get",
        "session.update",
        "request",
    ]
    for span in spans[:-1]:
        assert span.parent is not None
        assert span.parent.span_id == request.get_span_context().span_id
    assert (spans[2].attributes or {})["session_service.outcome"] == "version_conflict"


def test_the_cache(exporter: InMemorySpanExporter, redis_server: RedisServer, user_id: str) -> None:
    token = session_service.create(user_id).token
    session_service.get(token)
    assert last(exporter)[1]["session_service.cache"] == "miss"
    assert last(exporter)[1]["db.system.name"] == "postgresql"
    session_service.get(token)
    _, attributes = last(exporter)
    assert attributes["session_service.cache"] == "hit"
    assert attributes["session_service.outcome"] == "done"
    assert (attributes["db.system.name"], attributes["db.namespace"]) == ("redis", "1")
    redis_server.stop()
    session_service.get(token)
    assert last(exporter)[1]["session_service.cache"] == "unavailable"
    assert outcome(exporter) == "done"
    assert len(exporter.get_finished_spans()) == 4


def exported(exporter: InMemorySpanExporter) -> str:
    """Everything that an exporter gets."""
    spans = exporter.get_finished_spans()
    return "\n".join(span.to_json() + repr(span.resource.attributes) for span in spans)


def windows(text: str, size: int = 8) -> Iterator[str]:
    return (text[at : at + size] for at in range(len(text) - size + 1))


#: Arguments of the methods that get a token first.
OF_TOKENS: dict[str, tuple[Any, ...]] = {
    "get": (),
    "update": ({"a": SECRET},),
    "refresh": (),
    "end_reason": (),
    "device_challenge": (),
    "bind_device": ({"kty": "EC", "crv": "P-256", "x": SECRET, "y": SECRET}, SECRET),
    "device": (),
    "prove_device": (SECRET,),
    "report_device": (True, "unreachable"),
    "bind": (),
    "assertion": (SECRET,),
    "switch_tenant": (SECRET, {"a": SECRET}),
    "elevate": ({"amr": [SECRET]},),
    "invalidate": (SECRET,),
}


def public() -> list[str]:
    methods = inspect.getmembers(SessionService, inspect.isfunction)
    return [name for name, _ in methods if not name.startswith("_")]


async def test_nothing_secret_is_exported(exporter: InMemorySpanExporter, user_id: str) -> None:
    """Each public method, with secrets in every argument, whether it answers or raises."""
    tokens = []
    for name in public():
        twin = inspect.iscoroutinefunction(getattr(SessionService, name))
        plain = name[1:] if twin and hasattr(SessionService, name[1:]) else name
        created = await session_service.acreate(
            user_id, {"a": SECRET}, ip=IP, user_agent=USER_AGENT, tenant_id=SECRET
        )
        tokens.append(created.token)
        arguments: tuple[Any, ...]
        keywords: dict[str, Any] = {}
        if plain in OF_TOKENS:
            arguments = (created.token, *OF_TOKENS[plain])
        elif plain in ("get_id", "bind_id", "invalidate_id"):
            arguments = (created.id, user_id)
        elif plain == "assertion_id":
            arguments = (created.id, user_id, SECRET)
        elif plain in ("audience", "estimate_active"):
            arguments = ()
        elif plain in ("activity", "critical_events"):
            arguments, keywords = (), {"tenant_id": SECRET}
        elif plain == "bind_assertion":
            arguments = (f"{created.token}.{SECRET}",)
        elif plain in ("count_active", "get_active_sessions_count", "history"):
            arguments, keywords = (), {"user_id": user_id}
        elif plain == "update_user":
            arguments = (user_id, {"a": SECRET})
        elif plain == "create":
            arguments, keywords = (user_id, {"a": SECRET}), {"ip": IP, "user_agent": USER_AGENT}
        else:
            assert plain in ("list", "invalidate_all"), name
            arguments = (user_id,)
        before = len(exporter.get_finished_spans())
        # An error's span is looked at as well.
        with suppress(Exception):
            if twin:
                result = await getattr(session_service, name)(*arguments, **keywords)
            else:
                result = await in_thread(getattr(session_service, name), arguments, keywords)
            tokens += [t for t in (getattr(result, "token", None),) if t]
        spans = exporter.get_finished_spans()[before:]
        assert spans[-1].name == f"session.{'count_active' if 'sessions_count' in plain else plain}"
        assert "session_service.outcome" in (spans[-1].attributes or {})
    everything = exported(exporter)
    assert len(tokens) > 40
    for token in tokens:
        raw = base64.urlsafe_b64decode(token[4:])
        for text in (token, digest_form(token) or "", raw.hex(), raw[16:].hex()):
            assert not any(part in everything for part in windows(text)), text
        assert str(session_id_of(token)) not in everything
    for text in (user_id, SECRET, IP, USER_AGENT):
        assert text not in everything


async def in_thread(call: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    from asgiref.sync import sync_to_async

    return await sync_to_async(call)(*arguments, **keywords)


def test_nothing_is_wrapped_without_the_api(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "import django\n"
        "django.setup()\n"
        "from session_manager.services import SessionService\n"
        "from session_manager.store.cache import SessionCache\n"
        "for call in (SessionService.get, SessionService.create, SessionCache.read):\n"
        "    assert not hasattr(call, '__wrapped__'), call\n"
        "    assert call.__code__.co_filename.endswith(('services.py', 'cache.py')), call\n"
        "assert SessionService.aget.__wrapped__ is SessionService.get\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": ":".join(sys.path)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
