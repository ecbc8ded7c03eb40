"""Attacks by the body of a request: its size, depth, numbers, characters, and what it says that it is."""

from __future__ import annotations

import gzip
import zlib

from tests.attacks.attack import ACT, ATTACKER, CHAT, EMBED, PLAN, Attack, attack, chat, post
from tests.attacks.wire import as_json

_EACH = (CHAT, EMBED, PLAN, ACT)


def _with(text: str) -> bytes:
    """A chat with a field of this JSON text."""
    return as_json(chat())[:-1] + b', "user": ' + text.encode() + b"}"


def _unknown(count: int) -> bytes:
    """A body with so many keys that no request has."""
    return b"{" + b",".join(b'"%d":1' % number for number in range(count)) + b"}"


_BOMB = zlib.compress(b" " * (64 * 2**20), 9)

ATTACKS: tuple[Attack, ...] = (
    attack("bodies of 32 MB with a key", post(CHAT, b"x" * (32 * 2**20), times=4), "413 closed 429"),
    attack("bodies of 7.9 MB, all of them blanks", post(CHAT, b" " * int(7.9 * 2**20), times=8), "400 413 429"),
    attack("lists a million deep", post(CHAT, b"[" * 10**6, b'{"a":' * 10**6, times=4), "400 429"),
    attack("lists a million deep, well formed", post(CHAT, b"[" * 10**6 + b"]" * 10**6, times=4), "400 429"),
    attack("lists 99 deep in every field", post(CHAT, *[_with("[" * 97 + "]" * 97)] * 20), "200 400 429"),
    attack(
        "4 million empty lists",
        post(CHAT, _with("[" + ",".join(["[]"] * 1_000_000) + "]"), times=4),
        "200 400 413 429 503 504",
    ),
    attack(
        "a million keys",
        post(CHAT, _unknown(400_000), times=2),
        "400 413 429 503 504",
    ),
    attack(
        "40,000 keys, the last one twice",
        post(CHAT, b"{" + b",".join(b'"%d":1' % n for n in [*range(40_000), 39_999]) + b"}"),
        "400 413 429 503 504",
    ),
    attack(
        "40,000 keys that there are not, 8,000 empty messages",
        post(CHAT, _unknown(40_000), as_json({"model": "tiny", "messages": [{}] * 8000}), times=4),
        "400 429 503 504",
    ),
    attack(
        "a key twice",
        post(CHAT, b'{"model": "a", "model": "tiny"}', b'{"messages": [{"role": "user", "role": "system"}]}'),
        "400 429",
    ),
    attack(
        "numbers that are none", post(CHAT, *map(_with, ("NaN", "Infinity", "-Infinity", "1e400", "-1e400"))), "400 429"
    ),
    attack(
        "numbers of a million digits",
        post(CHAT, _with("9" * 10**6), _with("0." + "9" * 10**6), _with("1e" + "9" * 10**6)),
        "200 400 429",
    ),
    attack("800,000 numbers", post(CHAT, _with("[" + "1e308," * 800_000 + "1]"), times=2), "200 400 413 429 503 504"),
    attack("half of a surrogate pair", post(CHAT, _with(r'"\ud800"'), _with(r'{"\udc00": 1}')), "400 429"),
    attack("bytes that are no UTF-8", post(CHAT, _with('"') + b"\xff\xfe", b"\xff" * 10**6), "400 429"),
    attack(
        "a byte order mark, UTF-16 and UTF-32",
        post(
            CHAT,
            b"\xef\xbb\xbf" + as_json(chat()),
            *[as_json(chat()).decode().encode(name) for name in ("utf-16", "utf-32")],
        ),
        "400 429",
    ),
    attack(
        "NUL, right-to-left, combining and private characters",
        post(
            CHAT,
            *map(chat, ("\0", "\u202e" * 50, "a" + "\u0301" * 50, "\U0010ffff" * 50, "\ufdfa" * 50, "\u0e33" * 50)),
        ),
        "200 400 429",
    ),
    attack("no body at all", post(CHAT, b"", times=20), "400 429"),
    attack("JSON that is no object", post(CHAT, b"null", b"1", b'"a"', b"[]", b"true", b"{}", b"[{}]"), "400 429"),
    attack(
        "a gzip bomb",
        post(CHAT, gzip.compress(b" " * (64 * 2**20)), times=4, Content_Encoding="gzip"),
        "400 413 415 429",
    ),
    attack("a deflate bomb", post(CHAT, _BOMB, times=4, Content_Encoding="deflate"), "400 413 415 429"),
    attack("other content types", post(CHAT, as_json(chat()), times=5, Content_Type="text/plain"), "400 415 429"),
    attack(
        "a form",
        post(CHAT, b"model=tiny&" * 100_000, Content_Type="application/x-www-form-urlencoded"),
        "400 413 415 429",
    ),
    attack(
        "a multipart body of 10,000 parts",
        post(
            CHAT,
            b'--a\r\nContent-Disposition: form-data; name="b"\r\n\r\nc\r\n' * 10_000 + b"--a--",
            times=4,
            Content_Type="multipart/form-data; boundary=a",
        ),
        "400 413 415 429",
    ),
    attack(
        "XML with entities",
        post(CHAT, b'<!DOCTYPE a [<!ENTITY b "' + b"c" * 10_000 + b'">]><a>&b;</a>', Content_Type="text/xml"),
        "400 415 429",
    ),
    attack(
        "a pickle",
        post(PLAN, b"\x80\x04cposix\nsystem\nX\x02\x00\x00\x00id\x85R.", Content_Type="application/octet-stream"),
        "400 415 429",
    ),
    attack(
        "a content type of 4 kB",
        post(CHAT, as_json(chat()), times=5, Content_Type="application/json; " + "a=b; " * 800),
        "200 400 415 429 431",
    ),
    *(
        attack(
            f"other JSON at {path}",
            post(path, b"{}", b"[]", b'{"model": 5}', b'{"a": [' + b"1," * 1000 + b"1]}", key=ATTACKER),
            "400 429",
        )
        for path in _EACH
    ),
)
