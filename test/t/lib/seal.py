#!/usr/bin/env python3
"""Seal what the extension never would, as somebody could who has the key.

seal.py KEY INSTALLATION KEY_ID VERSION CREATED AUTHENTICATED SESSION ABSOLUTE USER

KEY is the master key in hex, times are PostgreSQL's microseconds, the session
has no tenant.  Prints "name hex" for each envelope: some that are sound, those
with one thing wrong, and many with random changes, always the same.
"""

import ctypes
import ctypes.util
import os
import random
import struct
import sys

sodium = ctypes.CDLL(ctypes.util.find_library("sodium") or "libsodium.so.23")
assert sodium.sodium_init() >= 0


def subkey(master: bytes, installation: bytes) -> bytes:
    message = b"session_manager" + installation
    database = ctypes.create_string_buffer(32)
    assert sodium.crypto_generichash(
        database, ctypes.c_size_t(32), message, ctypes.c_ulonglong(len(message)), master, ctypes.c_size_t(32)
    ) == 0
    out = ctypes.create_string_buffer(32)
    assert sodium.crypto_kdf_derive_from_key(
        out, ctypes.c_size_t(32), ctypes.c_uint64(1), b"sm_seal_", database.raw
    ) == 0
    return out.raw


def seal(key: bytes, ad: bytes, plain: bytes, flags: int) -> bytes:
    plain += b"\x80"
    plain += b"\0" * (-len(plain) % 64)
    nonce = os.urandom(24)
    out = ctypes.create_string_buffer(len(plain) + 16)
    assert sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(
        out, None, plain, ctypes.c_ulonglong(len(plain)), ad, ctypes.c_ulonglong(len(ad)), None, nonce, key
    ) == 0
    return bytes([1, flags]) + nonce + out.raw


# jsonb, as src/include/utils/jsonb.h has it
STRING, NUMERIC, FALSE, TRUE, NULL, CONTAINER = (kind << 28 for kind in range(6))
OBJECT, ARRAY = 0x20000000, 0x40000000


def u32(value: int) -> bytes:
    return struct.pack("=I", value)


def container(kind: int, count: int, children: list[tuple[int, bytes]]) -> bytes:
    entries = b"".join(u32(t | len(data)) for t, data in children)
    return u32(kind | count) + entries + b"".join(data for _, data in children)


def envelope(data: bytes, auth: bytes = b"") -> bytes:
    out = u32(len(data)) + data
    out += b"\0" * (-len(out) % 4)
    return out + u32(len(auth)) + auth


def with_device(inside: bytes, key: bytes) -> bytes:
    return inside + b"\0" * (-len(inside) % 4) + u32(len(key)) + key


