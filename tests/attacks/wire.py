"""HTTP by hand, over plain sockets: what a well-behaved client will not send, and no more work than sending takes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CLOSED, HELD = "closed", "held"
_STATUS, _LENGTH = re.compile(rb"HTTP/1\.[01] (\d{3})"), re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where a server listens, and the address that a client comes from."""

    host: str
    port: int
    source: str = "127.0.0.1"


@dataclass(frozen=True)
class Reply:
    """What became of a connection: a status in `outcome`; `closed`, where the server hung up without one; or `held`,
    where it did neither in time. `body` is what arrived after the head."""

    outcome: str
    seconds: float
    head: bytes = b""
    body: bytes = b""


def request(
    method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"", host: str | None = "127.0.0.1"
) -> bytes:
    """A request as bytes. A length is told unless the headers say how long the body is."""
    lines = [f"{method} {path} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    given = dict(headers or {})
    if not {"content-length", "transfer-encoding"} & {name.lower() for name in given} and (body or method == "POST"):
        given["Content-Length"] = str(len(body))
    lines += [f"{name}: {value}" for name, value in given.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def as_json(value: Any) -> bytes:
    """A value as a body; bytes stay as they are."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


async def connect(place: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection from the address that the place says. Raises OSError."""
    return await asyncio.open_connection(place.host, place.port, local_addr=(place.source, 0))


async def exchange(place: Place, parts: Iterable[bytes], pause_s: float = 0.0, timeout_s: float = 30.0) -> Reply:
    """Send these parts with a pause after each, and read one answer. Reading begins at once: a server may answer
    before everything has been sent."""
    started = time.perf_counter()
    try:
        reader, writer = await connect(place)
    except OSError:
        return Reply(CLOSED, time.perf_counter() - started)
    sending = asyncio.create_task(_send(writer, parts, pause_s))
    head, body, outcome = b"", b"", HELD
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                outcome, head, body = await _read(reader)
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        writer.transport.abort()
    return Reply(outcome, time.perf_counter() - started, head, body)


async def _send(writer: asyncio.StreamWriter, parts: Iterable[bytes], pause_s: float) -> None:
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)


async def _read(reader: asyncio.StreamReader) -> tuple[str, bytes, bytes]:
    """Outcome, head and body of one answer."""
    try:
        while (head := await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 1"):
            pass  # 100 Continue, and then the answer
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        return CLOSED, b"", b""
    found, length = _STATUS.match(head), _LENGTH.search(head)
    outcome = found[1].decode() if found else "garbage"
    try:
        if length is not None:
            body = await reader.readexactly(int(length[1]))
        else:
            body = await _read_chunks(reader) if b"chunked" in head.lower() else await reader.read()
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        body = getattr(error, "partial", b"")
    return outcome, head, body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int(await reader.readline() or b"0", 16):
        body += await reader.readexactly(size)
        await reader.readline()
    return bytes(body)
