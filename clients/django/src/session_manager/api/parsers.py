"""JSON bodies with a limit.

DRF's parser reads a body of any size, and DATA_UPLOAD_MAX_MEMORY_SIZE does not hold for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from ..conf import settings
from .errors import PayloadTooLarge


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class LimitedJSONParser(BaseParser):
    """An object of JSON of at most MAX_BODY_SIZE bytes; an empty body is an empty object."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        body = stream.read(settings.MAX_BODY_SIZE + 1)
        if len(body) > settings.MAX_BODY_SIZE:
            raise PayloadTooLarge
        if not body:
            return {}
        try:
            value = json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise ParseError("The body is not JSON.") from None
        if not isinstance(value, dict):
            raise ParseError("The body is not a JSON object.")
        return value


class MergePatchParser(LimitedJSONParser):
    media_type = "application/merge-patch+json"