def main() -> None:
    master, installation = bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2].replace("-", ""))
    key_id, version, created, authenticated = map(int, sys.argv[3:7])
    session, absolute, user = bytes.fromhex(sys.argv[7].replace("-", "")), int(sys.argv[8]), sys.argv[9].encode()
    key = subkey(master, installation)

    def emit(name: str, plain: bytes, flags: int = 0) -> None:
        ad = struct.pack(">BBIIqq", 1, flags, key_id, version, created, authenticated)
        ad += session + struct.pack(">qI", absolute, len(user)) + user + u32(0xFFFFFFFF)
        # the id of the binding, of which the session has none
        ad += bytes(16) if flags & 2 else b""
        print(name, seal(key, ad, plain, flags).hex())

    number = u32(8 << 2) + struct.pack("=Hh", 0x8000, 42)
    aligned = container(OBJECT, 1, [(STRING, b"abcd"), (NUMERIC, number)])
    inner = container(ARRAY, 2, [(NUMERIC, number), (STRING, b"x" * 30)])
    nested = container(OBJECT, 1, [(STRING, b"list"), (CONTAINER, inner)])
    empty = container(OBJECT, 0, [])

    emit("sound_empty", envelope(empty))
    emit("sound_number", envelope(aligned, empty))
    emit("sound_nested", envelope(nested, aligned))
    # flag 2: the key of a device is the third value
    for name, key_value in ("empty", empty), ("nested", nested), ("number", aligned):
        emit("sound_device_" + name, with_device(envelope(nested, aligned), key_value), 2)
    emit("sound_device_without_auth", with_device(envelope(aligned), nested), 2)
    emit("device_missing", envelope(nested, aligned), 2)
    emit("device_not_told", with_device(envelope(nested, aligned), nested))
    emit("device_none", with_device(envelope(nested), b""), 2)
    emit("device_length", with_device(envelope(nested), nested)[:-len(nested) - 4] + u32(0xFFFFFFF0) + nested, 2)
    emit("device_length_less", with_device(envelope(nested), nested)[:-len(nested) - 4] + u32(4) + nested, 2)
    emit("device_array", with_device(envelope(nested), container(ARRAY, 0, [])), 2)
    emit("device_count", with_device(envelope(nested), u32(OBJECT | 1000)), 2)
    emit("device_trailing", with_device(envelope(nested), nested) + b"\0\0\0\0", 2)

    def entry(children: list[tuple[int, bytes]], n: int, value: int) -> bytes:
        raw = bytearray(container(OBJECT, len(children) // 2, children))
        raw[4 + 4 * n:8 + 4 * n] = u32(value)
        return bytes(raw)

    pair = [(STRING, b"abcd"), (NUMERIC, number)]
    emit("nothing", b"")
    emit("short", b"\0\0")
    emit("data_length", u32(0xFFFFFFF0) + empty)
    emit("data_length_some", u32(64) + empty + u32(0))
    emit("data_length_wraps", u32(0xFFFFFFFC) + empty + u32(0))
    emit("data_none", u32(0) + u32(0))
    emit("auth_length", envelope(empty)[:-4] + u32(0xFFFFFFF0))
    emit("auth_length_more", envelope(empty)[:-4] + u32(4))
    emit("auth_missing", u32(4) + empty)
    emit("trailing", envelope(empty, empty) + b"\0\0\0\0")
    emit("count", envelope(u32(OBJECT | 0x0FFFFFFF)))
    emit("count_some", envelope(u32(OBJECT | 1000)))
    emit("count_auth", envelope(empty, u32(OBJECT | 1000)))
    emit("kind_none", envelope(u32(0)))
    emit("kind_both", envelope(u32(OBJECT | ARRAY)))
    emit("kind_scalar", envelope(container(ARRAY | 0x10000000, 1, [(NULL, b"")])))
    emit("kind_array", envelope(container(ARRAY, 1, [(NULL, b"")])))
    emit("key_number", envelope(container(OBJECT, 1, [(NUMERIC, number), (NULL, b"")])))
    emit("entry_length", envelope(entry(pair, 0, STRING | 0x0FFFFFFF)))
    emit("entry_offset", envelope(entry(pair, 0, 0x80000000 | STRING | 100000)))
    emit("entry_back", envelope(entry(pair, 1, 0x80000000 | NUMERIC | 0)))
    emit("entry_type", envelope(entry(pair, 1, 0x60000000 | len(number))))
    for name, value in (
        ("size", u32(0x3FFFFFFC << 2)), ("short", u32(4 << 2)), ("toast", u32(1)), ("packed", u32(0xFF)),
    ):
        emit("number_" + name, envelope(container(OBJECT, 1, [(STRING, b"abcd"), (NUMERIC, value + number[4:])])))
    emit("number_digit", envelope(container(OBJECT, 1, [
        (STRING, b"abcd"), (NUMERIC, u32(8 << 2) + struct.pack("=Hh", 0x8000, 32767))])))
    emit("inner_count", envelope(container(OBJECT, 1, [(STRING, b"list"), (CONTAINER, u32(ARRAY | 0x0FFFFFFF))])))
    deep = container(ARRAY, 0, [])
    for _ in range(100000):
        deep = u32(ARRAY | 1) + u32(CONTAINER | len(deep)) + deep
    emit("deep", envelope(container(OBJECT, 1, [(STRING, b"deep"), (CONTAINER, deep)])))

    chance = random.Random(10)
    for i in range(int(os.environ.get("SEAL_RANDOM", "400"))):
        flags = 2 * chance.randint(0, 1)
        raw = bytearray(with_device(envelope(nested, aligned), nested) if flags else envelope(nested, aligned))
        for _ in range(chance.randint(1, 3)):
            if chance.random() < 0.5:
                raw[chance.randrange(len(raw))] = chance.choice((0, 1, 4, 0x20, 0x40, 0x7F, 0x80, 0xFF))
            else:
                at = 4 * chance.randrange(len(raw) // 4)
                raw[at:at + 4] = u32(chance.choice((0, 1, 4, 0x0FFFFFFF, 0x20000001, 0x40000002, 0x50000010, 0xFFFFFFFF)))
        emit(f"random_{i}", bytes(raw), flags)


if __name__ == "__main__":
    main()
