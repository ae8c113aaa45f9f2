#!/usr/bin/env python3
"""Check a site that has been built: links lead somewhere, and nothing is fetched from elsewhere.

scripts/check_site.py DIRECTORY

Links to other sites are not followed.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# what a browser loads of its own accord
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "audio": "src",
    "video": "src",
}
LOADED_LINKS = {
    "stylesheet",
    "icon",
    "shortcut icon",
    "preload",
    "prefetch",
    "preconnect",
    "modulepreload",
}


class Page(HTMLParser):
    """The anchors of a page, where it leads, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag in LOADED and LOADED[tag] in values:
            self.loaded.append(values[LOADED[tag]])
        elif tag == "link" and values.get("rel") in LOADED_LINKS:
            self.loaded.append(values["href"])
        elif "href" in values and tag != "link":
            self.links.append(values["href"])


def is_elsewhere(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https")


def main(site: Path) -> int:
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    wrong: list[str] = []
    links = 0
    for path, page in pages.items():
        here = path.relative_to(site.resolve())
        wrong += [f"{here}: loads {address}" for address in page.loaded if is_elsewhere(address)]
        for address in page.links + page.loaded:
            if is_elsewhere(address) or urlsplit(address).scheme:
                continue
            links += 1
            parts = urlsplit(address)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file():
                wrong.append(f"{here}: there is no {address}")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                wrong.append(f"{here}: there is no anchor {address}")
    for path in sorted(site.rglob("*.css")):
        for address in re.findall(
            r"(?:url\(|@import)\s*[\"']?(?:https?:)?(//[^\"')\s]+)",
            path.read_text(encoding="utf-8"),
        ):
            wrong.append(f"{path.relative_to(site)}: loads {address}")
    for line in wrong:
        print(line)
    print(f"docs: {len(pages)} pages, {links} links within the site, {len(wrong)} wrong")
    return 1 if wrong or links == 0 else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
