#!/usr/bin/env python3
"""Take the fenced blocks of one section out of a page of docs/, for tests that walk it as written.

    doc_blocks.py PAGE HEADING               a JSON list of {"language", "file", "text"}
    doc_blocks.py PAGE HEADING --commands    the commands of its sh blocks, one a line

A block whose first line is a comment with nothing but a path in it ("# settings.py",
"// app/layout.tsx") is for that file.  A command may go on after a backslash; what "&&" or ";"
join are commands of their own, a pipeline is one.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

FENCE = re.compile(r"^(`{3,})(\w*)\s*$")
HEADING = re.compile(r"^(#+)\s+(.*?)\s*$")
FILE = re.compile(r"^(?:#|//|--)\s+([\w./\[\]()@-]+\.\w+)\s*$")


@dataclass(frozen=True)
class Block:
    language: str
    file: str | None
    text: str


def blocks(page: str | Path, heading: str) -> list[Block]:
    """The blocks below a heading, up to the next one of its level or above."""
    found: list[Block] = []
    inside = 0
    language, lines, fence = "", [], ""
    for line in Path(page).read_text(encoding="utf-8").splitlines():
        if fence:
            if line.strip() != fence:
                lines.append(line)
                continue
            if inside:
                file = FILE.match(lines[0]) if lines else None
                text = "".join(f"{each}\n" for each in lines)
                found.append(Block(language, file and file[1], text))
            fence = ""
        elif opening := FENCE.match(line):
            fence, language, lines = opening[1], opening[2], []
        elif title := HEADING.match(line):
            level = len(title[1])
            if title[2] == heading:
                inside = level
            elif inside and level <= inside:
                break
    if not inside:
        raise SystemExit(f"{page} has no heading {heading!r}")
    return found


def commands(text: str) -> list[str]:
    """The commands of a shell script that has no control structures."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=False, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in ("&&", "||", ";", "&"):
                if words:
                    found.append(" ".join(words))
                words = []
            else:
                words.append(word)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page")
    parser.add_argument("heading")
    parser.add_argument("--commands", action="store_true")
    options = parser.parse_args()
    found = blocks(options.page, options.heading)
    if options.commands:
        for block in found:
            if block.language == "sh":
                print(*commands(block.text), sep="\n")
    else:
        print(json.dumps([asdict(block) for block in found], indent=1))


if __name__ == "__main__":
    main()
