"""The service on Django's own connection pool, from many threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import django
import pytest
from django.db import connection
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from .conftest import RedisServer

PROGRAM = """
import django
django.setup()
from concurrent.futures import ThreadPoolExecutor
from django.db import connection, connections
from session_manager.services import session_service

def life(n):
    token = session_service.create(f"pool|{n}", {"n": n}).token
    assert session_service.get(token).data == {"n": n}
    assert session_service.invalidate(token)
    assert session_service.get(token) is None
    connections.close_all()

with ThreadPoolExecutor(8) as pool:
    list(pool.map(life, range(80)))
stats = connection.pool.get_stats()
assert stats["connections_num"] <= 4, stats
assert stats["requests_num"] >= 80, stats
connection.close_pool()
print("done")
"""


# All connections are held by transactions while somebody else asks for the cache's settings.
EXHAUSTED = """
import django
django.setup()
import threading, time
from concurrent.futures import ThreadPoolExecutor
from django.db import connection, connections, transaction
from session_manager.store import cache
from session_manager.services import session_service

cache.DOUBT_SECONDS = 0.2
token = session_service.create("pool").token
connections.close_all()
ready = threading.Barrier(5)

waiting = threading.Event()
read = threading.Barrier(4)

def inside(n):
    with transaction.atomic():
        assert session_service.get(token, touch=False)
        ready.wait(60)
        assert waiting.wait(60)
        assert session_service.get(token, touch=False)
        # None gives its connection back before all have read, whoever waits for one.
        read.wait(60)
    connections.close_all()

def outside():
    ready.wait(60)
    time.sleep(0.3)
    assert session_service.get(token, touch=False)
    connections.close_all()

with ThreadPoolExecutor(5) as pool:
    work = [pool.submit(inside, n) for n in range(4)] + [pool.submit(outside)]
    while not connection.pool.get_stats()["requests_waiting"] and not any(w.done() for w in work):
        time.sleep(0.01)
    # The one that waits holds what asks for the settings, which are due again.
    time.sleep(0.3)
    waiting.set()
    for done in work:
        done.result()
connection.close_pool()
print("done")
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(
    not (is_psycopg3 and django.VERSION >= (5, 1)), reason="Django's pool is of 5.1"
)
@pytest.mark.parametrize("program", [PROGRAM, EXHAUSTED], ids=["lives", "exhausted"])
def test_pool(redis_server: RedisServer, program: str) -> None:
    # No epoch is kept in that database of Redis: its settings are asked for again and again.
    cache = {"REDIS_URL": f"unix://{redis_server.socket}", "REDIS_DB": 2, "CACHE_KEY": "00" * 32}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "SM_TEST_DBNAME": connection.settings_dict["NAME"],
            "SM_TEST_POOL": "30",
            "SM_TEST_SESSION_MANAGER": json.dumps(cache),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr
