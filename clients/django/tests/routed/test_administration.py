"""What concerns all shards, through a router: a shard that is down does not go unnoticed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from session_manager.administration import (
    change_key,
    invalidate_everything,
    invalidate_tenant,
    using,
)
from session_manager.exceptions import InvalidArgument, ShardsUnreachable
from session_manager.services import session_service

from ..conftest import ROUTED, ROUTED_DATABASE, Superuser

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "admin"])


@contextmanager
def down(host: str) -> Iterator[None]:
    """A shard that takes no connection."""
    with Superuser(name="postgres", host=host) as superuser:
        allow = f"ALTER DATABASE {ROUTED_DATABASE} ALLOW_CONNECTIONS"
        superuser.execute(f"{allow} false")
        try:
            superuser.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
                [ROUTED_DATABASE],
            )
            yield
        finally:
            superuser.execute(f"{allow} true")


def live_on(host: str, tenant: str) -> int:
    with Superuser(name=ROUTED_DATABASE, host=host) as superuser:
        found = superuser.execute(
            "SELECT count(*) FROM user_sessions WHERE tenant_id = %s AND revoked_at IS NULL",
            [tenant],
        ).fetchone()
    return int(found[0])


@pytest.mark.parametrize("end", [invalidate_tenant, lambda tenant: invalidate_everything()])
def test_sessions_of_all_shards_are_ended(end: Callable[[str], int]) -> None:
    tenant = uuid.uuid4().hex
    for i in range(40):
        session_service.create(f"{tenant}-{i}", tenant_id=tenant)
    before = {host: live_on(host, tenant) for host in ROUTED}
    assert sum(before.values()) == 40
    assert all(before.values())

    with using("admin"), down(ROUTED[1]):
        with pytest.raises(ShardsUnreachable) as raised:
            end(tenant)
        assert (len(raised.value.results), len(raised.value.failed)) == (3, 1)
        assert sum(raised.value.results.values()) >= 40 - before[ROUTED[1]]
    assert {host: live_on(host, tenant) for host in ROUTED} == {
        **dict.fromkeys(ROUTED, 0),
        ROUTED[1]: before[ROUTED[1]],
    }

    # What is missing, at the second call.
    with using("admin"):
        assert end(tenant) == before[ROUTED[1]]
    assert live_on(ROUTED[1], tenant) == 0


def on_each_shard(sql: str) -> list[Any]:
    found = []
    for host in ROUTED:
        with Superuser(name=ROUTED_DATABASE, host=host) as superuser:
            found.append(superuser.execute(sql).fetchone()[0])
    return found


def test_a_key_is_revoked_on_all_shards() -> None:
    (key,) = set(on_each_shard("SELECT session_key_generate()"))
    with using("admin"), down(ROUTED[1]):
        with pytest.raises(ShardsUnreachable) as raised:
            change_key("revoke", key)
        assert list(raised.value.results.values()) == [1, 1, 1]
    state = f"SELECT state FROM session_keys WHERE key_id = {key}"
    assert on_each_shard(state) == ["revoked", "added", "revoked", "revoked"]
    with using("admin"):
        change_key("revoke", key)
    assert on_each_shard(state) == ["revoked"] * 4


def test_what_no_shard_does() -> None:
    """It is asked once: what a second attempt did in part would go unnoticed."""
    with using("admin"), pytest.raises(ShardsUnreachable) as raised:
        change_key("revoke", 99)
    assert (raised.value.results, len(raised.value.failed)) == ({}, 4)


def test_bad_values() -> None:
    with using("admin"), pytest.raises(InvalidArgument):
        invalidate_tenant("acme", reason="x" * 10_000)
