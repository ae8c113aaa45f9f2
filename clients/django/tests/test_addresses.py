"""The client's address, with proxies and with clients who pretend."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import RequestFactory

from session_manager.http.addresses import client_ip


@pytest.mark.parametrize(
    ("proxies", "remote", "forwarded", "expected"),
    [
        (0, "203.0.113.7", None, "203.0.113.7"),
        (0, "203.0.113.7", "192.0.2.1", "203.0.113.7"),
        (0, "", None, None),
        (0, "unix:", None, None),
        (0, "2001:db8::1", None, "2001:db8::1"),
        (0, "fe80::1%eth0", None, "fe80::1"),
        (0, "::ffff:203.0.113.7", None, "203.0.113.7"),
        (0, "::FFFF:cb00:7107", None, "203.0.113.7"),
        (0, "::ffff:203.0.113.7%eth0", None, "203.0.113.7"),
        (0, "64:ff9b::203.0.113.7", None, "64:ff9b::cb00:7107"),
        (1, "::ffff:10.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
        (1, "::ffff:10.0.0.1", "[::ffff:203.0.113.7]:4711", "203.0.113.7"),
        (1, "10.0.0.1", "203.0.113.7", "203.0.113.7"),
        (1, "10.0.0.1", "192.0.2.1, 203.0.113.7", "203.0.113.7"),
        (1, "10.0.0.1", "192.0.2.1,198.51.100.1,203.0.113.7", "203.0.113.7"),
        (1, "10.0.0.1", None, "10.0.0.1"),
        (1, "10.0.0.1", "nonsense", "10.0.0.1"),
        (1, "10.0.0.1", "203.0.113.7:4711", "203.0.113.7"),
        (1, "10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
        (1, "", "203.0.113.7", "203.0.113.7"),
        (2, "10.0.0.1", "192.0.2.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        (2, "10.0.0.1", "203.0.113.7", "10.0.0.1"),
    ],
)
def test_client_ip(
    configure: Any, proxies: int, remote: str, forwarded: str | None, expected: str | None
) -> None:
    configure(TRUSTED_PROXIES=proxies)
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    request = RequestFactory().get("/", REMOTE_ADDR=remote, headers=headers)
    assert client_ip(request) == expected
