"""Rates of the session endpoints: THROTTLE_RATES.

A request is counted for whom it costs, once that is certain: reads, writes and refreshes for the
session whose token was right; sign-ins for the subject of a verified access token, and for the
client's address.  What is refused before it is known whose it is ("junk") is counted for the
client's address, and that limit refuses junk alone.  So nobody can use up what another needs, by
sending the id of another's session with a wrong secret either.

Looking at a count needs no such proof.  A session that has used its share up is refused by the id
in its token, before a look-up.

Where the address may be that of many clients (addresses.own_address), nothing is counted for it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import time
from bisect import bisect_right
from typing import Any, cast

from django.core.cache import cache
from django.http import HttpRequest
from rest_framework.exceptions import Throttled
from rest_framework.throttling import SimpleRateThrottle

from ..conf import settings
from ..http.addresses import own_address

logger = logging.getLogger("session_manager")


def parse_rate(rate: str) -> tuple[int, int]:
    """A rate in DRF's notation, such as ``20/min``: requests and seconds."""
    return cast("tuple[int, int]", SimpleRateThrottle.parse_rate(cast(Any, None), rate))


class Limit:
    """One rate for one of those who are counted; none if nobody is named, or the rate is None."""

    def __init__(self, name: str, whom: str | None) -> None:
        rate = settings.THROTTLE_RATES[name]
        self._requests: int | None = None
        if rate is None or whom is None:
            return
        self._requests, self._seconds = parse_rate(rate)
        # A subject may have any length and any characters.
        digest = hashlib.sha256(whom.encode("utf-8", "surrogatepass")).hexdigest()
        self._key = f"session_manager.throttle.{name}.{digest}"

    def check(self) -> None:
        """Raise Throttled (429) if there is nothing left."""
        if self._requests is None:
            return
        now = time.time()
        times = self._times(now)
        if len(times) >= self._requests:
            first = times[-self._requests] if self._requests else now
            raise Throttled(self._seconds - (now - first))

    def count(self) -> None:
        """Count one request."""
        if self._requests is None:
            return
        now = time.time()
        times = [*self._times(now), now]
        try:
            cache.set(self._key, times, self._seconds)
        except Exception:
            logger.warning(
                "Django's cache cannot be written: a request is not counted.", exc_info=True
            )

    def spend(self) -> None:
        """Count one request, or raise Throttled."""
        self.check()
        self.count()

    def _times(self, now: float) -> list[float]:
        """When requests were counted, oldest first; none that a clock set back has overtaken."""
        try:
            times: list[float] = cache.get(self._key, [])
        except Exception:
            # Any backend's.  An outage of the cache is none of the sessions.
            logger.warning("Django's cache cannot be read: nothing is throttled.", exc_info=True)
            return []
        return times[bisect_right(times, now - self._seconds) : bisect_right(times, now)]


def address_limit(name: str, request: HttpRequest) -> Limit:
    """A rate for the client's address, where that is known to be one client's."""
    address = own_address(request)
    if address is None:
        _warn_once()
    return Limit(name, None if address is None else _network(address))


def _network(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: one customer has as many of those."""
    if ":" in address:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return address


_warned = False


def _warn_once() -> None:
    global _warned
    if not _warned and not settings.DEBUG:
        _warned = True
        logger.warning(
            "The addresses of clients are not known: requests come from a proxy, or from "
            "Next.js, without a trustworthy X-Forwarded-For. Nothing is throttled by address, "
            "and devices are listed with the proxy's address. Set SESSION_TRUSTED_PROXIES in "
            'Next.js and SESSION_MANAGER["TRUSTED_PROXIES"] in Django.'
        )
