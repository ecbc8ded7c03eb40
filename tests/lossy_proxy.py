"""A proxy before an HTTP server that loses some of what passes, drawn by chance from a seed.

python tests/lossy_proxy.py PORT SERVER_PORT SHARE SEED LOG

Of each request it draws whether, and how, it is lost: the connection ends before or after the server has served it, it
is refused with 500 or 503, or its answer is cut short. Each loss is a line in LOG.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from pathlib import Path

KINDS = ("before", "after", "500", "503", "cut")
_CODES = {"500": ("Internal Server Error", "InternalError"), "503": ("Slow Down", "SlowDown")}


class Proxy:
    """Serves one request a connection."""

    def __init__(self, server_port: int, share: float, seed: int, log: Path) -> None:
        self._server_port, self._share, self._draw, self._log = server_port, share, random.Random(seed), log

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head, body = await _read_request(reader, writer)
            lost = self._draw.choice(KINDS) if self._draw.random() < self._share else ""
            if lost:
                with self._log.open("a") as log:
                    log.write(f"{lost} {head.split(b'?')[0].splitlines()[0].decode()}\n")
            await self._answer(head, body, writer, lost)
        writer.close()

    async def _answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter, lost: str) -> None:
        if lost == "before":
            return
        if lost in _CODES:
            reason, code = _CODES[lost]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>reduce your request rate</Message></Error>"
            answer = (
                f"HTTP/1.1 {lost} {reason}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()
            )
        else:
            answer = await self._forward(head, body)
        if lost == "after":
            return
        writer.write(answer[: max(1, len(answer) * 2 // 3)] if lost == "cut" else answer)
        await writer.drain()

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            writer.write(head + body)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, bytes]:
    """A request's head, which asks for the connection to be closed, and its body."""
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    if b"expect" in headers:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
    dropped = (b"expect:", b"connection:")
    kept = [line for line in lines if not line.lower().startswith(dropped)]
    return b"\r\n".join([*kept, b"Connection: close", b"", b""]), body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(size.split(b";")[0], 16) + 2)
        body += size + chunk
        if chunk == b"\r\n":
            return body


async def _main(port: int, server_port: int, share: float, seed: int, log: str) -> None:
    proxy = Proxy(server_port, share, seed, Path(log))
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", port, limit=2**20) as server:
        await server.serve_forever()


if __name__ == "__main__":
    port, server_port, share, seed, log = sys.argv[1:]
    asyncio.run(_main(int(port), int(server_port), float(share), int(seed), log))
