"""The sides of bench/stores.sh, and who meets whom."""

from __future__ import annotations

from typing import NamedTuple

OPERATIONS = ("get", "create", "refresh", "revoke_all", "mixed")
WRITES = ("create", "refresh", "revoke_all", "mixed")


class Side(NamedTuple):
    title: str
    #: The program: native, node or django.  Sides of one program are compared with each other.
    runtime: str
    #: Its first argument, and the further ones, in which {…} stand for what stores.sh has started.
    name: str
    arguments: tuple[str, ...] = ()
    #: Servers that work for it: postgres, everysec, always.
    servers: tuple[str, ...] = ("postgres",)
    #: On the page: what is flushed when a call returns; what a copy of the store shows; revoking.
    durable: str = "yes"
    sealed: str = "no: data can be read, a token in it works"
    revokes_all: str = ""


_CONNINFO = "host={postgres} dbname=app user=web"
_OURS = {
    "sealed": "yes: no token in it works, data are sealed",
    "revokes_all": "one call; a login is before or after it",
}
_REDIS = {
    "sealed": "yes: hashes of tokens, sealed values; the user's id in the name of a set",
    "revokes_all": "a set of each user's keys, one script; a login is before or after it",
}
_SIGNED = "no: data can be read; a cookie with a token in it needs the application's secret too"
_NO_INDEX = "not measured: no look-up by user, every session would have to be decoded"

SIDES = {
    "native": Side("session_manager, libpq", "native", "ours", (_CONNINFO,), **_OURS),
    "native_off": Side(
        "session_manager, libpq, synchronous_commit off",
        "native",
        "ours",
        (_CONNINFO + " options='-c synchronous_commit=off'",),
        durable="revocations yes; others within 0.6 s",
        **_OURS,
    ),
    "everysec": Side(
        "Redis alone, appendfsync everysec",
        "native",
        "redis",
        ("{everysec}",),
        servers=("everysec",),
        durable="within 1 to 2 s, revocations too",
        **_REDIS,
    ),
    "always": Side(
        "Redis alone, appendfsync always",
        "native",
        "redis",
        ("{always}",),
        servers=("always",),
        **_REDIS,
    ),
    "node": Side("session_manager, node-postgres", "node", "ours", **_OURS),
    "connect-pg-simple": Side(
        "connect-pg-simple",
        "node",
        "connect-pg-simple",
        sealed=_SIGNED,
        revokes_all="not in the package: an index on the user in its JSON, one DELETE",
    ),
    "better-auth": Side(
        "better-auth, its store",
        "node",
        "better-auth",
        sealed=_SIGNED,
        revokes_all="deleteUserSessions",
    ),
    "django": Side("session_manager, Django", "django", "ours", **_OURS),
    "db": Side("django.contrib.sessions, db", "django", "db", revokes_all=_NO_INDEX),
    "cached_db": Side(
        "django.contrib.sessions, cached_db",
        "django",
        "cached_db",
        servers=("postgres", "everysec"),
        revokes_all=_NO_INDEX,
    ),
    "cache": Side(
        "django.contrib.sessions, cache",
        "django",
        "cache",
        servers=("everysec",),
        durable="within 1 to 2 s",
        revokes_all=_NO_INDEX,
    ),
    "user_sessions": Side(
        "django-user-sessions", "django", "user_sessions", revokes_all="one DELETE by the user"
    ),
    "knox": Side(
        "django-rest-knox",
        "django",
        "knox",
        sealed="hashes of tokens; there are no data",
        revokes_all="one DELETE by the user",
    ),
}


class Comparison(NamedTuple):
    ours: str
    peer: str
    operations: tuple[str, ...] = OPERATIONS


# Of one durability, as far as a peer has it: a revocation by this extension is always flushed.
_NOT_BY_USER = ("get", "create", "refresh", "mixed")
COMPARISONS = (
    Comparison("native", "everysec", ("get",)),
    Comparison("native_off", "everysec", WRITES),
    Comparison("native", "always", WRITES),
    Comparison("node", "connect-pg-simple"),
    Comparison("node", "better-auth"),
    Comparison("django", "db", _NOT_BY_USER),
    Comparison("django", "cached_db", _NOT_BY_USER),
    Comparison("django", "cache", _NOT_BY_USER),
    Comparison("django", "user_sessions"),
    Comparison("django", "knox"),
)


def sides_of(runtime: str, operation: str) -> list[str]:
    """The sides that are measured, in the order of SIDES."""
    wanted = {
        side
        for comparison in COMPARISONS
        if operation in comparison.operations
        for side in comparison[:2]
    }
    return [name for name, side in SIDES.items() if side.runtime == runtime and name in wanted]
