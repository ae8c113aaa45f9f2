"""The sealed values of the cache: docs/cache-protocol.md, "The value".

Pure functions of bytes, checked against test/vectors/cache.json.  The key of a value comes from the
token's secret and the application key, so that neither Redis nor PostgreSQL can open it.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

CONTEXT = b"session_manager cache v1"
EPOCH_SIZE = 32
NONCE_SIZE = 24
TAG_SIZE = 16
BLOCK = 256


class Opened(NamedTuple):
    """What a value holds; times are microseconds since 1970."""

    cached_at: int
    not_after: int
    row: bytes


def sealing_key(application_key: bytes, token: bytes) -> bytes:
    """The key of a session's value, from the 48 bytes of its token (id and secret)."""
    return hashlib.blake2b(CONTEXT + token, key=application_key, digest_size=32).digest()


def associated_data(session_id: bytes, epoch: bytes) -> bytes:
    return CONTEXT + session_id + epoch


def seal(
    application_key: bytes,
    token: bytes,
    epoch: bytes,
    opened: Opened,
    nonce: bytes | None = None,
) -> bytes:
    """A value for Redis.  nonce is for test vectors; never use one twice."""
    plaintext = (
        opened.cached_at.to_bytes(8, "big", signed=True)
        + opened.not_after.to_bytes(8, "big", signed=True)
        + opened.row
    )
    plaintext += b" " * (-len(plaintext) % BLOCK)
    nonce = secrets.token_bytes(NONCE_SIZE) if nonce is None else nonce
    ciphertext = crypto_aead_xchacha20poly1305_ietf_encrypt(
        plaintext, associated_data(token[:16], epoch), nonce, sealing_key(application_key, token)
    )
    return b"V" + epoch + nonce + ciphertext


def unseal(application_key: bytes, token: bytes, epoch: bytes, value: bytes) -> Opened | None:
    """What a value holds under the current epoch, or None if it is not to be used."""
    head = 1 + EPOCH_SIZE
    if len(epoch) != EPOCH_SIZE or len(value) < head + NONCE_SIZE + TAG_SIZE + 16:
        return None
    if value[:1] != b"V" or value[1:head] != epoch:
        return None
    try:
        plaintext = crypto_aead_xchacha20poly1305_ietf_decrypt(
            value[head + NONCE_SIZE :],
            associated_data(token[:16], epoch),
            value[head : head + NONCE_SIZE],
            sealing_key(application_key, token),
        )
    except CryptoError:
        return None
    return Opened(
        int.from_bytes(plaintext[:8], "big", signed=True),
        int.from_bytes(plaintext[8:16], "big", signed=True),
        plaintext[16:].rstrip(),
    )


def usable(opened: Opened, now: int, max_age: int) -> bool:
    """Whether a value may be used at a time; all in microseconds."""
    return (
        now < opened.not_after
        and now < opened.cached_at + max_age
        and now >= opened.cached_at - 5_000_000
    )
