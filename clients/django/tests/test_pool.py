"""The service on Django's own connection pool, from many threads."""

from __future__ import annotations

import os
import subprocess
import sys

import django
import pytest
from django.db import connection
from django.db.backends.postgresql.psycopg_any import is_psycopg3

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


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(
    not (is_psycopg3 and django.VERSION >= (5, 1)), reason="Django's pool is of 5.1"
)
def test_pool() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={
            **os.environ,
            "SM_TEST_DBNAME": connection.settings_dict["NAME"],
            "SM_TEST_POOL": "10",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr
