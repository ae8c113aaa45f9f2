#!/usr/bin/env python3
"""Check META.json against version 1.0.0 of the PGXN Meta Spec, and the files that it names.

    check_meta.py [--release] META.json

--release also asks for what the project's own first release must have: where the source and the
list of bugs are, and an address of the maintainer.  A line for each finding is printed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: As the specification spells it.
LICENSE = "postgresql"
REQUIRED = ("name", "version", "abstract", "maintainer", "license", "provides", "meta-spec")
OPTIONAL = (
    *("description", "generated_by", "tags", "no_index"),
    *("prereqs", "resources", "release_status"),
)
EXTENSION = ("file", "version", "abstract", "docfile")
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-?[A-Za-z][0-9A-Za-z-]*)?")
TERM = re.compile(r"[^\s\x00-\x1f/\\]{2,}")
TAG = re.compile(r"[^\x00-\x1f/\\]{1,256}")
PHASES = {"configure", "build", "test", "runtime", "develop"}
RELATIONS = {"requires", "recommends", "suggests", "conflicts"}


def is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def is_version(value: Any) -> bool:
    return isinstance(value, str) and SEMVER.fullmatch(value) is not None


def is_url(value: Any) -> bool:
    return isinstance(value, str) and all(urlsplit(value)[:2])


def is_address(value: Any) -> bool:
    return isinstance(value, str) and re.search(r"[^\s@<]+@[^\s@>]+", value) is not None


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def unknown(what: str, given: dict[str, Any], known: tuple[str, ...]) -> Iterator[str]:
    for key in given:
        if key not in known and not key.lower().startswith("x_"):
            yield f"{what} has an unknown key {key}"


def check_provides(provides: Any, root: Path) -> Iterator[str]:
    if not isinstance(provides, dict) or not provides:
        yield "provides names no extension"
        return
    for name, extension in provides.items():
        if not TERM.fullmatch(name):
            yield f"provides: {name!r} is not a name"
        yield from unknown(f"provides: {name}", extension, EXTENSION)
        if not is_version(extension.get("version")):
            yield f"provides: {name} has no semantic version"
        for key in ("file", "docfile"):
            file = extension.get(key)
            if (key == "file" or file is not None) and not (file and (root / file).is_file()):
                yield f"provides: the {key} of {name} is not there: {file}"


def check_prereqs(prereqs: Any) -> Iterator[str]:
    for phase, relations in prereqs.items():
        if phase not in PHASES:
            yield f"prereqs: no phase {phase}"
        for relation, names in relations.items():
            if relation not in RELATIONS:
                yield f"prereqs: no relation {relation}"
            for name, version in names.items():
                for each in str(version).split(","):
                    number = re.sub(r"^\s*(<=|>=|==|!=|<|>)?\s*", "", each).strip()
                    if number != "0" and not is_version(number):
                        yield f"prereqs: the version of {name} is not semantic: {version}"


def check_resources(resources: Any) -> Iterator[str]:
    yield from unknown("resources", resources, ("homepage", "license", "bugtracker", "repository"))
    tracker, repository = resources.get("bugtracker", {}), resources.get("repository", {})
    urls = [resources[key] for key in ("homepage",) if key in resources]
    urls += as_list(resources.get("license", []))
    urls += [part[key] for part in (tracker, repository) for key in ("web", "url") if key in part]
    yield from (f"resources: {url!r} is not a URL" for url in urls if not is_url(url))
    if "mailto" in tracker and not is_address(tracker["mailto"]):
        yield "resources: bugtracker.mailto is not an address"
    if "url" in repository and not is_text(repository.get("type")):
        yield "resources: repository has no type"


def check(meta: Any, root: Path) -> Iterator[str]:
    if not isinstance(meta, dict):
        yield "it is not an object"
        return
    yield from (f"there is no {key}" for key in REQUIRED if not meta.get(key))
    yield from unknown("it", meta, REQUIRED + OPTIONAL)
    for key in ("abstract", "description", "generated_by"):
        if key in meta and not is_text(meta[key]):
            yield f"{key} is not text"
    if not TERM.fullmatch(str(meta.get("name", ""))):
        yield "name is not a name"
    if not is_version(meta.get("version")):
        yield f"version is not semantic: {meta.get('version')}"
    if not all(is_text(each) for each in as_list(meta.get("maintainer"))):
        yield "maintainer is not text, or a list of texts"
    if meta.get("license") != LICENSE:
        yield f"license is not {LICENSE}"
    if meta.get("release_status", "stable") not in ("stable", "testing", "unstable"):
        yield "release_status is not stable, testing or unstable"
    for tag in meta.get("tags", []):
        if not TAG.fullmatch(str(tag)):
            yield f"tags: {tag!r} is not a tag"
    spec = meta.get("meta-spec") or {}
    if spec.get("version") != "1.0.0" or ("url" in spec and not is_url(spec["url"])):
        yield "meta-spec is not that of version 1.0.0"
    yield from check_provides(meta.get("provides"), root)
    yield from check_prereqs(meta.get("prereqs", {}))
    yield from check_resources(meta.get("resources", {}))


def check_release(meta: dict[str, Any]) -> Iterator[str]:
    resources = meta.get("resources", {})
    if not all(is_address(each) for each in as_list(meta.get("maintainer"))):
        yield 'maintainer has no address: "NAME <ADDRESS>"'
    if not is_url(resources.get("repository", {}).get("url")):
        yield "resources.repository.url is missing: where the source is"
    tracker = resources.get("bugtracker", {})
    if not (is_url(tracker.get("web")) or is_address(tracker.get("mailto"))):
        yield "resources.bugtracker is missing: where bugs are reported"
    if meta.get("release_status") != "stable":
        yield "release_status is not stable"


def main() -> None:
    arguments = sys.argv[1:]
    release = arguments[:1] == ["--release"]
    (file,) = map(Path, arguments[release:])
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        found = list(check(meta, file.parent))
        if release:
            found += check_release(meta)
    except (ValueError, AttributeError, TypeError) as error:
        found = [f"it cannot be read: {error}"]
    for each in found:
        print(f"{file.name}: {each}")
    sys.exit(bool(found))


main()
