"""A primary and a streaming standby of a test's own, to be stopped, frozen and promoted.

scripts/check-django.sh says where the programs are, who runs them, and where there is room.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.db import ConnectionHandler

from session_manager.management.grants import grant_statements

from .conftest import wait_for

CONFIGURATION = """
listen_addresses = ''
timezone = 'UTC'
fsync = off
shared_buffers = 16MB
max_connections = 60
wal_retrieve_retry_interval = 200ms
# On a busy machine replay must not cancel what a test asks.
max_standby_streaming_delay = -1
shared_preload_libraries = 'session_manager'
session_manager.flush_interval = 1s
session_manager.redis_socket = '{directory}/redis'
session_manager.key_file = '{directory}/keys'
"""


class Server:
    """A cluster in a directory of its own, which has its socket as well."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._owner = shlex.split(os.environ.get("SM_TEST_PG_OWNER", ""))
        self._run("mkdir", "-m", "700", str(directory))

    def _run(self, *command: str) -> None:
        subprocess.run([*self._owner, *command], check=True, stdout=subprocess.DEVNULL)

    def program(self, name: str, *arguments: str) -> None:
        self._run(str(Path(os.environ["SM_TEST_PG_BINDIR"]) / name), *arguments)

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def configure(self, text: str) -> None:
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"{text}\nunix_socket_directories = '{self.directory}'\n")

    def control(self, *action: str) -> None:
        log = self.directory / "log"
        try:
            self.program("pg_ctl", "-D", str(self.data), "-l", str(log), "-s", "-w", *action)
        except subprocess.CalledProcessError as error:
            raise AssertionError(log.read_text()[-2000:]) from error

    def start(self) -> None:
        self.control("start")

    def stop(self, mode: str = "fast") -> None:
        self.control("stop", "-m", mode)

    def kill(self) -> None:
        """End it as a failure of its machine does."""
        killed = self.processes()
        for process in killed:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        # One that has ended and that nobody has waited for yet has no directory.
        wait_for(lambda: not any(Path("/proc", str(pid), "cwd").exists() for pid in killed))
        # They name a process that nobody may have waited for.
        (self.data / "postmaster.pid").unlink()
        (self.directory / ".s.PGSQL.5432.lock").unlink()

    @property
    def runs(self) -> bool:
        return (self.data / "postmaster.pid").exists()

    def processes(self) -> list[int]:
        """The postmaster, and all that it has started."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        found = [postmaster]
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                # After the name in parentheses: the state, and the parent.
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == postmaster:
                found.append(int(stat.parent.name))
        return found

    @contextmanager
    def frozen(self) -> Iterator[None]:
        stopped = self.processes()
        for process in stopped:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in stopped:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    def query(self, sql: str, params: Any = None, *, name: str = "app") -> list[tuple[Any, ...]]:
        """As the superuser, over a connection for this alone."""
        config = {**django_settings.PG_SUPERUSER, "HOST": str(self.directory), "NAME": name}
        connection = ConnectionHandler({"default": config})["default"]
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, params)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def set(self, **settings: str) -> None:
        """Let settings of the server's be others; they hold once sessions have seen them."""
        for name, value in settings.items():
            self.query(f"ALTER SYSTEM SET {name.replace('__', '.')} = '{value}'")
        self.query("SELECT pg_reload_conf()")
        for name, value in settings.items():
            wait_for(partial(self._shows, name.replace("__", "."), value))

    def _shows(self, name: str, value: str) -> bool:
        # A setting of the extension's is known once one of its functions has been called.
        found = self.query(
            "SELECT current_setting(CASE WHEN session_bucket('') >= 0 THEN %s END)", (name,)
        )
        return found == [(value,)]


class Pair:
    """The two servers, with a database ``app`` of the role ``webapp`` that has the extension."""

    def __init__(self) -> None:
        self._room = tempfile.mkdtemp(prefix="pair.", dir=os.environ["SM_TEST_PG_ROOM"])
        os.chmod(self._room, 0o777)
        self.directory = Path(self._room)
        self.primary = Server(self.directory / "primary")
        self.standby = Server(self.directory / "standby")
        try:
            self._start()
        except BaseException:
            self.end()
            raise

    def _start(self) -> None:
        primary, standby = self.primary, self.standby
        primary.program(
            "initdb", "-D", str(primary.data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip
        primary.configure(CONFIGURATION.format(directory=self.directory))
        primary.start()
        primary.query("CREATE ROLE webapp LOGIN", name="postgres")
        primary.query("CREATE DATABASE app OWNER webapp", name="postgres")
        primary.query("CREATE EXTENSION session_manager CASCADE")
        for statement in grant_statements("webapp"):
            primary.query(statement)
        primary.query("SELECT session_key_generate()")
        standby.program(
            "pg_basebackup", "-D", str(standby.data), "-R", "-c", "fast", "--no-sync",
            "-d", f"host={primary.directory} user=postgres application_name=standby",
        )  # fmt: skip
        standby.configure("")
        standby.start()
        wait_for(self.is_caught_up, 30)

    def is_caught_up(self) -> bool:
        (end,) = self.primary.query("SELECT pg_current_wal_lsn()")
        return self.standby.query("SELECT pg_last_wal_replay_lsn() >= %s", end) == [(True,)]

    def catch_up(self) -> None:
        wait_for(self.is_caught_up, 30)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The standby receives, and replays nothing."""
        self.standby.query("SELECT pg_wal_replay_pause()")
        state = "SELECT pg_get_wal_replay_pause_state()"
        wait_for(lambda: self.standby.query(state) == [("paused",)])
        try:
            yield
        finally:
            self.standby.query("SELECT pg_wal_replay_resume()")

    def end(self) -> None:
        for server in (self.standby, self.primary):
            if server.runs:
                server.stop("immediate")
        shutil.rmtree(self._room)
