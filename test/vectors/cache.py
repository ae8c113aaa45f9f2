#!/usr/bin/env python3
"""Test vectors of the cache protocol (docs/cache-protocol.md).

An implementation of the value format that shares no code with libsodium:
BLAKE2b is Python's, XChaCha20-Poly1305-IETF is written out below after
RFC 8439 and draft-irtf-cfrg-xchacha-03.  It is slow, and not for use.

    cache.py             write test/vectors/cache.json
    cache.py --check     fail unless cache.json is what would be written
    cache.py --lines     the vectors as lines for the test in C:
                         verdict name token key epoch now max_age value plaintext
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
import sys
import uuid
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("cache.json")
DOMAIN = b"session_manager cache v1"
BLOCK = 256  # the plaintext is padded to a multiple of this


# --- XChaCha20-Poly1305-IETF ---------------------------------------------


def _rotate(x: int, n: int) -> int:
    return (x << n | x >> (32 - n)) & 0xFFFFFFFF


def _rounds(state: list[int]) -> list[int]:
    """The twenty rounds of ChaCha (RFC 8439, section 2.3)."""
    s = list(state)
    quarters = (
        (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
        (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
    )  # fmt: skip
    for _ in range(10):
        for a, b, c, d in quarters:
            for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                s[x] = (s[x] + s[y]) & 0xFFFFFFFF
                s[z] = _rotate(s[z] ^ s[x], n)
    return s


def _state(key: bytes, last: bytes) -> list[int]:
    return list(struct.unpack("<16I", b"expand 32-byte k" + key + last))


def _chacha20(key: bytes, counter: int, nonce: bytes, text: bytes) -> bytes:
    out = bytearray()
    for i in range(0, len(text), 64):
        state = _state(key, struct.pack("<I", counter + i // 64) + nonce)
        words = [(a + b) & 0xFFFFFFFF for a, b in zip(state, _rounds(state), strict=True)]
        stream = struct.pack("<16I", *words)
        out += bytes(a ^ b for a, b in zip(text[i : i + 64], stream, strict=False))
    return bytes(out)


def _hchacha20(key: bytes, nonce: bytes) -> bytes:
    s = _rounds(_state(key, nonce))
    return struct.pack("<8I", *s[0:4], *s[12:16])


def _poly1305(key: bytes, text: bytes) -> bytes:
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(text), 16):
        total = (total + int.from_bytes(text[i : i + 16] + b"\1", "little")) * r % ((1 << 130) - 5)
    total += int.from_bytes(key[16:], "little")
    return (total & ((1 << 128) - 1)).to_bytes(16, "little")


def _tag(key: bytes, nonce: bytes, associated: bytes, ciphertext: bytes) -> bytes:
    def pad(text: bytes) -> bytes:
        return text + bytes(-len(text) % 16)

    lengths = struct.pack("<QQ", len(associated), len(ciphertext))
    one_time = _chacha20(key, 0, nonce, bytes(32))
    return _poly1305(one_time, pad(associated) + pad(ciphertext) + lengths)


def _subkey(key: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    return _hchacha20(key, nonce[:16]), bytes(4) + nonce[16:]


def encrypt(key: bytes, nonce: bytes, associated: bytes, text: bytes) -> bytes:
    """Ciphertext and tag of text under a key of 32 and a nonce of 24 bytes."""
    key, nonce = _subkey(key, nonce)
    ciphertext = _chacha20(key, 1, nonce, text)
    return ciphertext + _tag(key, nonce, associated, ciphertext)


def decrypt(key: bytes, nonce: bytes, associated: bytes, sealed: bytes) -> bytes | None:
    """The text, or None when it is not what was sealed."""
    key, nonce = _subkey(key, nonce)
    ciphertext, tag = sealed[:-16], sealed[-16:]
    if not hmac.compare_digest(tag, _tag(key, nonce, associated, ciphertext)):
        return None
    return _chacha20(key, 1, nonce, ciphertext)


# --- the protocol ---------------------------------------------------------


def parse(token: str) -> tuple[bytes, bytes]:
    """Session id and secret of a token."""
    raw = base64.urlsafe_b64decode(token.partition(".")[0][4:])
    return raw[:16], raw[16:]


def proof_of(token: str) -> str:
    """The proof of a device behind a token; mostly there is none."""
    return token.partition(".")[2]


def token_of(session_id: bytes, secret: bytes) -> str:
    return "sm1_" + base64.urlsafe_b64encode(session_id + secret).decode()


def digest_form(token: str) -> str:
    session_id, secret = parse(token)
    digest = hashlib.sha256(b"session_manager token v1" + session_id + secret).digest()
    form = "sd1_" + base64.urlsafe_b64encode(session_id + digest).decode()
    proof = proof_of(token)
    return f"{form}.{proof}" if proof else form


def sealing_key(application_key: bytes, token: str) -> bytes:
    session_id, secret = parse(token)
    return hashlib.blake2b(
        DOMAIN + session_id + secret + proof_of(token).encode(), key=application_key, digest_size=32
    ).digest()


def associated_data(session_id: bytes, epoch: str) -> bytes:
    return DOMAIN + session_id + epoch.encode()


def plaintext_of(cached_at: int, not_after: int, row: str) -> bytes:
    text = struct.pack(">qq", cached_at, not_after) + row.encode()
    return text + b" " * (-len(text) % BLOCK)


def seal(application_key: bytes, token: str, epoch: str, nonce: bytes, text: bytes) -> bytes:
    session_id, _ = parse(token)
    return (
        b"V" + epoch.encode() + nonce
        + encrypt(sealing_key(application_key, token), nonce, associated_data(session_id, epoch), text)
    )  # fmt: skip


def accept(
    application_key: bytes, token: str, epoch: str | None, value: bytes, now: int, max_age: int
) -> bytes | None:
    """The plaintext of a value that a reader may use at the time now, or None."""
    if epoch is None or value[:1] != b"V" or value[1:33] != epoch.encode():
        return None
    if len(value) < 33 + 24 + BLOCK + 16:
        return None
    session_id, _ = parse(token)
    text = decrypt(
        sealing_key(application_key, token), value[33:57], associated_data(session_id, epoch), value[57:]
    )  # fmt: skip
    if text is None:
        return None
    cached_at, not_after = struct.unpack(">qq", text[:16])
    if now >= not_after or now >= cached_at + max_age or now < cached_at - 5_000_000:
        return None
    return text


# --- the vectors ----------------------------------------------------------

KEY = bytes(range(0x80, 0xA0))
OTHER_KEY = bytes(range(0xC0, 0xE0))
INSTALLATION = "6f1c2f0e-5b0a-4c53-9d51-0a2f6a3f7e11"
EPOCH = "0123456789abcdef0123456789abcdef"
NEXT_EPOCH = "f0e1d2c3b4a5968778695a4b3c2d1e0f"
SECOND = 1_000_000
START = 1_795_521_600 * SECOND
MAX_AGE = 300 * SECOND

Row = dict[str, Any]


def row(session_id: bytes, **members: Any) -> Row:
    base: Row = {
        "session_id": str(uuid.UUID(bytes=session_id)),
        "user_id": "auth0|ada",
        "tenant_id": None,
        "data": {},
        "version": 1,
        "auth": None,
        "created_at": START - 7200 * SECOND,
        "authenticated_at": START - 7200 * SECOND,
        "last_seen_at": START - 20 * SECOND + 123_456,
        "expires_at": START + 79_200 * SECOND,
        "absolute_expires_at": START + 597_600 * SECOND,
    }
    return {**base, **members}


def vector(
    name: str, token: str, nonce: bytes, members: Row, *, key: bytes = KEY, epoch: str = EPOCH,
    cached_at: int = START, not_after: int = START + MAX_AGE,
) -> Row:  # fmt: skip
    session_id, _ = parse(token)
    text = json.dumps(row(session_id, **members), ensure_ascii=False, separators=(",", ":"))
    plaintext = plaintext_of(cached_at, not_after, text)
    return {
        "name": name,
        "token": token,
        "digest_form": digest_form(token),
        "application_key": key.hex(),
        "installation": INSTALLATION,
        "redis_key": f"session:{uuid.UUID(bytes=session_id)}",
        "epoch_key": f"session:epoch:{INSTALLATION}",
        "epoch": epoch,
        "sealing_key": sealing_key(key, token).hex(),
        "nonce": nonce.hex(),
        "associated_data": associated_data(session_id, epoch).hex(),
        "cached_at": cached_at,
        "not_after": not_after,
        "row": text,
        "plaintext": plaintext.hex(),
        "value": seal(key, token, epoch, nonce, plaintext).hex(),
        "now": START + 1,
        "max_age": MAX_AGE,
    }


def proof(key_id: int, expires_at: int, mac: bytes) -> str:
    """A proof of a device, whose MAC only the extension can make."""
    stamp = struct.pack(">I", key_id) + expires_at.to_bytes(7, "big") + mac
    return "sp1_" + base64.urlsafe_b64encode(stamp).decode()


def vectors() -> Row:
    ada = uuid.UUID("01975a3e-9c00-7abc-9def-012345675ec4").bytes
    bob = uuid.UUID("01a20d09-dca1-7b3c-a497-81c4ab5e0001").bytes
    token = token_of(ada, bytes(range(32)))
    successor = token_of(ada, bytes(range(32, 64)))
    bobs = token_of(bob, hashlib.sha256(b"bob").digest())
    nonce = bytes(range(24))

    accepted = [
        vector("plain", token, nonce, {}),
        vector(
            "all members, not ASCII", bobs, hashlib.sha256(b"nonce").digest()[:24],
            {
                "user_id": "auth0|Ünal‑東京",
                "tenant_id": "société générale",
                "data": {"name": "Zoë 🦊", "cart": [1, 2.50, {"sku": "ё-7", "ok": True, "none": None}],
                         "quote\"d": "back\\slash\n\u2028"},
                "auth": {"acr": "aal2", "amr": ["pwd", "otp"]},
                "version": 2147483647,
            },
            epoch=NEXT_EPOCH,
        ),
        vector("the token after a rotation", successor, bytes(23) + b"\1", {"version": 3}),
        vector("another application key", token, b"\xff" * 24, {}, key=OTHER_KEY),
        vector("longer than a block", token, bytes(24), {"data": {"bio": "x" * 600}}),
        vector("expires before max_age", token, nonce[::-1], {"expires_at": START + SECOND},
               not_after=START + SECOND),
    ]  # fmt: skip
    # one whose padding is empty
    length = len(accepted[0]["row"].encode()) + 16
    accepted.append(
        vector("no padding", token, b"\x42" * 24, {"data": {"p": "x" * ((-length - 6) % BLOCK)}})
    )
    assert accepted[-1]["plaintext"].endswith("7d")

    # Of a session that is bound to a device: for readers that present its proof.
    until = START + 60 * SECOND
    first = proof(1, until, bytes(range(16)))
    bound = [
        vector("bound to a device, until its proof expires", f"{token}.{first}", b"\x24" * 24,
               {"device_proved_at": START - 30 * SECOND}, not_after=until),
    ]  # fmt: skip

    good = accepted[0]
    value = bytes.fromhex(good["value"])

    def refuse(name: str, why: str, **changed: Any) -> Row:
        fields = ("token", "application_key", "epoch", "value", "now", "max_age")
        return {"name": name, "why": why, **{f: changed.get(f, good[f]) for f in fields}}

    def flip(at: int, bit: int = 1) -> str:
        changed = bytearray(value)
        changed[at] ^= bit
        return changed.hex()

    def moved(cached_at: int, not_after: int) -> str:
        return vector("", token, nonce, {}, cached_at=cached_at, not_after=not_after)["value"]

    refused = [
        refuse("no epoch", "the epoch key is not there", epoch=None),
        refuse("another epoch", "the epoch is not the value's", epoch=NEXT_EPOCH),
        refuse("epoch rewritten", "the prefix was made to agree; the seal binds the epoch",
               epoch=NEXT_EPOCH, value=(b"V" + NEXT_EPOCH.encode() + value[33:]).hex()),
        refuse("flipped bit in the nonce", "the tag does not hold", value=flip(40)),
        refuse("flipped bit in the ciphertext", "the tag does not hold", value=flip(100, 0x80)),
        refuse("flipped bit in the tag", "the tag does not hold", value=flip(len(value) - 1)),
        refuse("cut short", "the tag does not hold", value=value[:-1].hex()),
        refuse("cut to its prefix", "no nonce, no tag", value=value[:33].hex()),
        refuse("cut into its prefix", "no whole epoch", value=value[:20].hex()),
        refuse("empty", "nothing there", value=""),
        refuse("tombstone", "T means: ask PostgreSQL", value=b"T".hex()),
        refuse("lease", "somebody is filling", value=(b"L" + b"5" * 32).hex()),
        refuse("another session's value", "sealed for another session and by another token",
               value=vector("", bobs, nonce, {})["value"]),
        refuse("another token of the session", "sealed by the token before it", token=successor),
        refuse("wrong secret", "whoever knows the id does not know the secret",
               token=token_of(ada, bytes(32))),
        refuse("wrong application key", "sealed under another", application_key=OTHER_KEY.hex()),
        refuse("expired", "not_after has been reached", now=good["not_after"]),
        refuse("session expired before max_age", "not_after has been reached",
               value=accepted[5]["value"], now=START + SECOND),
        refuse("older than max_age", "max_age has been made shorter since",
               now=START + 10 * SECOND, max_age=10 * SECOND),
        refuse("bound to a device, without its proof", "sealed for those who have the proof",
               value=bound[0]["value"]),
        refuse("from the future", "this reader's clock is more than 5 s behind",
               value=moved(START + 5 * SECOND + 2, START + MAX_AGE)),
    ]  # fmt: skip

    others = proof(1, until, bytes(range(1, 17))), proof(1, until + SECOND, bytes(range(16)))
    bound_refused = [
        refuse("another proof", "sealed for those who have the first one",
               token=f"{token}.{others[0]}", value=bound[0]["value"]),
        refuse("a later proof", "the same, though it is the device's",
               token=f"{token}.{others[1]}", value=bound[0]["value"]),
        refuse("the proof has expired", "not_after is no later than that",
               token=f"{token}.{first}", value=bound[0]["value"], now=until),
    ]  # fmt: skip

    for v in accepted + bound:
        arguments = (bytes.fromhex(v["application_key"]), v["token"], v["epoch"])
        text = accept(*arguments, bytes.fromhex(v["value"]), v["now"], v["max_age"])
        assert text is not None and text.hex() == v["plaintext"], v["name"]
        assert json.loads(text[16:]) == json.loads(v["row"]), v["name"]
    for v in refused + bound_refused:
        arguments = (bytes.fromhex(v["application_key"]), v["token"], v["epoch"])
        assert accept(*arguments, bytes.fromhex(v["value"]), v["now"], v["max_age"]) is None, v["name"]

    return {
        "description": "Vectors of docs/cache-protocol.md, written by cache.py. Bytes are hexadecimal, "
        "times are microseconds since 1970, durations microseconds. A reader that is shown `value` under "
        "`redis_key` and `epoch` under `epoch_key` at the time `now` uses what is in `accepted` and "
        "treats what is in `refused` as a miss. What is in `bound` is accepted, and what is in "
        "`bound_refused` a miss, by readers that know of proofs; others do not open it either.",
        "accepted": accepted,
        "refused": refused,
        "bound": bound,
        "bound_refused": bound_refused,
    }


def published_vector() -> None:
    """draft-irtf-cfrg-xchacha-03, appendix A.3.1."""
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you "
        b"only one tip for the future, sunscreen would be it."
    )
    associated = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    sealed = encrypt(bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x58)), associated, text)
    assert sealed[:16].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"


def main() -> int:
    published_vector()
    content = vectors()
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    match sys.argv[1:]:
        case []:
            PATH.write_text(text, encoding="utf-8")
        case ["--check"]:
            if PATH.read_text(encoding="utf-8") != text:
                print(f"{PATH.name} is not what {Path(__file__).name} writes", file=sys.stderr)
                return 1
        case ["--lines"]:
            for verdict in ("accepted", "refused"):
                for v in content[verdict]:
                    fields = (
                        verdict, v["name"].replace(" ", "_"), v["token"], v["application_key"],
                        v["epoch"] or "-", v["now"], v["max_age"], v["value"] or "-",
                        v.get("plaintext", "-"),
                    )  # fmt: skip
                    print(*fields)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
