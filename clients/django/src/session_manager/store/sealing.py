"""The sealed values of the cache: docs/cache-protocol.md, "The value".

Pure functions of bytes, checked against test/vectors/cache.json.  The key of a value comes from the
token's secret and the application key, so that neither Redis nor PostgreSQL can open it.  That of a
session which is bound to a device also comes from the proof with which it was read.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
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

_TIMES = struct.Struct(">qq")
# Where they are in a value, after its letter and the epoch.
_NONCE = 1 + EPOCH_SIZE
_CIPHERTEXT = _NONCE + NONCE_SIZE
_SHORTEST = _CIPHERTEXT + _TIMES.size + TAG_SIZE


class Opened(NamedTuple):
    """What a value holds; times are microseconds since 1970."""

    cached_at: int
    not_after: int
    row: bytes


def sealing_key(application_key: bytes, token: bytes) -> bytes:
    """The key of a session's value, from the bytes of its token: id, secret, and proof if any."""
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
    plaintext = _TIMES.pack(opened.cached_at, opened.not_after) + opened.row
    plaintext += b" " * (-len(plaintext) % BLOCK)
    nonce = secrets.token_bytes(NONCE_SIZE) if nonce is None else nonce
    ciphertext = crypto_aead_xchacha20poly1305_ietf_encrypt(
        plaintext, associated_data(token[:16], epoch), nonce, sealing_key(application_key, token)
    )
    return b"V" + epoch + nonce + ciphertext


def unseal(application_key: bytes, token: bytes, epoch: bytes, value: bytes) -> Opened | None:
    """What a value holds under the current epoch, or None if it is not to be used."""
    if len(epoch) != EPOCH_SIZE or len(value) < _SHORTEST or not value.startswith(b"V" + epoch):
        return None
    try:
        plaintext = crypto_aead_xchacha20poly1305_ietf_decrypt(
            value[_CIPHERTEXT:],
            associated_data(token[:16], epoch),
            value[_NONCE:_CIPHERTEXT],
            sealing_key(application_key, token),
        )
    except CryptoError:
        return None
    cached_at, not_after = _TIMES.unpack_from(plaintext)
    return Opened(cached_at, not_after, plaintext[_TIMES.size :].rstrip())


def usable(opened: Opened, now: int, max_age: int) -> bool:
    """Whether a value may be used at a time; all in microseconds."""
    return (
        now < opened.not_after
        and now < opened.cached_at + max_age
        and now >= opened.cached_at - 5_000_000
    )
