"""Reads lists of tests that cannot hold, and why, such as those of the peers for this engine."""

from __future__ import annotations

import re
from pathlib import Path

Version = tuple[int, ...]


#: Of the peers.
LIST = Path(__file__).with_suffix(".txt")


def cannot_apply(version: Version, path: Path = LIST) -> dict[str, str]:
    """The tests of a list for a version of the peer, with the reasons."""
    found: dict[str, str] = {}
    name = None
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace():
            if name is not None:
                found[name] = f"{found[name]} {line.strip()}".strip()
            continue
        name, _, since = line.partition(" since ")
        if since and tuple(map(int, re.findall(r"\d+", since))) > version:
            name = None
        else:
            found[name] = ""
    unexplained = [name for name, reason in found.items() if not reason]
    if unexplained:
        raise ValueError(f"{path.name} gives no reason for {', '.join(unexplained)}")
    return found
