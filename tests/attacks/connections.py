"""Attacks on connections: slow, half-closed, endless, garbled, and what two parsers would read in two ways."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from tests.attacks.attack import CHAT, EMBED, PATIENCE_S, Act, Attack, Attacker, attack, chat, raw
from tests.attacks.wire import CLOSED, HELD, as_json, connect, request

REFUSED = "400 401 403 404 405 408 411 413 414 421 429 431 501 503 505 closed"
"""What may become of a request that is none."""
_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def _drip(head: bytes, part: bytes, connections: int) -> Act:
    """Connections that send a little at a time, and never come to an end. Whoever holds them for good loses."""

    async def act(attacker: Attacker) -> None:
        parts = [head, *[part] * 1000]
        await attacker.together(attacker.raw(*parts, pause_s=0.25) for _ in attacker.times(connections))

    return act


def _hold(sent: bytes, connections: int, seconds: float = 4.0) -> Act:
    """Connections that send this and then nothing: no harm, as long as others are answered. Not counted."""

    async def act(attacker: Attacker) -> None:
        quiet = Attacker(attacker.place, attacker.keyed)
        await attacker.together(quiet.raw(sent, timeout_s=seconds) for _ in attacker.times(connections))

    return act


async def _half_closed(attacker: Attacker) -> None:
    """A client that has nothing more to say after its request still wants its answer, or is hung up on."""

    async def one() -> None:
        reader, writer = await connect(attacker.place)
        headers = {"Content-Type": "application/json", **attacker.authorization()}
        writer.write(request("POST", CHAT, headers, as_json(chat())))
        writer.write_eof()
        outcome = HELD
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                outcome = (await reader.read(12))[9:].decode() or CLOSED
        writer.transport.abort()
        attacker.seen[outcome] += 1

    await attacker.together(one() for _ in attacker.times(20))


def _slow_reader(body: dict[str, object], connections: int) -> Act:
    """Asks for much and reads nothing of it."""

    async def act(attacker: Attacker) -> None:
        headers = {"Content-Type": "application/json", **attacker.authorization()}
        sent, loop = (
            request("POST", EMBED if "input" in body else CHAT, headers, as_json(body)),
            asyncio.get_running_loop(),
        )
        sockets = [socket.socket() for _ in attacker.times(connections)]
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.setblocking(False)
            one.bind((attacker.place.source, 0))
            await loop.sock_connect(one, (attacker.place.host, attacker.place.port))
            await loop.sock_sendall(one, sent)
        await asyncio.sleep(4)
        for one in sockets:
            one.close()

    return act


async def _open_and_close(attacker: Attacker) -> None:
    for _ in attacker.times(20):
        await attacker.together(_knock(attacker) for _ in range(50))


async def _knock(attacker: Attacker) -> None:
    with contextlib.suppress(OSError):
        _, writer = await connect(attacker.place)
        writer.transport.abort()


async def _pipelined(attacker: Attacker) -> None:
    """Requests that follow each other without waiting for answers; the last one ends the connection."""
    one = request("GET", "/health")
    last = request("GET", "/health", {"Connection": "close"})
    await attacker.together(attacker.raw(one * 500 + last) for _ in range(8))


def _smuggle(*headers: str, body: bytes = b"") -> Act:
    return raw(_HEAD + "\r\n".join(headers).encode() + b"\r\n\r\n" + body)


_INNER = b"0\r\n\r\nGET /stats HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_FILLER = b"X-Filler: " + b"a" * 8000 + b"\r\n"

ATTACKS: tuple[Attack, ...] = (
    attack("headers, a byte every quarter of a second", _drip(b"GET /health HTTP/1.1\r\n", b"X", 40), REFUSED),
    attack("a header every quarter of a second", _drip(_HEAD, b"X-A: b\r\n", 40), REFUSED),
    attack(
        "a body of bytes every quarter of a second", _drip(_HEAD + b"Content-Length: 100000\r\n\r\n", b"{", 40), REFUSED
    ),
    attack("chunks of a byte", _drip(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", 40), REFUSED),
    attack("a body that is announced and never comes", raw(_HEAD + b"Content-Length: 1000\r\n\r\n", times=40), REFUSED),
    attack("a head that never ends", raw(_HEAD, times=40), REFUSED),
    attack("200 connections that say nothing", _hold(b"", 200), ""),
    attack("200 connections kept after an answer", _hold(request("GET", "/health"), 200), ""),
    attack("1,000 connections opened and closed", _open_and_close, ""),
    attack("half-closed connections", _half_closed, "200 400 closed"),
    attack("half of a request and away", _hold(_HEAD[:30], 100, 0.1), ""),
    attack("headers of 64 MB", raw(_HEAD, *[_FILLER * 128] * 64), REFUSED),
    attack("headers of 64 MB, four at once", raw(_HEAD, *[_FILLER * 128] * 64, times=4), REFUSED),
    attack("64 MB of short headers", raw(_HEAD, *[b"X-A: b\r\n" * 2**17] * 64), REFUSED),
    attack("a header of 16 MB", raw(_HEAD + b"X-A: ", *[b"a" * 2**20] * 16, times=4), REFUSED),
    attack("20,000 headers", raw(_HEAD, *[b"X-A: b\r\n" * 1000] * 20, b"\r\n", times=4), REFUSED),
    attack(
        "headers of 40 kB, which some parsers take",
        raw(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + _FILLER * 5 + b"\r\n", times=50),
        REFUSED + " 200",
    ),
    attack("a path of 16 MB", raw(b"GET /", *[b"a" * 2**20] * 16, b" HTTP/1.1\r\n\r\n", times=4), REFUSED),
    attack(
        "a path of 60 kB", raw(b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", times=50), REFUSED
    ),
    attack(
        "a query of 60 kB",
        raw(b"GET /health?" + b"a=b&" * 15_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", times=50),
        REFUSED + " 200",
    ),
    attack("a method of 1 MB", raw(b"A" * 2**20, b" / HTTP/1.1\r\n\r\n"), REFUSED),
    attack(
        "length and chunks at once", _smuggle("Content-Length: 6", "Transfer-Encoding: chunked", body=_INNER), REFUSED
    ),
    attack("two lengths", _smuggle("Content-Length: 0", "Content-Length: 44", body=_INNER), REFUSED),
    attack("a length with a sign", _smuggle("Content-Length: +5", body=b"hello"), REFUSED),
    attack("a length below zero", _smuggle("Content-Length: -1", body=b"hello"), REFUSED),
    attack("a length in base 16", _smuggle("Content-Length: 0x5", body=b"hello"), REFUSED),
    attack("a length of 10^30", _smuggle(f"Content-Length: {10**30}", body=b"hello"), REFUSED),
    attack("chunks by another name", _smuggle("Transfer-Encoding: xchunked", body=_INNER), REFUSED),
    attack("a blank before the colon", _smuggle("Content-Length : 5", body=b"hello"), REFUSED),
    attack("a folded header", _smuggle("X-A: b", " Content-Length: 5", body=b"hello"), REFUSED),
    attack("a chunk size of 10^30", _smuggle("Transfer-Encoding: chunked", body=b"f" * 26 + b"\r\nhello"), REFUSED),
    attack(
        "chunks with extensions of 1 MB",
        _smuggle("Transfer-Encoding: chunked", body=b"1;" + b"a" * 2**20 + b"\r\n"),
        REFUSED,
    ),
    attack("trailers of 4 MB", _smuggle("Transfer-Encoding: chunked", body=b"0\r\n" + _FILLER * 512), REFUSED),
    attack("a bare line feed for the end of a line", raw(b"POST /v1/plan HTTP/1.1\nHost: a\n\n"), REFUSED),
    attack("a NUL in a header", raw(_HEAD + b"X-A: a\0b\r\n\r\n"), REFUSED),
    attack("no Host", raw(request("GET", "/health", host=None)), REFUSED + " 200"),
    attack("two Hosts", raw(b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), REFUSED + " 200"),
    attack("HTTP of 0.9", raw(b"GET /health\r\n\r\n"), REFUSED + " 200"),
    attack("a preface of HTTP/2", raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), REFUSED),
    attack("TLS", raw(bytes.fromhex("16030100b8010000b40303") + bytes(180), times=20), REFUSED),
    attack("8 MB of noise", raw(*[bytes(range(256)) * 4096] * 8, times=4), REFUSED),
    attack("an absolute path", raw(b"GET http://elsewhere/stats HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), REFUSED),
    attack("500 requests in one go", _pipelined, "200 429 closed"),
    attack(
        "an upgrade to a web socket",
        raw(
            request(
                "GET",
                "/v1/chat/completions",
                {
                    "Upgrade": "websocket",
                    "Connection": "Upgrade",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "a" * 22 + "==",
                },
            ),
            times=20,
        ),
        REFUSED + " 426",
    ),
    attack(
        "Expect: 100-continue, and nothing more",
        raw(_HEAD + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n", times=20),
        REFUSED + " 100",
    ),
    attack("streams that nobody reads", _slow_reader(chat(max_tokens=400, stream=True), 16), ""),
    attack("large answers that nobody reads", _slow_reader({"model": "tiny", "input": ["a text"] * 512}, 8), ""),
)
