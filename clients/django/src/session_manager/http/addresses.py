"""The client's address.

REMOTE_ADDR, unless TRUSTED_PROXIES says how many proxies append to X-Forwarded-For.  Then it is the
entry that the outermost of them has written, counted from the right: what stands to the left of it
came from the client and may be anything.
"""

from __future__ import annotations

import functools
import ipaddress

from django.http import HttpRequest

from ..conf import settings

# Addresses that many clients may have in common: those of proxies and containers beside us.
_SHARED = tuple(
    map(
        ipaddress.ip_network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)


def client_ip(request: HttpRequest) -> str | None:
    """The client's address, or None if the server does not know it (a Unix socket)."""
    if settings.TRUSTED_PROXIES > 0:
        # A request that did not pass all of the proxies has nothing of theirs in the header.
        return _forwarded(request) or _direct(request)
    return _direct(request)


def own_address(request: HttpRequest) -> str | None:
    """The client's address if it is known to be that client's, and not one that many share.

    With TRUSTED_PROXIES it is what they have written.  Where they wrote nothing (Next.js does not,
    unless it knows), whoever could send such a request could write any address as well.  Without
    TRUSTED_PROXIES it is REMOTE_ADDR, which nobody can forge, unless that is loopback or private:
    then a proxy may stand there for everybody.
    """
    if settings.TRUSTED_PROXIES > 0:
        return _forwarded(request)
    address = _direct(request)
    return None if address is None or _shared(address) else address


def _direct(request: HttpRequest) -> str | None:
    return _address(request.META.get("REMOTE_ADDR", ""))


def _forwarded(request: HttpRequest) -> str | None:
    """What the outermost of the trusted proxies has written, or None."""
    count = settings.TRUSTED_PROXIES
    hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    return _address(hops[-count]) if 0 < count <= len(hops) else None


@functools.lru_cache(maxsize=1024)
def _shared(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in _SHARED)


@functools.lru_cache(maxsize=1024)
def _address(text: str) -> str | None:
    """An address without brackets, port or zone, in its canonical form.

    A socket of both families tells an IPv4 address mapped into IPv6: that is the IPv4 address.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def user_agent(request: HttpRequest) -> str | None:
    """The User-Agent header, or None."""
    return request.META.get("HTTP_USER_AGENT") or None
