"""Tables for people in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from ..local_time import local_time


def cell(value: Any) -> str:
    """A value as one line: terminals obey control characters, and user agents may hold them."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return local_time(value).strftime("%Y-%m-%d %H:%M:%S")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], limit: int = 40) -> str:
    """Columns as wide as they need to be, cells cut to limit characters."""
    lines = [[cell(value) for value in row] for row in rows]
    lines = [[c if len(c) <= limit else c[: limit - 1] + "…" for c in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]

    def draw(cells: Sequence[str]) -> str:
        return "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([draw(headings), rule, *map(draw, lines)])
