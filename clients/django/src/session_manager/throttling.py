"""Rates of the session endpoints: THROTTLE_RATES, per client address and endpoint.

By the address and not by the user: sign-in has no user yet, and a look-up to find one would touch
the store, which the throttle is to protect.
"""

from __future__ import annotations

import ipaddress

from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from .addresses import client_ip
from .conf import settings


class SessionThrottle(SimpleRateThrottle):
    """The view names its rate in ``throttle_rate``: create, refresh, write or read."""

    scope = "session"

    def __init__(self) -> None:
        # The rate is known when the view is.
        pass

    def allow_request(self, request: Request, view: APIView) -> bool:
        name = view.throttle_name(request)  # type: ignore[attr-defined]
        self.scope = f"session_manager_{name}"
        self.rate = settings.THROTTLE_RATES.get(name)
        if self.rate is None:
            return True
        self.num_requests, self.duration = self.parse_rate(self.rate)
        return bool(super().allow_request(request, view))

    def get_cache_key(self, request: Request, view: APIView) -> str:
        return self.cache_format % {"scope": self.scope, "ident": _client(request)}


def _client(request: Request) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: one customer has as many of those."""
    address = client_ip(request._request)
    if address is None:
        return "unknown"
    if ":" in address:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return address
