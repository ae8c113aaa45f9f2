"""The client's address.

REMOTE_ADDR, unless TRUSTED_PROXIES says how many proxies append to X-Forwarded-For.  Then it is the
entry that the outermost of them has written, counted from the right: what stands to the left of it
came from the client and may be anything.
"""

from __future__ import annotations

import functools
import ipaddress

from django.http import HttpRequest

from .conf import settings


def client_ip(request: HttpRequest) -> str | None:
    """The client's address, or None if the server does not know it (a Unix socket)."""
    direct = _address(request.META.get("REMOTE_ADDR", ""))
    count = settings.TRUSTED_PROXIES
    if count < 1:
        return direct
    hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    if len(hops) < count:
        # The request did not pass all of the proxies: nothing in the header is theirs to say.
        return direct
    return _address(hops[-count]) or direct


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
