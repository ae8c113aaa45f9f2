"""Functions that the bundle ``admin`` allows: for commands and operators, not for requests.

with using("admin"):  # an alias of a role that has the bundle
    cleanup()

With SHARDS what concerns a user is done where the user's sessions are, and the rest on each shard:
where one cannot be reached the others have done it, ShardsUnreachable says what is missing, and a
second call does that.  Where the database is a router, the same holds for what ends sessions.
``info``, ``list_keys`` and ``generate_key`` are of one database, which ``using`` names.
"""

from __future__ import annotations

from operator import add
from typing import Any

from .store.aliases import using
from .store.database import call, function, text_argument, utc
from .store.fan_out import each_shard, revoke_everywhere
from .store.shards import bucket_of_user
from .store.transactions import note_change
from .types import Cleanup, Key

__all__ = [
    "change_key",
    "cleanup",
    "erase",
    "export",
    "generate_key",
    "info",
    "invalidate_everything",
    "invalidate_tenant",
    "list_keys",
    "reencrypt",
    "using",
]


def cleanup(batch: int | None = None, max_batches: int | None = None) -> Cleanup:
    """Delete dead sessions and maintain the audit trail, in the current transaction."""

    def clean() -> Cleanup:
        rows = call(
            "SELECT sessions_deleted, sessions_requeued, events_dropped, partitions_created, "
            f"partitions_dropped, events_moved FROM {function('session_cleanup')}(%s, %s)",
            [batch, max_batches],
        )
        return Cleanup(**rows[0])

    done = each_shard(clean, add)
    return sum(done.values(), Cleanup(0, 0, 0, 0, 0, 0))


def invalidate_tenant(tenant_id: str, reason: str = "admin") -> int:
    """End all live sessions of a tenant; how many ended."""
    return _end_on_each_shard(
        "invalidate_tenant", [text_argument(tenant_id), text_argument(reason)]
    )


def invalidate_everything(reason: str = "admin") -> int:
    """End all live sessions of the database; how many ended."""
    return _end_on_each_shard("invalidate_everything", [text_argument(reason)])


def _end_on_each_shard(name: str, params: list[Any]) -> int:
    def end() -> int:
        note_change(None, None)
        return revoke_everywhere(name, params, "sessions")

    return sum(each_shard(end, add).values())


def export(user_id: str, pgp_public_key: str | None = None) -> str:
    """All that is held about a user, as JSON, or as a PGP message to the key."""
    rows = call(
        f"SELECT {function('session_export')}(%s, %s) AS document",
        [text_argument(user_id), pgp_public_key],
        bucket=bucket_of_user(user_id),
    )
    return str(rows[0]["document"])


def erase(user_id: str) -> int:
    """Delete a user's sessions and take the user out of the audit trail; sessions deleted."""
    bucket = bucket_of_user(user_id)
    note_change(None, bucket)
    rows = call(
        f"SELECT {function('session_erase')}(%s) AS n", [text_argument(user_id)], bucket=bucket
    )
    return int(rows[0]["n"])


def info() -> dict[str, str | None]:
    """What is enabled in the database, and why anything is not."""
    rows = call(f"SELECT key, value FROM {function('session_info')}()")
    return {row["key"]: row["value"] for row in rows}


def list_keys() -> list[Key]:
    """The keys and their states; never key material."""
    rows = call(
        "SELECT key_id AS id, state, available, "
        + utc("created_at", "activated_at", "retired_at", "revoked_at")
        + f" FROM {function('session_keys')}() ORDER BY key_id"
    )
    return [Key(**row) for row in rows]


def change_key(action: str, key_id: int) -> None:
    """Carry out ``add``, ``activate``, ``retire`` or ``revoke`` on a key."""
    if action not in ("add", "activate", "retire", "revoke"):
        raise ValueError(f"unknown action {action!r}")

    def change() -> None:
        note_change(None, None)
        if action == "revoke":
            revoke_everywhere("key_revoke", [key_id], "revoked::integer")
        else:
            call(f"SELECT {function(f'session_key_{action}')}(%s)", [key_id])

    each_shard(change)


def reencrypt(batch: int = 500) -> int:
    """Seal up to batch sessions under the active key; 0 when none is left."""

    def seal() -> int:
        return int(call(f"SELECT {function('session_reencrypt')}(%s) AS n", [batch])[0]["n"])

    return sum(each_shard(seal, add).values())


def generate_key() -> int:
    """Make a key in the server's key file; takes a superuser.  Its id."""
    rows = call(f"SELECT {function('session_key_generate')}() AS id")
    return int(rows[0]["id"])
