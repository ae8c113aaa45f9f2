"""What Django keeps in ``request.session``, as one member of a session's data.

Each of its keys is a member of that object, and the value a string: what SESSION_SERIALIZER makes
of ``{key: value}``, as it is if that is JSON, else in base64.  A string is replaced as a whole by a
merge patch, so that None and nested dicts mean what they mean to Python, and jsonb changes nothing
in it: neither numbers nor the order of members, and a NUL character is an escape.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from django.core.signing import JSONSerializer

from ..conf import MEMBER
from ..types import JSON

Entries = dict[str, str]

_DICTS = {dict}
_raw_decode = json.JSONDecoder().raw_decode


def parse(text: str) -> Any:
    """The value of JSON without space around it, as json.loads by a third of the calls."""
    value, end = _raw_decode(text)
    if end != len(text):
        raise ValueError("more than one value")
    return value


def take_out(data: JSON) -> tuple[JSON, Entries]:
    """The application's own data, and Django's."""
    entries = data.pop(MEMBER, None)
    return data, entries if isinstance(entries, dict) else {}


def entry_name(key: Any) -> str:
    """The member for a key: its text; no text looks like the name of a key of another type."""
    if isinstance(key, str):
        return json.dumps(key)[1:-1]
    return json.dumps(f"\\~{type(key).__qualname__}:{key!r}")[2:-1]


def encode_entry(serializer: Any, key: Any, value: Any) -> str:
    raw: bytes = serializer.dumps({key: value})
    if raw.startswith(b"{") and raw.isascii() and b"\0" not in raw:
        return raw.decode("ascii")
    return base64.b64encode(raw).decode("ascii")


def decode_entry(serializer: Any, text: Any) -> dict[Any, Any]:
    """``{key: value}``, or nothing if it cannot be read: written by another serializer."""
    try:
        raw = text.encode("ascii") if text.startswith("{") else base64.b64decode(text)
        found = serializer.loads(raw)
    except Exception:  # Whatever a serializer raises, as Django's decode() does.
        return {}
    return found if isinstance(found, dict) else {}


def decode_entries(serializer: Any, entries: Mapping[str, str]) -> list[dict[Any, Any]]:
    """Each of the entries, in their order; an empty one cannot be read."""
    if serializer is JSONSerializer:
        # All by one call, unless one of them cannot be read.
        try:
            text = f"[{','.join(entries.values())}]"
            found: list[Any] = parse(text) if text.isascii() else []
        except Exception:  # As above.
            found = []
        if len(found) == len(entries) and {*map(type, found)} <= _DICTS:
            return found
    loads = serializer()
    return [decode_entry(loads, text) for text in entries.values()]


def entry_value(serializer: Any, entries: Mapping[str, str], key: str) -> Any:
    """The value of a key, or None."""
    text = entries.get(entry_name(key))
    return None if text is None else decode_entry(serializer, text).get(key)
