"""Sides of bench/stores.sh on Django: this extension's service, and other packages' sessions.

    side.py ours|db|cached_db|cache|user_sessions|knox DATA
    side.py users

DATA is a file with a session's data.  Commands and answers are those that compare.py describes.  A
connection is a process, as of a web server's worker.  "users" makes the users.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import django

django.setup()

import psycopg  # noqa: E402
from django.contrib.auth import (  # noqa: E402
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
)
from django.db import connections  # noqa: E402
from django.utils.module_loading import import_string  # noqa: E402

DEVICES = 3  # sessions of a user who signs out everywhere
LOGINS = 2000  # users who log in while it is measured
IP = "192.0.2.1"
USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"

Session = tuple[str, str]  # user, token


class Ours:
    """SessionService, which sends the digest form of a token.

    A side has, of the calls below, all but those that its package cannot carry out; get is None
    without a session.
    """

    def __init__(self) -> None:
        from session_manager.services import session_service

        self.service = session_service

    def create(self, user: str, data: dict[str, Any]) -> str:
        return self.service.create(user, data, ip=IP, user_agent=USER_AGENT).token

    def get(self, token: str) -> tuple[str, dict[str, Any]] | None:
        session = self.service.get(token)
        return (session.user_id, session.data) if session else None

    def refresh(self, token: str) -> None:
        if self.service.refresh(token).status != "extended":
            raise LookupError("no such session")

    def update(self, token: str, patch: dict[str, Any]) -> None:
        if self.service.update(token, patch) is None:
            raise LookupError("no such session")

    def revoke(self, token: str) -> None:
        if not self.service.invalidate(token):
            raise LookupError("no such session")

    def revoke_all(self, user: str) -> int:
        return self.service.invalidate_all(user)


class Engine:
    """A backend of django.contrib.sessions: a change loads and saves the whole session."""

    def __init__(self, engine: str) -> None:
        self.store = import_string(f"{engine}.SessionStore")

    def create(self, user: str, data: dict[str, Any]) -> str:
        store = self._new()
        store.update(data)
        store[SESSION_KEY] = user
        store[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        store[HASH_SESSION_KEY] = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
        store.create()
        key: str = store.session_key
        return key

    def _new(self) -> Any:
        return self.store()

    def _load(self, token: str) -> Any:
        return self.store(session_key=token)

    def get(self, token: str) -> tuple[str, dict[str, Any]] | None:
        data = self._load(token).load()
        return (data[SESSION_KEY], data) if SESSION_KEY in data else None

    def refresh(self, token: str) -> None:
        self.update(token, {})

    def update(self, token: str, patch: dict[str, Any]) -> None:
        store = self._load(token)
        store.update(patch)
        if SESSION_KEY not in store:
            raise LookupError("no such session")
        store.save()

    def revoke(self, token: str) -> None:
        self._load(token).delete()


class UserSessions(Engine):
    """django-user-sessions: the same with the user as a column."""

    def __init__(self) -> None:
        super().__init__("user_sessions.backends.db")

    def _new(self) -> Any:
        return self.store(ip=IP, user_agent=USER_AGENT)

    def _load(self, token: str) -> Any:
        return self.store(session_key=token, ip=IP, user_agent=USER_AGENT)

    def revoke_all(self, user: str) -> int:
        from user_sessions.models import Session

        count: int = Session.objects.filter(user_id=user).delete()[0]
        return count


class Knox:
    """django-rest-knox.  A token has no data to update; a look-up loads the user."""

    def __init__(self) -> None:
        from knox.auth import TokenAuthentication
        from knox.crypto import hash_token
        from knox.models import get_token_model
        from rest_framework.exceptions import AuthenticationFailed

        self.failed = AuthenticationFailed
        self.authentication = TokenAuthentication()
        self.tokens = get_token_model().objects
        self.hash_token = hash_token
        self.user = get_user_model()

    def create(self, user: str, data: dict[str, Any]) -> str:
        token: str = self.tokens.create(self.user(pk=int(user)))[1]
        return token

    def get(self, token: str) -> tuple[str, None] | None:
        try:
            user, _ = self.authentication.authenticate_credentials(token.encode())
        except self.failed:
            return None
        return str(user.pk), None

    def refresh(self, token: str) -> None:
        _, found = self.authentication.authenticate_credentials(token.encode())
        self.authentication.renew_token(found)

    def revoke(self, token: str) -> None:
        if self.tokens.filter(digest=self.hash_token(token)).delete()[0] != 1:
            raise LookupError("no such session")

    def revoke_all(self, user: str) -> int:
        count: int = self.tokens.filter(user_id=user).delete()[0]
        return count


ENGINE = "django.contrib.sessions.backends."
SIDES: dict[str, Callable[[], Any]] = {
    "ours": Ours,
    "db": lambda: Engine(ENGINE + "db"),
    "cached_db": lambda: Engine(ENGINE + "cached_db"),
    "cache": lambda: Engine(ENGINE + "cache"),
    "user_sessions": UserSessions,
    "knox": Knox,
}


def make_users() -> None:
    users = get_user_model()
    users.objects.bulk_create(
        users(username=f"user{n}", password="!")  # noqa: S106
        for n in range(10000)
    )


def user_id(kind: str, number: int) -> str:
    """The users are 1 to 10000: a sessions, b of those who sign out, c checked, d who log in."""
    return str({"a": 1, "b": 4001, "c": 4999, "d": 5001}[kind] + number)


class Worker:
    """A process with a connection of its own."""

    def __init__(self, side: Any, template: str, number: int) -> None:
        self.side = side
        self.template = template
        self.chance = random.Random(number)  # noqa: S311
        self.number = number
        self.connections = 1
        self.sessions: list[Session] = []
        self.extra: list[Session] = []

    def serve(self, pipe: Connection, others: list[Connection]) -> None:
        # Else no worker would see that the process that asks has ended.
        for other in others:
            other.close()
        while True:
            try:
                command, *arguments = pipe.recv()
            except EOFError:
                return
            try:
                answer = getattr(self, command)(*arguments)
            except Exception as error:
                answer = error
            pipe.send(answer)

    def create_many(self, kind: str, numbers: range, each: int) -> list[Session]:
        return [self.create_for(kind, number) for number in numbers for _ in range(each)]

    def create_for(self, kind: str, number: int) -> Session:
        data = json.loads(self.template.replace("00000000", f"{number:08}"))
        user = user_id(kind, number)
        return user, self.side.create(user, data)

    def know(self, sessions: list[Session]) -> None:
        self.sessions = sessions

    def pick(self) -> Session:
        share = len(self.sessions) // self.connections
        return self.sessions[self.number + self.connections * self.chance.randrange(share)]

    def get(self, session: Session | None = None) -> Any:
        user, token = session or self.pick()
        found = self.side.get(token)
        if found is None or found[0] != user:
            raise LookupError(f"{found} in the place of a session of {user}")
        return found[1]

    def create(self) -> Session:
        return self.create_for("d", self.chance.randrange(LOGINS))

    def refresh(self) -> None:
        self.side.refresh(self.pick()[1])

    def mixed(self) -> None:
        """95 % get, 2 % create, 1 % each of refresh, update and revoke."""
        chance = self.chance.randrange(100)
        if chance < 2:
            self.extra.append(self.create())
        elif chance == 3 and hasattr(self.side, "update"):
            self.side.update(self.pick()[1], {"seen": self.chance.randrange(10**7, 9 * 10**7)})
        elif chance in (2, 3):
            self.refresh()
        elif chance == 4 and self.extra:
            self.side.revoke(self.extra.pop()[1])
        else:
            self.get()

    def run(self, operation: str, connections: int, nanoseconds: int) -> tuple[int, int, list[int]]:
        self.connections = connections
        call = getattr(self, operation)
        took = []
        start = begin = time.perf_counter_ns()
        while begin < start + nanoseconds:
            call()
            end = time.perf_counter_ns()
            took.append(end - begin)
            begin = end
        return start, begin, took

    def revoke_all(self, connections: int, users: int) -> tuple[int, int, list[int]]:
        took = []
        start = begin = time.perf_counter_ns()
        for number in range(self.number, users, connections):
            ended = self.side.revoke_all(user_id("b", number))
            if ended != DEVICES:
                raise LookupError(f"{ended} sessions")
            end = time.perf_counter_ns()
            took.append(end - begin)
            begin = end
        return start, begin, took

    def check(self) -> None:
        side = self.side
        made = self.create_many("c", range(1, 2), DEVICES)
        for session in made:
            data = self.get(session)
            assert data is None or data["profile"]["email"] == "user00000001@example.com"
        user, token = made[0]
        side.refresh(token)
        if hasattr(side, "update"):
            side.update(token, {"seen": 12345678})
            data = self.get(made[0])
            assert (data["seen"], data["plan"]) == (12345678, "team"), "an update has not been made"
        side.revoke(token)
        assert side.get(token) is None, "a revocation has not been made"
        self.get(made[1])
        if hasattr(side, "revoke_all"):
            assert side.revoke_all(user) == DEVICES - 1
            assert not any(side.get(token) for _, token in made), "not all have been revoked"


class Workers:
    """The workers, and what compare.py asks for."""

    def __init__(self, name: str, template: str) -> None:
        self.name = name
        self.template = template
        self.pipes: list[Connection] = []
        self.pids = [os.getpid()]
        self.sessions: list[Session] = []
        self.users = 0

    def ask(self, count: int, messages: Callable[[int], tuple[Any, ...]]) -> list[Any]:
        for number, pipe in enumerate(self.pipes[:count]):
            pipe.send(messages(number))
        answers = [pipe.recv() for pipe in self.pipes[:count]]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def connect(self, count: int) -> str:
        context = multiprocessing.get_context("fork")
        while len(self.pipes) < count:
            ours, theirs = context.Pipe()
            worker = Worker(SIDES[self.name](), self.template, len(self.pipes))
            self.pipes.append(ours)
            process = context.Process(
                target=worker.serve, args=(theirs, list(self.pipes)), daemon=True
            )
            process.start()
            theirs.close()
            assert process.pid is not None
            self.pids.append(process.pid)
        self.ask(count, lambda number: ("know", self.sessions))
        return " ".join(map(str, self.pids))

    def load(self, count: int) -> str:
        self.sessions = self._create("a", count, 1)
        self.ask(len(self.pipes), lambda number: ("know", self.sessions))
        return "ok"

    def _create(self, kind: str, count: int, each: int) -> list[Session]:
        workers = min(len(self.pipes), 4)
        made = self.ask(
            workers, lambda number: ("create_many", kind, range(number, count, workers), each)
        )
        return [session for part in made for session in part]

    def check(self) -> str:
        self.ask(1, lambda number: ("check",))
        return "ok"

    def stock(self, users: int) -> str:
        self._create("b", users, DEVICES)
        self.users = users
        return "ok"

    def run(self, operation: str, connections: int, milliseconds: int) -> str:
        if operation == "revoke_all":
            parts = self.ask(connections, lambda number: (operation, connections, self.users))
        else:
            nanoseconds = milliseconds * 1_000_000
            parts = self.ask(
                connections, lambda number: ("run", operation, connections, nanoseconds)
            )
        wall = max(end for _, end, _ in parts) - min(start for start, _, _ in parts)
        return " ".join(
            str(number) for number in [wall, *(n for _, _, took in parts for n in took)]
        )


def serve(name: str, file: Path) -> None:
    if psycopg.pq.__impl__ == "python":
        raise SystemExit("error psycopg has no C implementation here")
    workers = Workers(name, file.read_text().strip())
    connections.close_all()
    for line in sys.stdin:
        command, *arguments = line.split()
        numbers = [int(text) if text.isdigit() else text for text in arguments]
        try:
            print(getattr(workers, command)(*numbers), flush=True)
        except Exception as error:
            print("error", command, repr(error).replace("\n", " "), flush=True)
            return


if __name__ == "__main__":
    if sys.argv[1:] == ["users"]:
        make_users()
    else:
        serve(sys.argv[1], Path(sys.argv[2]))
