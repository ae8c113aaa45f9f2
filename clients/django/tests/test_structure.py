"""The rooms of the package: what stands where, and which way imports point.

A room imports from itself and from the rooms after it in ROOMS, and of the public modules those
that PUBLIC allows it.  Imports inside of functions count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import session_manager

ROOT = Path(__file__).parents[3]
PACKAGE = Path(session_manager.__file__).parent
ROOMS = ("api", "http", "store")
#: Every public module, and the rooms that may import it.
PUBLIC = {
    # The vocabulary.
    "conf": ROOMS,
    "exceptions": ROOMS,
    "types": ROOMS,
    # What an application uses, and the endpoints use as an application would.
    "services": ("api", "http"),
    "models": ("http",),
    "api_exceptions": ("api",),
    "auth0": ("api",),
    "authentication": ("api",),
    "login": ("api",),
    "login_policy": ("api",),
    "acting": (),
    "device": (),
    "administration": (),
    "identity": (),
    "links": (),
    "middleware": (),
    "reporting": (),
    "shards": (),
    "shard_checks": (),
    "signals": (),
    "tracing": (),
    "pytest_plugin": (),
    "testing": (),
    "user_changes": (),
    "urls": (),
    "user_agents": (),
    "local_time": (),
    "overview": (),
    # What Django looks for.
    "backends": ("http",),
    "channels": (),
    "admin": (),
    "apps": (),
    "checks": (),
    "standby_checks": (),
    "management": (),
    "migrations": (),
}

Edge = tuple[str, str]


def modules() -> dict[str, Path]:
    """The modules of the package by their names in it."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    del found[""]
    return found


def imported(name: str, path: Path, known: Iterable[str]) -> Iterator[str]:
    """The modules of the package that one of them imports."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            sources = [alias.name.removeprefix("session_manager.") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
            elif (node.module or "").split(".")[0] == "session_manager":
                base = []
            else:
                continue
            module = (node.module or "").removeprefix("session_manager").strip(".")
            source = ".".join(filter(None, [*base, module]))
            sources = [source, *(f"{source}.{alias.name}".strip(".") for alias in node.names)]
        else:
            continue
        yield from (source for source in sources if source in known)


def edges() -> list[Edge]:
    known = modules()
    return [
        (name, source)
        for name, path in known.items()
        for source in imported(name, path, known)
        # "from .database import call" in store imports nothing more of the room.
        if source not in ROOMS
    ]


def violations(found: Iterable[Edge]) -> list[Edge]:
    """The imports that point the wrong way."""

    def allowed(name: str, source: str) -> bool:
        room, of = name.split(".")[0], source.split(".")[0]
        if room not in ROOMS or room == of:
            return True
        return ROOMS.index(room) < ROOMS.index(of) if of in ROOMS else room in PUBLIC[of]

    return [edge for edge in found if not allowed(*edge)]


def test_imports_point_one_way() -> None:
    found = edges()
    assert ("http.lookup", "store.transactions") in found
    # Inside of a function.
    assert ("http.lookup", "http.importing") in found
    assert violations(found) == []


@pytest.mark.parametrize(
    "edge",
    [
        ("store.tokens", "http.cookies"),
        ("store.cache", "services"),
        ("http.lookup", "api.errors"),
        ("http.csrf", "middleware"),
        ("api.views", "admin"),
    ],
)
def test_an_import_against_it_is_found(edge: Edge) -> None:
    assert violations([*edges(), edge]) == [edge]


def test_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for name, source in edges():
        graph.setdefault(name, set()).add(source)
    TopologicalSorter(graph).prepare()
    graph["store.database"].add("store.cache")
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()


def test_every_module_has_its_place() -> None:
    top = {name.split(".")[0] for name in modules()}
    assert top == {*PUBLIC, *ROOMS}


def test_only_transactions_touches_djangos_hooks() -> None:
    hooks = re.compile(
        r"\b(run_on_commit|atomic_blocks|commit_on_exit|in_atomic_block|_from_testcase)\b"
    )
    assert [name for name, path in modules().items() if hooks.search(path.read_text())] == [
        "store.transactions"
    ]


def test_names_say_what_is_done() -> None:
    """None of these as a whole name: a backtrace must be readable."""
    vague = {"about", "ask", "begin", "decide", "fact", "note", "put", "request"}
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [
        (name, node.name)
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, definitions) and node.name.strip("_").lower() in vague
    ]
    assert found == []


def test_the_pages_name_public_modules_alone() -> None:
    pages = [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "clients/django/README.md"]
    named = re.compile(r"\bsession_manager\.(api|http|store)\b")
    assert [page.name for page in pages if named.search(page.read_text())] == []
